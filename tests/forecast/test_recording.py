"""A recording of requests: replayed as it was, and prolonged exactly where layers repeat."""

from __future__ import annotations

import random

import pytest

from engine.forecast.allocator import CachingAllocator
from engine.forecast.recording import BEGIN, Irregular, Recording, extended, settled


def step(layers: int, odd: bool = False, shuffled: random.Random | None = None) -> Recording:
    """Two steps of a model: weights, saved tensors freed from the last layer on, gradients freed from the first on.
    ``shuffled``: what is freed at one time goes in any order."""
    recording = Recording()

    def request(size: int, operation: str):
        recording.operation = operation
        return recording.allocate(size)

    request(900_000, "embedding")
    for layer in range(layers):
        request(3_000_000 if odd and layer % 2 else 2_000_000, "weight")
        request(700, "weight")
    recording.warm_up(1_000_000 + layers * 2_000_000)
    gradients: list = []
    for _ in range(2):
        for gradient in reversed(gradients):
            recording.free(gradient)
        gradients = []
        recording.mark(BEGIN)
        saved = []
        for _ in range(layers):
            passing = request(50_000, "mm")
            saved.append((request(400_000, "mm"), request(400_000, "mm")))
            recording.free(passing)
        logits = request(30_000_000, "head")
        recording.mark("forward")
        recording.free(logits)
        for first, second in reversed(saved):
            wide = request(1_200_000, "bmm")
            recording.free(first)
            gradients.append(request(2_000_000, "mm"))
            recording.free(second)
            recording.free(wide)
        recording.mark("backward")
        roots = [request(2_000_000, "sqrt") for _ in range(layers)]
        if shuffled:
            shuffled.shuffle(roots)
        for root in roots:  # the oldest first
            recording.free(root)
        recording.mark("optimizer")
    return recording


@pytest.mark.parametrize("layers", [5, 9, 32])
def test_three_and_four_layers_foretell_every_request_of_many(layers):
    found = extended(step(3), step(4), layers - 4)
    assert found.events == settled(step(layers).events)
    peaks = found.replay(CachingAllocator())
    assert peaks == step(layers).replay(CachingAllocator())
    assert set(peaks.phases) == {"forward", "backward", "optimizer"}
    assert peaks.allocated == max(peaks.phases.values()) < peaks.reserved


@pytest.mark.parametrize("seed", range(5))
def test_what_is_freed_at_one_time_may_go_in_any_order(seed):
    """As autograd frees the casts of an adapter: by their addresses, which differ from process to process."""
    draw = random.Random(seed)
    found = extended(step(3, shuffled=draw), step(4, shuffled=draw), 5)
    assert found.events == settled(step(9).events)
    mixed = step(9, shuffled=draw)
    assert mixed.events != step(9).events and settled(mixed.events) == settled(step(9).events)
    assert found.replay(CachingAllocator()) == mixed.replay(CachingAllocator())


def test_a_replay_is_what_the_allocator_would_have_seen():
    recording, allocator = Recording(), CachingAllocator()
    for target in (recording, allocator):
        first, second = target.allocate(5_000_000), target.allocate(3_000_000)
        target.free(first)
        target.allocate(4_000_000)
        target.free(second)
        target.allocate(30_000_000)
    replayed = recording.replay(CachingAllocator())
    assert (replayed.allocated, replayed.reserved) == (allocator.peak_allocated, allocator.peak_reserved)


def test_layers_that_differ_are_refused():
    with pytest.raises(Irregular):
        extended(step(3, odd=True), step(4, odd=True), 10)
