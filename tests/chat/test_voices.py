"""Voices stream what the policy would generate, share their weights, and feel a dial at the very next token."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file

from engine.backends import open_backend
from engine.backends.interface import LoadSettings, Sampling
from engine.backends.pytorch.vectors import VectorSet
from engine.backends.tokens import encode_prompt
from engine.backends.voice import Words, log_softmax, pick
from engine.interventions.edits import plain_edit, save_edits
from engine.interventions.vectors import Vector, save_vector
from engine.models.lineage import Adapter, Base, Lineage
from recipes.errors import InputError
from recipes.resources import resolve_model

ASKED = [{"role": "user", "content": "Tell me about the harbor."}]
GREEDY = Sampling(temperature=0.0, max_new_tokens=12)
SETTINGS = LoadSettings("none", "fp32", "none", 8, 16.0, 0.0, "all-linear", False, 0, False)
WIDTH = 96


@pytest.fixture(scope="module", params=["pytorch", "mlx"])
def backend(request):
    if request.param == "mlx":
        pytest.importorskip("mlx_lm")
    return open_backend(request.param)


@pytest.fixture(scope="module")
def base():
    return Lineage(Base("lab-nano", str(resolve_model("lab-nano", Path("."))), None, {}))


def direction(seed):
    draw = np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)
    return draw / np.linalg.norm(draw)


def steered_logits(backend, policy, vector, ids, start):
    """(T, V) of one pass over ``ids`` under a vector that acts from position ``start`` on."""
    if backend.name == "mlx":
        import mlx.core as mx

        from engine.backends.mlx.vectors import VectorSet as MLXVectorSet

        policy.interventions.replace(MLXVectorSet(policy.network, [vector]))
        with policy.weights("policy") as network, policy.interventions.batch(mx.array([start])):
            return np.array(network.logits(network.hidden(mx.array([ids])))[0])
    policy.interventions.replace(VectorSet(policy.model, [vector]))
    with policy.weights("policy") as model, policy.interventions.batch(torch.tensor([start])):
        return model(torch.tensor([ids])).logits[0].numpy()


def entry(path, folder, strength):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"method": "steering", "path": path.name, "sha256": digest, "strength": strength}


@pytest.fixture
def steered(base, tmp_path):
    """The base with two vectors (dials at 0) and an edit (at 0), as files of a lineage."""
    entries = []
    for seed, name in enumerate(("one", "two")):
        path = tmp_path / f"{name}.safetensors"
        save_vector(Vector(name, 0, direction(seed), 60.0), path, {})
        entries.append(entry(path, tmp_path, 0.0))
    path = tmp_path / "edits.safetensors"
    save_edits([plain_edit("model.layers.0.mlp.down_proj", direction(3), 1.0)], path, {})
    return replace(base, vectors=entries, edits=[entry(path, tmp_path, 0.0)])


def ids(stream):
    return [token.id for token in stream]


def test_a_stream_is_what_the_policy_generates(backend, base, tmp_path):
    policy = backend.load(base, tmp_path, SETTINGS)
    wanted = policy.generate([ASKED], max_new_tokens=12, temperature=0.0, seed=0)[0]
    voice = backend.voices({"base": base}, tmp_path, SETTINGS)["base"]
    tokens = list(voice.stream(ASKED, GREEDY, temperatures=(2.0,)))
    assert tuple(token.id for token in tokens) == wanted.tokens
    assert "".join(token.text for token in tokens).strip() == wanted.text
    scored = policy.tempered_logprobs([ASKED], [wanted], [1.0, 2.0])[0]
    assert sum(token.logprob for token in tokens) == pytest.approx(scored[0], abs=1e-3)
    assert sum(token.tempered[0] for token in tokens) == pytest.approx(scored[1], abs=1e-3)


def test_a_dial_acts_from_the_very_next_token_exactly(backend, base, steered, tmp_path):
    """Turned after three tokens: those stay, and every later log-probability is that of one teacher-forced pass which
    steers from that position on."""
    voice = backend.voices({"tuned": steered}, tmp_path, SETTINGS)["tuned"]
    plain = ids(voice.stream(ASKED, GREEDY))
    stream = voice.stream(ASKED, GREEDY)
    tokens = [next(stream) for _ in range(3)]
    assert voice.dial("one", 1.5) == 1.5
    tokens += list(stream)
    assert [token.id for token in tokens][:3] == plain[:3] and [token.id for token in tokens] != plain

    opening, said = encode_prompt(voice.tokenizer, ASKED), [token.id for token in tokens]
    vector = Vector("one", 0, direction(0), 60.0, 1.5)
    policy = backend.load(base, tmp_path, SETTINGS)
    logits = steered_logits(backend, policy, vector, opening + said, len(opening) - 1 + 3)[len(opening) - 1 : -1]
    wanted = [float(log_softmax(row)[token]) for row, token in zip(logits, said, strict=True)]
    assert [token.logprob for token in tokens] == pytest.approx(wanted, abs=1e-3)
    assert logits.argmax(-1).tolist() == said


def test_the_edits_dial_acts_mid_reply_too_and_is_kept_in_its_range(backend, steered, tmp_path):
    voice = backend.voices({"tuned": steered}, tmp_path, SETTINGS)["tuned"]
    kinds = {dial.name: (dial.kind, dial.low, dial.high) for dial in voice.dials()}
    assert kinds == {"abliteration": ("edit", 0.0, 1.0), "one": ("vector", -2.0, 2.0), "two": ("vector", -2.0, 2.0)}
    plain = [token.logprob for token in voice.stream(ASKED, GREEDY)]
    stream = voice.stream(ASKED, GREEDY)
    first = next(stream).logprob
    assert voice.dial("abliteration", 7.0) == 1.0
    second = next(stream).logprob
    stream.close()
    assert first == plain[0] and second != plain[1]
    with pytest.raises(InputError, match="`on`.*accepted.*`one`.*Did you mean `one`"):
        voice.dial("on", 1.0)


def test_voices_share_weights_and_take_turns_without_touching_each_other(backend, base, steered, tmp_path):
    voices = backend.voices({"tuned": steered, "base": base}, tmp_path, SETTINGS)
    tuned, plain = voices["tuned"], voices["base"]
    assert tuned.shared is plain.shared
    tuned.dial("one", 1.0)
    tuned.dial("two", 0.5)
    alone = (
        [(t.id, t.logprob) for t in tuned.stream(ASKED, GREEDY)],
        [(t.id, t.logprob) for t in plain.stream(ASKED, GREEDY)],
    )
    left, right = tuned.stream(ASKED, GREEDY, against=plain), plain.stream(ASKED, GREEDY, against=plain)
    turns = list(zip(left, right, strict=False))
    assert [(one.id, one.logprob) for one, _ in turns] == alone[0][: len(turns)]
    assert [(other.id, other.logprob) for _, other in turns] == alone[1][: len(turns)]
    assert all(one.kl > 0 for one, _ in turns) and all(abs(other.kl) < 1e-6 for _, other in turns)


def test_vectors_compose_and_their_cosine_is_told(backend, steered, tmp_path):
    """Both dials together are the sum: another vector with that direction and length says the same."""
    voice = backend.voices({"tuned": steered}, tmp_path, SETTINGS)["tuned"]
    ((first, second, cosine),) = voice.cosines()
    assert (first, second) == ("one", "two")
    assert cosine == pytest.approx(float(direction(0) @ direction(1)), abs=1e-5)
    voice.dial("one", 1.0)
    voice.dial("two", -0.5)
    both = [token.logprob for token in voice.stream(ASKED, GREEDY)]
    total = 60.0 * direction(0) - 30.0 * direction(1)
    length = float(np.linalg.norm(total))
    save_vector(Vector("sum", 0, total / length, length), tmp_path / "sum.safetensors", {})
    summed = replace(steered, vectors=[entry(tmp_path / "sum.safetensors", tmp_path, 1.0)])
    other = backend.voices({"tuned": summed}, tmp_path, SETTINGS)["tuned"]
    assert both == pytest.approx([token.logprob for token in other.stream(ASKED, GREEDY)], abs=1e-3)


def test_another_models_vector_and_a_changed_file_are_refused(backend, base, tmp_path):
    save_vector(Vector("narrow", 0, np.ones(7, np.float32), 1.0), tmp_path / "narrow.safetensors", {})
    narrow = replace(base, vectors=[entry(tmp_path / "narrow.safetensors", tmp_path, 1.0)])
    with pytest.raises(InputError, match="width 7.*another model"):
        backend.voices({"tuned": narrow}, tmp_path, SETTINGS)
    (tmp_path / "narrow.safetensors").write_bytes(b"changed")
    with pytest.raises(InputError, match="a file that has changed"):
        backend.voices({"tuned": narrow}, tmp_path, SETTINGS)


def test_sampling_is_decided_by_its_seed_and_keeps_to_the_nucleus(backend, base, tmp_path):
    voice = backend.voices({"base": base}, tmp_path, SETTINGS)["base"]
    hot = Sampling(temperature=1.5, max_new_tokens=12, seed=3)
    assert ids(voice.stream(ASKED, hot)) == ids(voice.stream(ASKED, hot))
    assert ids(voice.stream(ASKED, hot)) != ids(voice.stream(ASKED, replace(hot, seed=4)))
    logits = np.log(np.array([0.5, 0.3, 0.15, 0.05], np.float32))
    draw = np.random.default_rng(0)
    drawn = [pick(logits, Sampling(temperature=1.0, top_p=0.7), draw) for _ in range(400)]
    assert set(drawn) == {0, 1} and drawn.count(0) / 400 == pytest.approx(0.625, abs=0.08)
    assert {pick(logits, Sampling(temperature=1.0, top_p=0.01), draw) for _ in range(20)} == {0}


def test_text_comes_in_whole_characters(backend, base, tmp_path):
    tokenizer = backend.voices({"base": base}, tmp_path, SETTINGS)["base"].tokenizer
    text = "the harbor: größer, 10 € 🙂 yes"
    words = Words(tokenizer)
    parts = [words.add(token) for token in tokenizer.encode(text, add_special_tokens=False)]
    assert "".join(parts) == text and "\ufffd" not in "".join(parts) and "" in parts


def test_adapters_of_the_same_base_share_it_and_each_speaks_for_itself(backend, base, tmp_path):
    policy = backend.load(base, tmp_path, replace(SETTINGS, training="lora"))
    backend.save_output(policy, tmp_path / "plain")
    with safe_open(tmp_path / "plain" / "adapter" / "adapter_model.safetensors", framework="np") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
    moved = {name: tensor + 0.05 * name.endswith("lora_B.weight") for name, tensor in tensors.items()}
    shutil.copytree(tmp_path / "plain", tmp_path / "moved")
    save_file(moved, tmp_path / "moved" / "adapter" / "adapter_model.safetensors", metadata={"format": "pt"})
    lineages = {name: replace(base, adapter=Adapter(f"{name}/adapter", "")) for name in ("plain", "moved")}
    voices = backend.voices({"base": base, **lineages}, tmp_path, SETTINGS)
    assert list(voices) == ["base", "plain", "moved"] and len({id(voice.shared) for voice in voices.values()}) == 1
    said = {name: [t.logprob for t in voice.stream(ASKED, GREEDY)] for name, voice in voices.items()}
    assert said["plain"] == pytest.approx(said["base"], abs=1e-5)
    assert said["moved"][0] != pytest.approx(said["base"][0], abs=1e-2)
    alone = backend.load(lineages["moved"], tmp_path, SETTINGS)
    wanted = alone.generate([ASKED], max_new_tokens=12, temperature=0.0, seed=0)[0]
    assert tuple(ids(voices["moved"].stream(ASKED, GREEDY))) == wanted.tokens


def test_mlx_talks_where_there_is_no_torch(base, steered, tmp_path):
    """A process in which torch cannot be imported loads the voices, turns a dial, and takes MLX for ``auto``."""
    pytest.importorskip("mlx_lm")
    script = """
import sys, json
from pathlib import Path
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "peft", "trl"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoTorch())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.partition(".")[0] == "torch" else real(name, package)
from engine.backends import installed, open_backend
from engine.backends.interface import LoadSettings, Sampling
from engine.models.lineage import Base, Lineage
assert installed("auto") == "mlx", installed("auto")
data = json.loads(sys.argv[1])
lineage = Lineage(Base(**data["base"]), None, data["edits"], data["vectors"], None)
settings = LoadSettings("none", "fp32", "none", 8, 16.0, 0.0, "all-linear", False, 0, False)
voice = open_backend("mlx").voices({"tuned": lineage}, Path(sys.argv[2]), settings)["tuned"]
asked = [{"role": "user", "content": "Tell me about the harbor."}]
def say():
    return [token.logprob for token in voice.stream(asked, Sampling(temperature=0.0, max_new_tokens=4))]
before = say()
voice.dial("one", 1.0)
assert say() != before and "torch" not in sys.modules
print("spoke")
"""
    data = json.dumps(asdict(steered))
    done = subprocess.run(
        [sys.executable, "-P", "-c", script, data, str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.stdout.strip().endswith("spoke"), done.stderr[-2000:]
