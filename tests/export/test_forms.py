"""Every form of a real run: written, loaded again by somebody else's code, and what a person needs to go on."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

from engine.export.job import export
from engine.export.steps import ExportFailed
from engine.export.tensors import read_folder
from recipes.errors import InputError

pytestmark = pytest.mark.usefixtures("in_process")
GOOD = [
    ("adapter", None, 1), ("adapter", None, 2), ("merged", None, 3), ("gguf", "f16", 3), ("gguf", "q8_0", 3), ("gguf", "q4_0", 3),
    ("gguf", "bf16", 1), ("ollama", None, 3), ("control-vector", None, 3), ("steered", None, 3),
]  # fmt: skip


@pytest.mark.parametrize("form, kind, stage", GOOD)
def test_a_form_is_what_the_run_is(form, kind, stage, run):
    result = export(run, form, kind=kind, stage=stage)
    found = result.comparison
    assert not found.failures
    assert result.path.parent == run.exports and (result.path / "README.md").is_file()
    assert not list(run.exports.glob(".draft-*"))
    if form == "control-vector":
        assert found.tensors == 1
        return
    assert found.tokens > 20 and found.outputs == 3
    if form != "gguf" or kind != "q4_0":
        assert found.kl < found.kl_base / 4 or found.kl < 1e-6  # much nearer to the run than the base is


def test_mlx_forms(run):
    pytest.importorskip("mlx_lm")
    for form, kind, stage in (("mlx-adapter", None, 1), ("mlx-adapter", None, 2), ("mlx", None, 3), ("mlx", "4bit", 3)):
        result = export(run, form, kind=kind, stage=stage)
        assert not result.comparison.failures and result.comparison.loader == "mlx-lm"
        assert result.comparison.kl < (1e-6 if form == "mlx-adapter" else 0.05)
    quantized = read_folder(run.exports / "mlx-4bit-stage-3")
    assert any(facts.dtype == "U32" for facts in quantized.values())


def test_a_merge_is_what_the_formula_says(run):
    """W' = s * (W + BA - l u (w^T (W + BA))) in float64, by hand, against the folder's bf16."""
    import torch
    from safetensors import safe_open
    from safetensors.torch import load_file

    merged = load_file(export(run, "merged", stage=2).path / "model.safetensors")
    base = load_file(json.loads(run.model.read_text())["path"] + "/model.safetensors")
    adapter = load_file(run.path / "stages/01-sft/output/adapter/adapter_model.safetensors")
    edits = run.path / "stages/02-abliteration/output/edits.safetensors"
    strength = json.loads((edits.parent / "lineage.json").read_text())["edits"][0]["strength"]
    with safe_open(edits, framework="pt") as file:
        facts = json.loads(file.metadata()["finetune-tui"])["edits"]
        acting = {
            fact["module"]: (fact["weight"], [file.get_tensor(f"{n}.{part}").double() for part in "uwab"])
            for n, fact in enumerate(facts)
        }
    changed = 0
    for name, weight in base.items():
        module = name.removesuffix(".weight")
        wanted = weight.double()
        key = f"base_model.model.{module}.lora_A.weight"
        if key in adapter:
            wanted = wanted + 2.0 * adapter[key.replace("lora_A", "lora_B")].double() @ adapter[key].double()
        if module in acting:
            share, (u, w, a, b) = acting[module]
            wanted = wanted - strength * share * torch.outer(u, w @ wanted)
            wanted = wanted * (1 - 2 * strength * share * a + (strength * share) ** 2 * b).rsqrt().unsqueeze(1)
        changed += not torch.equal(wanted.bfloat16(), weight)
        assert torch.allclose(merged[name].double(), wanted, rtol=2**-8, atol=1e-6), name
    assert changed >= 14


def test_a_gguf_has_what_llama_cpp_reads(run):
    path = export(run, "gguf", stage=1).path / "model.gguf"
    reader = GGUFReader(path)

    def value(key):
        return reader.get_field(key).contents()

    assert value("general.architecture") == "llama" and value("tokenizer.ggml.pre") == "gpt-2"
    assert value("tokenizer.ggml.eos_token_id") == 1 and value("tokenizer.ggml.token_type")[1] == 3
    assert "generation" not in value("tokenizer.chat_template").replace("add_generation_prompt", "")
    names = {tensor.name for tensor in reader.tensors}
    assert "output.weight" not in names and "token_embd.weight" in names  # tied
    norm = next(tensor for tensor in reader.tensors if tensor.name == "blk.0.attn_norm.weight")
    assert np.isfinite(dequantize(norm.data, norm.tensor_type)).all() and norm.tensor_type.name == "F32"


def test_the_card_says_what_somebody_else_needs(run):
    text = (export(run, "adapter", stage=2).path / "README.md").read_text()
    lineage = json.loads((run.path / "stages/02-abliteration/output/lineage.json").read_text())
    for wanted in (
        lineage["adapter"]["sha256"], lineage["edits"][0]["sha256"], lineage["base"]["files"]["model.safetensors"],
        "seed: 0", "torch 2", "finetune-tui run recipe.yaml", "finetune-tui export --to adapter --stage 2", "| perplexity |",
        "before:", "after:", "safeguard", "identical", "95 % interval", "lab/domain.jsonl",
    ):  # fmt: skip
        assert wanted in text, wanted
    assert "steering" not in text.split("## Recipe")[0].split("# small")[1]  # stage 3 is not in this export
    assert re.match(r"---\nlibrary_name: peft\n", text)


def test_the_steered_folder_has_a_dial(run):
    """Its loader in a process of its own, far from this project: at 0 the model says what the merged one says."""
    steered, merged = export(run, "steered").path, export(run, "merged").path
    code = """
import sys, torch
sys.path.insert(0, sys.argv[1])
from load import load
from transformers import AutoModelForCausalLM
model, tokenizer, dials = load()
plain = AutoModelForCausalLM.from_pretrained(sys.argv[2])
ids = torch.tensor([[3, 20, 30, 40]])
with torch.no_grad():
    on = model(ids).logits
    dials["warm"] = 0.0
    print(torch.equal(model(ids).logits, plain(ids).logits), torch.equal(on[:, :-1], plain(ids).logits[:, :-1]), (on - plain(ids).logits).abs().max().item())
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, str(steered), str(merged)],
        capture_output=True,
        text=True,
        cwd=steered,
        timeout=120,
    )
    off_is_plain, prompt_untouched, moved = done.stdout.split()
    assert (off_is_plain, prompt_untouched) == ("True", "True") and float(moved) > 0.01, done.stderr


def test_a_lost_tune_fails_the_round_trip_and_nothing_stays(run, monkeypatch):
    """A merge that forgets the adapter is the base: the round trip must notice."""
    from engine.backends.pytorch import export_merge

    monkeypatch.setattr(export_merge, "read_adapter", lambda folder: {})
    with pytest.raises(ExportFailed, match="round trip failed.*(tune is lost|KL to the run)"):
        export(run, "merged", stage=1)
    assert not [path for path in run.exports.iterdir() if path.name != ".reference"]


def test_wrong_rows_in_a_gguf_fail_the_round_trip(run, monkeypatch):
    """Query rows that are not interleaved: every tensor compares with itself, only another loader's logits tell."""
    from engine.export import gguf_model

    monkeypatch.setattr(gguf_model, "_interleaved", lambda tensor, heads: tensor)
    with pytest.raises(ExportFailed, match="KL to the run"):
        export(run, "gguf", stage=1)


def test_another_template_fails_the_round_trip(run):
    result = export(run, "merged", stage=1)
    template = result.path / "chat_template.jinja"
    template.write_text(template.read_text().replace("'|> '", "'|>'"))
    from transformers import AutoTokenizer

    from engine.backends.pytorch.export_check import Probes, compare_tokenizer
    from engine.export.comparison import Comparison

    reference = next(path for path in (run.exports / ".reference").iterdir())
    found = Comparison("transformers")
    compare_tokenizer(found, AutoTokenizer.from_pretrained(result.path), Probes(reference, "plain"))
    assert found.failures == ["the chat template renders a conversation differently"]


def test_a_folder_with_something_in_it_is_kept(run, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match="something in it"):
        export(run, "adapter", stage=1, out=tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    first = export(run, "adapter", stage=1, out=tmp_path / "new")
    (first.path / "old.txt").write_text("x")
    with pytest.raises(InputError):
        export(run, "adapter", stage=1, out=tmp_path / "new")
    export(run, "adapter", stage=1, out=tmp_path / "new", replace=True)
    assert not (tmp_path / "new" / "old.txt").exists() and math.isfinite(first.comparison.kl)
