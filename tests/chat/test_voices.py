"""Voices stream what the policy would generate, share their weights, and feel a dial at the very next token."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.backends import open_backend
from engine.backends.interface import LoadSettings, Sampling
from engine.backends.pytorch.vectors import VectorSet
from engine.backends.tokens import encode_prompt
from engine.backends.voice import Words, pick
from engine.interventions.edits import plain_edit, save_edits
from engine.interventions.vectors import Vector, save_vector
from engine.models.lineage import Base, Lineage
from recipes.errors import InputError
from recipes.resources import resolve_model

ASKED = [{"role": "user", "content": "Tell me about the harbor."}]
GREEDY = Sampling(temperature=0.0, max_new_tokens=12)
SETTINGS = LoadSettings("none", "fp32", "none", 8, 16.0, 0.0, "all-linear", False, 0, False)
WIDTH = 128


@pytest.fixture(scope="module")
def backend():
    return open_backend("pytorch")


@pytest.fixture(scope="module")
def base():
    return Lineage(Base("lab-nano", str(resolve_model("lab-nano", Path("."))), None, {}))


def direction(seed, width):
    draw = torch.randn(width, generator=torch.Generator().manual_seed(seed))
    return draw / draw.norm()


def entry(path, folder, strength):
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {"method": "steering", "path": path.name, "sha256": digest, "strength": strength}


@pytest.fixture
def steered(backend, base, tmp_path):
    """The base with two vectors (dials at 0) and an edit (at 0), as files of a lineage."""
    width = backend.load(base, tmp_path, SETTINGS).model.config.hidden_size
    entries = []
    for seed, name in enumerate(("one", "two")):
        path = tmp_path / f"{name}.safetensors"
        save_vector(Vector(name, 0, direction(seed, width), 60.0), path, {})
        entries.append(entry(path, tmp_path, 0.0))
    path = tmp_path / "edits.safetensors"
    save_edits([plain_edit("model.layers.0.mlp.down_proj", direction(3, width), 1.0)], path, {})
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

    policy = backend.load(base, tmp_path, SETTINGS)
    width = policy.model.config.hidden_size
    policy.interventions.replace(VectorSet(policy.model, [Vector("one", 0, direction(0, width), 60.0, 1.5)]))
    opening, said = encode_prompt(policy.tokenizer, ASKED), [token.id for token in tokens]
    with policy.weights("policy") as model, policy.interventions.batch(torch.tensor([len(opening) - 1 + 3])):
        logits = model(torch.tensor([opening + said])).logits[0, len(opening) - 1 : -1]
    wanted = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor(said).unsqueeze(1)).squeeze(1)
    assert torch.allclose(torch.tensor([token.logprob for token in tokens]), wanted, atol=1e-3)
    assert (logits.argmax(-1) == torch.tensor(said)).all()


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
    width = voice.shared.model.config.hidden_size
    assert (first, second) == ("one", "two")
    assert cosine == pytest.approx(float(direction(0, width) @ direction(1, width)), abs=1e-5)
    voice.dial("one", 1.0)
    voice.dial("two", -0.5)
    both = [token.logprob for token in voice.stream(ASKED, GREEDY)]
    total = 60.0 * direction(0, width) - 30.0 * direction(1, width)
    save_vector(Vector("sum", 0, total / total.norm(), float(total.norm())), tmp_path / "sum.safetensors", {})
    summed = replace(steered, vectors=[entry(tmp_path / "sum.safetensors", tmp_path, 1.0)])
    other = backend.voices({"tuned": summed}, tmp_path, SETTINGS)["tuned"]
    assert both == pytest.approx([token.logprob for token in other.stream(ASKED, GREEDY)], abs=1e-3)


def test_another_models_vector_and_a_changed_file_are_refused(backend, base, tmp_path):
    save_vector(Vector("narrow", 0, torch.ones(7), 1.0), tmp_path / "narrow.safetensors", {})
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
    tokenizer = backend.voices({"base": base}, tmp_path, SETTINGS)["base"].shared.tokenizer
    text = "the harbor: größer, 10 € 🙂 yes"
    words = Words(tokenizer)
    parts = [words.add(token) for token in tokenizer.encode(text, add_special_tokens=False)]
    assert "".join(parts) == text and "\ufffd" not in "".join(parts) and "" in parts
