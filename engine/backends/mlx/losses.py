"""The objectives as pure functions of log-probabilities; each names its paper and its PyTorch counterpart."""

from __future__ import annotations

import mlx.core as mx


def sft_loss(logprobs: mx.array, counted: mx.array, items: mx.array) -> mx.array:
    """Negative log-likelihood of the counted tokens over ``items``, the tokens of the whole step. (M,), (M,), () -> ().

    As TRL's SFTTrainer: with accumulation, micro-batches add up to the mean over all tokens of the step.
    """
    return -(logprobs * counted).sum() / items


def sums(logprobs: mx.array, counted: mx.array, owner: mx.array, rows: int) -> mx.array:
    """Per-token log-probabilities (M,) summed over the row that owns each -> (rows,)."""
    return mx.zeros((rows,)).at[owner].add(logprobs * counted)


def dpo_loss(policy: mx.array, reference: mx.array, beta: float) -> tuple[mx.array, mx.array]:
    """``(loss, rewards (2B,))`` from summed log-probabilities (2B,), chosen first (Rafailov et al. 2023, eq. 7).

    The reward of a completion is beta times its log-ratio to the reference; the loss is -log sigmoid of the margin.
    """
    rewards = beta * (policy - reference)
    chosen, rejected = halves(rewards)
    return -log_sigmoid(chosen - rejected).mean(), rewards


def chosen_likelihood_loss(logprobs: mx.array, counted: mx.array, owner: mx.array, pairs: int) -> mx.array:
    """Mean negative log-likelihood per token of the chosen completions (rows below ``pairs``): TRL's "sft" term."""
    chosen = counted * (owner < pairs)
    return -(logprobs * chosen).sum() / mx.maximum(chosen.sum(), 1)


def orpo_loss(logprobs: mx.array, lengths: mx.array, weight: float) -> tuple[mx.array, mx.array]:
    """``(loss, log odds ratio (B,))`` from summed log-probabilities (2B,), chosen first, and token counts (2B,).

    Negative log-likelihood of the chosen per token, plus ``weight`` times -log sigmoid of the log odds ratio of the
    length-averaged likelihoods (Hong et al. 2024, eqs. 3 to 7).
    """
    chosen, rejected = halves(logprobs / mx.maximum(lengths, 1))
    log_odds = (chosen - rejected) - (_log1mexp(chosen) - _log1mexp(rejected))
    likelihood = -halves(logprobs)[0].sum() / halves(lengths)[0].sum()
    return likelihood - weight * log_sigmoid(log_odds).mean(), mx.stop_gradient(log_odds)


def group_loss(
    logprobs: mx.array, old: mx.array, advantages: mx.array, shares: mx.array, clip: float
) -> tuple[mx.array, mx.array]:
    """``(loss, whether the ratio was clipped (M,))`` of sampled tokens, all arguments (M,) (Shao et al. 2024, eq. 3).

    The clipped surrogate of PPO with the group's advantages, as TRL's GRPOTrainer; ``shares`` is each token's weight
    in the step's loss, which is all that DAPO, GRPO, BNPO and Dr. GRPO differ in (``token_shares``).
    """
    ratio = mx.exp(logprobs - old)
    within = mx.clip(ratio, 1 - clip, 1 + clip)
    loss = -(mx.minimum(ratio * advantages, within * advantages) * shares).sum()
    clipped = ((ratio < 1 - clip) & (advantages < 0)) | ((ratio > 1 + clip) & (advantages > 0))
    return loss, mx.stop_gradient(clipped.astype(mx.float32))


def sampled_kl(logprobs: mx.array, old: mx.array, reference: mx.array) -> mx.array:
    """KL(policy || reference) (M,) as the objective has it: Schulman's k3 times the ratio to what sampled the tokens.

    The ratio makes its gradient that of the divergence (DeepSeek-V3.2; TRL's ``use_bias_correction_kl``), also where
    its value is 1.
    """
    difference = reference - logprobs
    return (mx.exp(difference) - difference - 1) * mx.exp(logprobs - old)


def mean_over(values: mx.array, counted: mx.array) -> mx.array:
    """Mean of the counted values; 0 without any."""
    return (values * counted).sum() / mx.maximum(counted.sum(), 1)


def halves(values: mx.array) -> tuple[mx.array, mx.array]:
    """The first and the second half of the rows. Not ``mx.split``: two of one array in a compiled function are merged
    wrongly (mlx 0.32.4: IndexError `_Map_base::at`)."""
    middle = values.shape[0] // 2
    return values[:middle], values[middle:]


def log_sigmoid(value: mx.array) -> mx.array:
    """log(sigmoid(x)), stable at both ends."""
    return -mx.logaddexp(mx.zeros_like(value), -value)


def _log1mexp(value: mx.array) -> mx.array:
    """log(1 - exp(value)) for value < 0, stable at both ends (Mächler 2012)."""
    value = mx.minimum(value, -1e-7)
    near = value > -0.6931471805599453
    # both branches are differentiated, so each sees only values where its gradient is finite
    expm1 = mx.log(-mx.expm1(mx.where(near, value, -0.5)))
    log1p = mx.log1p(-mx.exp(mx.where(near, -1.0, value)))
    return mx.where(near, expm1, log1p)
