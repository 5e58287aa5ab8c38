"""What the gauges of a training say when something goes wrong, in words, with what to do about it.

Pure functions of the last values: a training stage raises them as alerts, and the screen shows those that hold now.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

STEPS = 20
"""Steps in a row that a sign has to last; readings, for a gauge that is not read at every step."""
KEPT = 120
"""Values of each gauge that the signs are read from."""
CLIPPED = 0.95
SPIKE = 3.0
"""A loss this many times the median before it, and beyond all of its noise, is a spike."""
NOISE = 8.0
"""Median absolute deviations."""
GAUGES = ("loss", "kl", "reward", "reward_std", "silent_groups", "clipped")


@dataclass(frozen=True)
class Sign:
    """``text`` says what is seen, ``mend`` what would help; ``code`` is the alert's."""

    code: str
    text: str
    mend: str
    level: str = "warning"

    def __str__(self) -> str:
        return f"{self.text}: {self.mend}"


MEND_KL = {
    "sft": "lower `learning_rate`, fewer steps, or a larger share of `replay`",
    "dpo": "raise `beta`, lower `learning_rate`, or stop earlier",
    "orpo": "lower `learning_rate` or stop earlier",
    "cpo": "its controller raises the penalty and steps back by itself; if it stays, lower `learning_rate`",
    "grpo": "raise `kl_weight` or lower `learning_rate`",
    "rlvr": "raise `kl_weight` or lower `learning_rate`",
}
ON_POLICY = ("grpo", "rlvr")
"""Their batches are the model's own completions, as the KL gate's are."""


def warning_signs(method: str, values: Mapping[str, Sequence[float]], kl_limit: float | None) -> list[Sign]:
    """What holds at this moment. ``values``: gauge -> its last values, oldest first; ``kl_limit``: the KL gate's."""
    found = [
        _loss(values.get("loss", ()), grouped="silent_groups" in values),
        _kl(method, values.get("kl", ()), kl_limit),
        _equal(values),
        _silent(values),
        _clipped(values.get("clipped", ())),
    ]
    signs = [sign for sign in found if sign is not None]
    if any(sign.code == "equal-rewards" for sign in signs):  # the stronger of the two says it all
        signs = [sign for sign in signs if sign.code != "silent-groups"]
    return signs


def _loss(losses: Sequence[float], grouped: bool) -> Sign | None:
    if losses and not math.isfinite(losses[-1]):
        mend = "lower `learning_rate`, look at the rows of this step, or train in another `dtype`; pause and resume go back to a checkpoint"
        return Sign("loss-not-finite", f"the loss is {losses[-1]}", mend)
    if grouped or len(losses) < 2 * STEPS:  # the loss of a policy gradient jumps around zero by nature
        return None
    last = [value for value in losses[-3:] if math.isfinite(value)]
    before = [value for value in losses[:-3] if math.isfinite(value)]
    if not last or len(before) < STEPS:
        return None
    middle = statistics.median(before)
    noise = statistics.median(abs(value - middle) for value in before)
    highest = max(last)
    if middle <= 0 or highest < SPIKE * middle or highest < middle + NOISE * noise:
        return None
    text = f"the loss jumped to {highest:.3g} from about {middle:.3g}"
    return Sign(
        "loss-spike", text, "if it does not come back, lower `learning_rate` or `max_grad_norm`, and look for odd rows"
    )


def _kl(method: str, divergences: Sequence[float], limit: float | None) -> Sign | None:
    last = [value for value in divergences[-5:] if math.isfinite(value)]
    if limit is None or len(last) < 5 or min(last) <= limit:
        return None
    text = f"KL est {math.fsum(last) / len(last):.3g} is over its target of {limit:g}"
    mend = MEND_KL.get(method, "lower `learning_rate` or stop earlier")
    if method in ON_POLICY:
        return Sign("kl-over-target", text, mend)
    # Completions that somebody else wrote lie where the model itself would not go: often the gate still passes.
    own = "the gate decides on the model's own completions; should it fail"
    return Sign("kl-over-target", f"{text} on the training batch", f"{own}: {mend}", "info")


def _equal(values: Mapping[str, Sequence[float]]) -> Sign | None:
    """Every completion of every prompt of the last steps got one and the same reward."""
    spread, rewards = values.get("reward_std", ())[-STEPS:], values.get("reward", ())[-STEPS:]
    if len(spread) < STEPS or max(spread) > 1e-6 or max(rewards) - min(rewards) > 1e-6:
        return None
    text = f"for {STEPS} steps with new completions all got the same reward ({rewards[-1]:.3g}), so nothing is learned"
    if rewards[-1] > 0.5:
        return Sign(
            "equal-rewards",
            text,
            "the task is solved (stop here), or the verifier accepts everything: look at the samples",
        )
    return Sign(
        "equal-rewards",
        text,
        "look at the samples: does the verifier read their format? Otherwise easier prompts, or SFT first",
    )


def _silent(values: Mapping[str, Sequence[float]]) -> Sign | None:
    shares = values.get("silent_groups", ())[-STEPS:]
    if len(shares) < STEPS or min(shares) < 1.0:
        return None
    rewards = [value for value in values.get("reward", ())[-STEPS:] if math.isfinite(value)]
    why = "they are all right" if rewards and math.fsum(rewards) / len(rewards) > 0.5 else "none is right"
    text = (
        f"for {STEPS} steps all completions of every group got the same reward ({why}): the reward cannot move, "
        "nothing is learned"
    )
    return Sign(
        "silent-groups", text, "take other prompts, a larger `group_size` or a verifier that gives partial credit"
    )


def _clipped(shares: Sequence[float]) -> Sign | None:
    last = shares[-STEPS:]
    if len(last) < STEPS or min(last) < CLIPPED:
        return None
    text = f"for {STEPS} steps nearly all completions were cut off at `max_new_tokens` ({last[-1]:.0%} now)"
    return Sign(
        "clipped", text, "raise `max_new_tokens`, or teach the model to end first (SFT, with its end token in the data)"
    )
