"""Vectors act from the completion on, compose, and are read off contrasts as they say."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.backends.pytorch.directions import captured_layers, completion_means
from engine.backends.pytorch.vectors import VectorSet
from engine.interventions.directions import contrast_of
from engine.interventions.vectors import Condition, Vector, cosine, load_vector, save_vector
from recipes.errors import InputError

PROMPTS = [
    [{"role": "user", "content": "Tell me about the harbor."}],
    [{"role": "user", "content": "How do I clean the old bucket?"}],
]
LAYER = 0


@pytest.fixture
def frozen(backend, lineage, settings, tmp_path):
    return backend.load(lineage, tmp_path, settings(training="none"))


def vector(policy, seed=0, coefficient=40.0, **changes):
    draw = torch.randn(policy.model.config.hidden_size, generator=torch.Generator().manual_seed(seed))
    return Vector(f"v{seed}", LAYER, draw / draw.norm(), coefficient, **changes)


def residual(policy, prompt, completion, which):
    """The stream after the steered layer (T, H) in teacher forcing, with the position of the first steered token."""
    from engine.backends.tokens import encode_prompt

    opening = encode_prompt(policy.tokenizer, prompt)
    kept = {}
    # Registered after the steering's hooks, so it sees what they left.
    with policy.weights(which) as model, captured_layers(model, lambda layer, out: kept.setdefault(layer, out[0])):
        policy._logits(model, [(opening, list(completion.tokens))])
    return kept[LAYER], len(opening) - 1


@pytest.mark.parametrize("window", [None, 2])
def test_a_vector_acts_from_the_completion_on_and_nowhere_else(window, frozen):
    completion = frozen.generate(PROMPTS[:1], max_new_tokens=6, temperature=0.0, seed=0)[0]
    steering = vector(frozen, window=window)
    frozen.interventions.replace(VectorSet(frozen.model, [steering]))
    steered, first = residual(frozen, PROMPTS[0], completion, "policy")
    plain, _ = residual(frozen, PROMPTS[0], completion, "start")
    assert torch.equal(steered[:first], plain[:first]), "the prompt's part of the cache must stay as it is"
    added = steered[first:] - plain[first:]
    wanted = (steering.coefficient * steering.direction).expand_as(added)
    acts = len(added) if window is None else window
    assert torch.allclose(added[:acts], wanted[:acts], atol=1e-3)
    assert torch.equal(steered[first + acts :], plain[first + acts :])


@pytest.mark.parametrize("window", [None, 1])
def test_generation_steers_as_teacher_forcing_does(window, frozen):
    """Greedy completions of prompts of unlike length (so with padding) are the steered argmax at every position."""
    alone = frozen.generate(PROMPTS, max_new_tokens=8, temperature=0.0, seed=0)
    frozen.interventions.replace(VectorSet(frozen.model, [vector(frozen, coefficient=150.0, window=window)]))
    steered = frozen.generate(PROMPTS, max_new_tokens=8, temperature=0.0, seed=0)
    assert [one.tokens for one in steered] != [one.tokens for one in alone]
    from engine.backends.tokens import encode_prompt

    rows = [
        (encode_prompt(frozen.tokenizer, prompt), list(one.tokens))
        for prompt, one in zip(PROMPTS, steered, strict=True)
    ]
    with frozen.weights("policy") as model:
        logits, targets, counted = frozen._logits(model, rows)
    assert torch.equal(logits.argmax(-1)[counted], targets[counted])
    assert frozen.generate(PROMPTS, max_new_tokens=8, temperature=0.0, seed=0, of="start") == alone


def test_vectors_compose_by_addition_and_a_dial_acts_at_once(frozen):
    completion = frozen.generate(PROMPTS[:1], max_new_tokens=4, temperature=0.0, seed=0)[0]
    first, second = vector(frozen, 1), vector(frozen, 2, strength=0.5)
    frozen.interventions.replace(VectorSet(frozen.model, [first, second]))
    both, start = residual(frozen, PROMPTS[0], completion, "policy")
    plain, _ = residual(frozen, PROMPTS[0], completion, "start")
    wanted = first.coefficient * first.direction + second.coefficient * second.direction
    assert torch.allclose(both[start:] - plain[start:], wanted.expand_as(both[start:]), atol=1e-3)
    first.strength = second.strength = 0.0
    off, _ = residual(frozen, PROMPTS[0], completion, "policy")
    assert torch.equal(off, plain)
    assert cosine(first.direction, first.direction) == pytest.approx(1)
    assert cosine(first.direction, -first.direction) == pytest.approx(-1)
    assert abs(cosine(first.direction, second.direction)) < 0.5


def test_a_condition_decides_for_each_prompt_and_holds_for_its_completion(frozen):
    """The threshold lies between the two prompts' own projections: one row is steered, the other byte-identical."""
    from engine.backends.pytorch.directions import prompt_means

    means = torch.stack([torch.from_numpy(prompt_means(frozen, [prompt], 1)[LAYER, 0]) for prompt in PROMPTS])
    along = (means[0] - means[1]) / (means[0] - means[1]).norm()
    condition = Condition(LAYER, along.float(), float(along @ means.mean(0)))
    alone = frozen.generate(PROMPTS, max_new_tokens=8, temperature=0.0, seed=0)
    always = VectorSet(frozen.model, [vector(frozen, coefficient=150.0)])
    frozen.interventions.replace(always)
    steered = frozen.generate(PROMPTS, max_new_tokens=8, temperature=0.0, seed=0)
    conditional = VectorSet(frozen.model, [vector(frozen, coefficient=150.0, condition=condition)])
    frozen.interventions.replace(conditional)
    chosen = frozen.generate(PROMPTS, max_new_tokens=8, temperature=0.0, seed=0)
    assert sorted(torch.cat(conditional.vectors[0].fired).tolist()) == [False, True]
    assert chosen[0] == steered[0] != alone[0] and chosen[1] == alone[1] != steered[1]
    measured = frozen.divergence(PROMPTS, chosen, to="start")
    assert measured[0].total > 0 and measured[1].total == 0


def test_the_lineage_applies_its_vectors_and_refuses_another_models(frozen, backend, lineage, settings, tmp_path):
    condition = Condition(0, torch.ones(frozen.model.config.hidden_size), 0.25)
    saved = vector(frozen, window=3, condition=condition)
    save_vector(saved, tmp_path / "v.safetensors", {"base": "lab-nano"})
    loaded = load_vector(tmp_path / "v.safetensors", strength=0.5)
    assert (loaded.layer, loaded.window, loaded.calibrated) == (saved.layer, 3, saved.calibrated)
    assert np.array_equal(loaded.direction, saved.direction) and loaded.condition.threshold == 0.25
    save_vector(vector(frozen), tmp_path / "v.safetensors", {"base": "lab-nano"})

    def entry(name):
        digest = hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
        return {"path": name, "sha256": digest, "strength": 0.5}

    again = backend.load(replace(lineage, vectors=[entry("v.safetensors")]), tmp_path, settings(training="none"))
    frozen.interventions.replace(VectorSet(frozen.model, [vector(frozen, strength=0.5)]))
    wanted = frozen.generate(PROMPTS, max_new_tokens=6, temperature=0.0, seed=0)
    assert again.generate(PROMPTS, max_new_tokens=6, temperature=0.0, seed=0) == wanted
    assert again.generate(PROMPTS, max_new_tokens=6, temperature=0.0, seed=0, of="start") == wanted
    narrow = Vector("narrow", 0, torch.ones(7), 1.0)
    save_vector(narrow, tmp_path / "narrow.safetensors", {})
    with pytest.raises(InputError, match="width 7.*another model"):
        backend.load(replace(lineage, vectors=[entry("narrow.safetensors")]), tmp_path, settings(training="none"))


def test_contrasts_are_means_over_the_predicting_positions(frozen):
    """Against one unpadded forward for each row; the principal component of one pair is its difference."""
    from engine.backends.tokens import encode_completion

    positive = [(PROMPTS[0], "Oh, I love the harbor!"), (PROMPTS[1], "Come and see it with me soon.")]
    negative = [(PROMPTS[0], "The harbor serves a public purpose."), (PROMPTS[1], "No further comment is required.")]
    found = contrast_of(completion_means(frozen, positive), completion_means(frozen, negative))

    def brute(prompt, text):
        opening, rest = encode_completion(frozen.tokenizer, prompt, text)
        with frozen.weights("policy") as model:
            states = model.model(torch.tensor([opening + rest]), output_hidden_states=True).hidden_states
        return states[1][0, len(opening) - 1 : -1].double().mean(0)  # after the first layer

    differences = [brute(*one) - brute(*other) for one, other in zip(positive, negative, strict=True)]
    mean = torch.stack(differences).mean(0)
    assert np.allclose(found.mean[0], (mean / mean.norm()).numpy(), atol=1e-4)
    alone = contrast_of(completion_means(frozen, positive[:1]), completion_means(frozen, negative[:1]))
    assert np.allclose(alone.pca[0], (differences[0] / differences[0].norm()).numpy(), atol=1e-4)
    assert found.mean.dtype == np.float64 and (found.norms > 0).all()
