"""What cannot be exported is refused before anything is written, or leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import psutil
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from engine.export import plan as planning
from engine.export.job import export
from engine.export.steps import Cancelled, ExportFailed
from recipes.errors import InputError


def exports_of(run):
    return [path.name for path in run.exports.iterdir() if path.name != ".reference"] if run.exports.exists() else []


def rewrite_lineage(run, stage, change):
    path = next((run.path / "stages").glob(f"{stage:02d}-*")) / "output" / "lineage.json"
    lineage = json.loads(path.read_text())
    change(lineage)
    path.write_text(json.dumps(lineage))


def test_projections_are_no_control_vectors(run):
    with pytest.raises(InputError, match="projections.*--to gguf"):
        export(run, "control-vector", stage=2)


def test_a_stage_without_vectors_or_adapter(run):
    with pytest.raises(InputError, match="no steering vectors"):
        export(run, "steered", stage=1)
    rewrite_lineage(run, 1, lambda lineage: lineage.update(adapter=None))
    with pytest.raises(InputError, match="--to merged"):
        export(run, "adapter", stage=1)
    with pytest.raises(InputError, match="a finished stage: 1 .sft., 2 .abliteration., 3 .steering."):
        export(run, "merged", stage=4)


@pytest.mark.parametrize("what", ["disk", "memory"])
def test_too_little_room(what, run, monkeypatch):
    if what == "disk":
        monkeypatch.setattr(planning, "probe_disk", lambda path: SimpleNamespace(free=1000))
    else:
        monkeypatch.setattr(planning, "probe_ram", lambda: SimpleNamespace(available=2**28))
    with pytest.raises(InputError, match="GiB .*free.*accepted: .* GiB"):
        export(run, "merged", stage=1)
    assert exports_of(run) == []


def test_a_vector_of_another_model(run):
    path = run.path / "stages/03-steering/output/warm.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file({"direction": torch.ones(17)}, path, metadata=metadata)
    with pytest.raises(InputError, match="width 17.*width 96.*another model"):
        export(run, "steered")


def test_a_vector_that_llama_cpp_cannot_add(run):
    path = run.path / "stages/03-steering/output/warm.safetensors"
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    for change, said in (({"window": 1}, "first 1 tokens"), ({"condition": {"layer": 1, "threshold": 0}}, "condition")):
        facts = {**json.loads(metadata["finetune-tui"]), **change}
        save_file(tensors, path, metadata={"finetune-tui": json.dumps(facts)})
        rewrite_lineage(
            run, 3, lambda lineage, change=change: lineage["vectors"][0].update(window=change.get("window"))
        )
        with pytest.raises(InputError, match=said):
            export(run, "control-vector")
    rewrite_lineage(run, 3, lambda lineage: lineage["vectors"][0].update(layer=0, window=None))
    with pytest.raises(InputError, match="block 0"):
        export(run, "control-vector")


def test_an_adapter_of_another_base(run):
    """By its shapes, by its modules, and where those agree by its hash."""
    path = run.path / "stages/01-sft/output/adapter/adapter_model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if "lora_A" in name)
    save_file({**tensors, name: torch.zeros(4, 128)}, path)
    with pytest.raises(InputError, match="128 inputs where the base has 256"):
        export(run, "merged", stage=1)
    save_file({**tensors, name.replace("layers.0", "layers.7"): tensors[name].clone()}, path)
    with pytest.raises(InputError, match="layers.7.*the base has not"):
        export(run, "merged", stage=1)
    save_file({**tensors, name: tensors[name] + 1}, path)
    with pytest.raises(InputError, match="another file .sha256"):
        export(run, "merged", stage=1)
    assert exports_of(run) == []


def test_a_base_that_changed_or_broke(run, tmp_path):
    base = tmp_path / "base"
    shutil.copytree(json.loads(run.model.read_text())["path"], base)
    rewrite_lineage(run, 1, lambda lineage: lineage["base"].update(path=str(base)))
    weights = base / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-100])
    with pytest.raises(InputError, match="broken file: it ends 100 bytes early"):
        export(run, "merged", stage=1)
    weights.write_bytes(b"\xff" * 100)
    with pytest.raises(InputError, match="a broken file"):
        export(run, "merged", stage=1)
    weights.write_bytes(whole[:-1] + b"\x01")
    with pytest.raises(InputError, match="sha256.*lab-nano"):
        export(run, "merged", stage=1)
    weights.write_bytes(whole)
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes"}}))
    with pytest.raises(InputError, match="bitsandbytes.*16 bit"):
        export(run, "merged", stage=1)
    (base / "config.json").write_text(json.dumps({**config, "model_type": "mamba"}))
    with pytest.raises(InputError, match="`mamba`.*convert_hf_to_gguf"):
        export(run, "gguf", stage=1)


def test_words_that_are_no_form_or_type(run):
    with pytest.raises(InputError, match="Did you mean `gguf`"):
        export(run, "ggfu")
    with pytest.raises(InputError, match="Did you mean `q8_0`"):
        export(run, "gguf", kind="q8")


def test_k_quants_need_llama_quantize(run, monkeypatch, tmp_path, in_process):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="brew install llama.cpp"):
        export(run, "gguf", kind="q4_k_m", stage=1)
    # A program of that name that fails, and one that gives the file back: what it made is what is compared.
    tool = tmp_path / "llama-quantize"
    tool.write_text("#!/bin/sh\nexit 3\n")
    tool.chmod(0o755)
    with pytest.raises(ExportFailed, match="llama-quantize ended with code 3"):
        export(run, "gguf", kind="q4_k_m", stage=1)
    assert exports_of(run) == []
    tool.write_text('#!/bin/sh\n[ "$3" = Q4_K_M ] && /bin/cp "$1" "$2"\n')
    result = export(run, "gguf", kind="q4_k_m", stage=1)
    assert result.path.name == "gguf-q4_k_m-stage-1" and result.comparison.tensors == 20


def program(folder, name, text):
    """An executable of that name that keeps what it is called with."""
    path = folder / name
    path.write_text(
        f"#!{sys.executable}\nimport json, shutil, sys\nopen({str(folder / 'called')!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n{text}"
    )
    path.chmod(0o755)


def called(folder):
    return [json.loads(line) for line in (folder / "called").read_text().splitlines()]


def test_ollama_quantizes_where_llama_quantize_is_missing(run, monkeypatch, tmp_path, in_process):
    """The command that the export ends with is run as a user would."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="with `--to ollama` by Ollama"):
        export(run, "ollama", kind="q4_k_m", stage=1)
    program(tmp_path, "ollama", "")
    result = export(run, "ollama", kind="q4_k_m", stage=1)
    assert subprocess.run(["/bin/sh", "-c", result.next], timeout=60).returncode == 0
    create, talk = called(tmp_path)
    assert create == ["create", "-q", "q4_k_m", "small", "-f", str(result.path / "Modelfile")] and talk == [
        "run",
        "small",
    ]
    assert (result.path / "Modelfile").read_text().startswith("FROM ./model.gguf")


def test_another_family_goes_through_llama_cpps_converter(run, monkeypatch, tmp_path, in_process):
    """Lab-nano as a family that we cannot write. The converter of the test gives a file that was made before."""
    from engine.export import gguf_model

    monkeypatch.setenv("PATH", str(tmp_path))
    ready = export(run, "gguf", stage=1).path / "model.gguf"
    monkeypatch.setattr(gguf_model, "FAMILIES", {})
    with pytest.raises(InputError, match="`llama`.*convert_hf_to_gguf.py is installed.*brew install llama.cpp"):
        export(run, "gguf", stage=1, replace=True)
    convert = (
        f"assert __import__('os').path.isfile(sys.argv[1] + '/config.json')\nshutil.copy({str(ready)!r}, sys.argv[3])"
    )
    kept = tmp_path / "kept.gguf"
    shutil.copy(ready, kept)
    program(tmp_path, "convert_hf_to_gguf.py", convert.replace(str(ready), str(kept)))
    with pytest.raises(InputError, match="`q4_0` without llama-quantize"):
        export(run, "gguf", kind="q4_0", stage=1)
    result = export(run, "gguf", stage=1, replace=True)
    ((merged, _, out, _, kind),) = called(tmp_path)
    assert kind == "f16" and out.endswith("model.gguf") and not os.path.exists(merged)
    assert result.comparison.tensors >= 18 and result.comparison.worst_tensor < 1e-3
    program(tmp_path, "convert_hf_to_gguf.py", "sys.exit(4)")
    with pytest.raises(ExportFailed, match="convert_hf_to_gguf.py ended with code 4"):
        export(run, "gguf", kind="bf16", stage=1)
    assert "gguf-bf16-stage-1" not in exports_of(run)


def test_cancelling_leaves_nothing(run, in_process):
    seen = []
    with pytest.raises(Cancelled):
        export(run, "merged", stage=1, progress=seen.append, cancelled=lambda: any(one.part == 3 for one in seen))
    assert exports_of(run) == []


def test_a_kill_leaves_nothing_that_looks_finished(run):
    """kill -9 of the command once it writes or checks: its step ends by itself, and the next export sweeps up."""
    command = [sys.executable, "-P", "-m", "tui.cli", "export", run.id, "--to", "merged", "--stage", "1"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    drafts, children = [], []
    while time.monotonic() < deadline and not (drafts and children):
        drafts = list(run.exports.glob(".draft-merged*")) if run.exports.exists() else []
        children = psutil.Process(process.pid).children()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    gone, alive = psutil.wait_procs(children, timeout=60)
    assert gone and not alive
    assert not [name for name in exports_of(run) if not name.startswith(".")]
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tui.cli", "export", run.id, "--to", "control-vector", "--json"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["path"] == str(run.exports / "control-vector")
    assert [name for name in exports_of(run) if name.startswith(".draft-merged")] == []


def test_the_command_says_it_and_ends_with_2(run):
    command = [sys.executable, "-P", "-m", "tui.cli", "export", run.id]
    done = subprocess.run(
        [*command, "--to", "control-vector", "--stage", "2", "--json"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and "projections" in json.loads(done.stdout)["messages"][0]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, timeout=60)
    forms = {one["form"]: one for one in json.loads(done.stdout)}
    assert (
        done.returncode == 0
        and forms["merged"]["size"] > forms["adapter"]["size"] > 0
        and not forms["gguf"]["problems"]
    )
