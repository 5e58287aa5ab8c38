"""Log-probabilities and divergences of a batch from hidden states, a piece at a time: the logits are never whole in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.core as mx

from engine.backends.mlx.network import Network, Weights

FAR = 16.0
"""Difference of two logits beyond which the divergence is large anyhow."""
LOGITS_AT_ONCE = 2**23
"""Logits of one piece (32 MiB in fp32); the backward pass computes each piece again instead of keeping it. MLX sends up
to ten operations ahead of the one that runs and takes their memory when it sends them, so about ten such tensors live."""


def token_logprobs(network: Network, hidden: mx.array, targets: mx.array) -> mx.array:
    """Log-probability (M,) in nats of the targets (M,) after the hidden states (M, H). Differentiable."""

    def piece(_weights: Weights, hidden: mx.array, targets: mx.array) -> mx.array:
        logits = network.logits(hidden)
        at = mx.stop_gradient(targets)[:, None]
        return mx.take_along_axis(logits, at, axis=-1).squeeze(-1) - mx.logsumexp(logits, axis=-1)

    return _in_pieces(network, piece, hidden, targets)


def tempered_logprobs(network: Network, hidden: mx.array, targets: mx.array, temperature: float) -> mx.array:
    """(M, 2): the log-probability of each target with the logits divided by ``temperature``, differentiable, and the
    entropy of that distribution, without gradient; both in nats."""

    def piece(_weights: Weights, hidden: mx.array, targets: mx.array) -> mx.array:
        logits = network.logits(hidden) / temperature
        at = mx.stop_gradient(targets)[:, None]
        normaliser = mx.logsumexp(logits, axis=-1)
        chosen = mx.take_along_axis(logits, at, axis=-1).squeeze(-1) - normaliser
        logprobs = mx.stop_gradient(logits - normaliser[:, None])
        return mx.stack([chosen, -(mx.exp(logprobs) * logprobs).sum(-1)], axis=-1)

    return _in_pieces(network, piece, hidden, targets)


def token_divergence(network: Network, policy: mx.array, reference: mx.array) -> mx.array:
    """KL(policy || reference) (M,) in nats for two hidden states (M, H) under the model's own head. Differentiable in
    ``policy``; the head is taken to be the same on both sides, as in every adapter that leaves it alone."""

    def piece(_weights: Weights, policy: mx.array, reference: mx.array) -> mx.array:
        return divergence(network.logits(policy), network.logits(reference))

    return _in_pieces(network, piece, policy, mx.stop_gradient(reference))


def divergence(policy: mx.array, other: mx.array) -> mx.array:
    """KL(policy || other) (M,) in nats from logits (M, V).

    With d the difference of the logits less its mean under the policy, it is log(E exp(-d)): small divergences keep
    their digits, which the difference of two normalisers loses. Where d is too large for that, the plain form.
    """
    policy_logprobs = policy - mx.logsumexp(policy, axis=-1, keepdims=True)
    p = mx.exp(policy_logprobs)
    p = p / p.sum(-1, keepdims=True)  # exactly one: what is missing would be multiplied by the mean difference
    difference = policy - other
    difference = difference - (p * difference).sum(-1, keepdims=True)
    within = mx.clip(difference, -FAR, FAR)
    close = mx.log1p((p * mx.expm1(-within)).sum(-1))
    plain = (p * (policy_logprobs - (other - mx.logsumexp(other, axis=-1, keepdims=True)))).sum(-1)
    return mx.where(mx.abs(difference).max(-1) < FAR, close, plain)


def _in_pieces(network: Network, function: Callable[..., mx.array], first: mx.array, second: mx.array) -> mx.array:
    """The function over pieces of the rows, differentiable in ``first`` and in the head's trained weights, one piece
    after the other both ways: MLX would evaluate independent pieces side by side, and all their logits were in memory
    at once. The backward pass computes each piece again instead of keeping it.
    """
    head = network.head_weights()
    names = list(head)
    rows = max(1, LOGITS_AT_ONCE // network.vocabulary)
    starts = range(0, first.shape[0], rows)

    def piece(one: mx.array, other: mx.array, *weights: mx.array) -> mx.array:
        if names:
            network.use(dict(zip(names, weights, strict=True)))
        return function({}, one, other)

    @mx.custom_function
    def whole(first: mx.array, second: mx.array, *weights: mx.array) -> mx.array:
        found: list[mx.array] = []
        for start in starts:
            one = _after(first[start : start + rows], found[-1:])
            found.append(piece(one, second[start : start + rows], *weights))
        return found[0] if len(found) == 1 else mx.concatenate(found)

    @whole.vjp
    def gradients(primals: Any, cotangent: mx.array, _output: mx.array) -> Any:
        first, second, *weights = primals
        found: list[mx.array] = []
        total: list[mx.array] = []
        for start in starts:
            one = _after(first[start : start + rows], found[-1:])
            other = second[start : start + rows]
            _, back = mx.vjp(
                lambda one, *weights, other=other: piece(one, other, *weights),
                [one, *weights],
                [cotangent[start : start + rows]],
            )
            found.append(back[0])
            total = [old + new for old, new in zip(total, back[1:], strict=True)] if total else list(back[1:])
        return mx.concatenate(found), mx.zeros_like(second), *total

    result: mx.array = whole(first, second, *head.values())
    if head:
        network.use(head)  # tracing left its placeholders in the model
    return result


def _after(value: mx.array, before: list[mx.array]) -> mx.array:
    """The same value, computed only once ``before`` is."""
    return mx.depends([value], before)[0] if before else value
