"""GGUF and Ollama of the other families: tiny random models, read by transformers' own GGUF reader."""

from __future__ import annotations

import json

import pytest
from gguf import GGUFReader

from engine.export.job import export
from engine.export.modelfile import CONVERSATIONS, confirm, modelfile, observe, renderer
from recipes.errors import InputError
from tests.export.families import CHATML, FAMILIES, HEADERS, INST, TURNS, make_base, tuned_run

PRE = {
    "qwen2": "qwen2",
    "qwen3": "qwen2",
    "llama3": "llama-bpe",
    "mistral": "default",
    "nemo": "tekken",
    "gemma2": "default",
    "gemma3": "default",
}
ARCHITECTURES = {"llama3": "llama", "mistral": "llama", "nemo": "llama"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_round_trips(name, tmp_path, home, in_process):
    run = tuned_run(name, make_base(name, tmp_path / "base"), home)
    result = export(run, "ollama", kind="f16")
    found = result.comparison
    assert not found.failures and found.kl < 1e-4 and found.kl_base > 0.01
    assert found.same_outputs == found.outputs == 3
    reader = GGUFReader(result.path / "model.gguf")

    def value(key):
        return reader.get_field(key).contents()

    assert value("general.architecture") == ARCHITECTURES.get(name, name) and value("tokenizer.ggml.pre") == PRE[name]
    end = FAMILIES[name][4]
    words = value("tokenizer.ggml.tokens")
    assert words[value("tokenizer.ggml.eos_token_id")] == end
    assert f'PARAMETER stop "{end}"' in (result.path / "Modelfile").read_text()
    if PRE[name] == "default":
        scores = dict(zip(words, value("tokenizer.ggml.scores"), strict=True))
        merges = [
            "".join(pair) for pair in json.loads((tmp_path / "base" / "tokenizer.json").read_text())["model"]["merges"]
        ]
        assert [scores[word] for word in dict.fromkeys(merges)] == sorted(
            (scores[w] for w in set(merges)), reverse=True
        )
        assert (
            value("tokenizer.ggml.add_space_prefix") is (name == "mistral")
            and value("tokenizer.ggml.add_bos_token") is True
        )
    if name == "llama3":
        assert "rope_freqs.weight" in {tensor.name for tensor in reader.tensors}


def test_a_tokenizer_that_llama_cpp_splits_otherwise_is_refused(tmp_path, home, in_process):
    base = make_base("qwen2", tmp_path / "base")
    data = json.loads((base / "tokenizer.json").read_text())
    data["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\w+|\W+"
    (base / "tokenizer.json").write_text(json.dumps(data))
    with pytest.raises(InputError, match="another way to split text"):
        export(tuned_run("qwen2", base, home), "gguf")


@pytest.mark.parametrize(
    "template, bos, system",
    [(CHATML, "", "own"), (HEADERS, "<b>", "own"), (INST, "<b>", "none"), (TURNS, "<b>", "folded")],
)
def test_ollamas_template_prints_what_the_chat_template_prints(template, bos, system):
    render = renderer(template, {"bos_token": bos, "eos_token": "</s>"})
    pieces = observe(render, bos)
    confirm(pieces, render, bos, CONVERSATIONS)
    assert (pieces.system is not None, pieces.folded is not None) == (system == "own", system == "folded")
    if system != "none":
        assert pieces.render(CONVERSATIONS[3]) == render(CONVERSATIONS[3], True).removeprefix(bos)
    text = modelfile(pieces, ["<end>"], {"temperature": 0.7}, "model.gguf")
    assert text.startswith("FROM ./model.gguf\nTEMPLATE ") and text.endswith(
        'PARAMETER stop "<end>"\nPARAMETER temperature 0.7\n'
    )
    assert text.count("{{ .Content }}") == (3 if system == "own" else 2)


def test_a_template_with_a_default_system_message_keeps_it():
    template = (
        "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}{% endif %}"
        + CHATML
    )
    render = renderer(template, {})
    pieces = observe(render, "")
    confirm(pieces, render, "", CONVERSATIONS)
    assert "{{ if not .System }}<|im_start|>system\nYou are kind.<|im_end|>\n{{ end }}" in pieces.go()


def test_a_template_that_looks_at_the_words_is_refused():
    template = CHATML.replace("m['content']", "(m['content'] | upper if loop.index > 2 else m['content'])")
    render = renderer(template, {})
    with pytest.raises(InputError, match="more than surround|depend on each other"):
        confirm(observe(render, ""), render, "", CONVERSATIONS)
