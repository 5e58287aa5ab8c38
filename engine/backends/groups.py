"""What the group methods (GRPO, RLVR) share on every backend: prompts in their order, advantages, what is told of them.

Advantages are TRL's (``scale_rewards="group"``) and, per token, DeepSeekMath's process supervision (Shao et al. 2024,
section 4.1.3).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.backends.data_order import epoch_order
from engine.backends.tokens import encode_prompt
from engine.verify.interface import StepVerifier, Verdict
from recipes.errors import InputError, Problem

KL_EVERY = 10
"""Steps between two readings of the KL gauge: each costs a reference forward on a few completions."""
KL_ROWS = 8
KL_TOKENS = 512
SHOWN_EVERY = 10
"""Steps between two groups whose completions are shown with their rewards."""
SHOWN = 3
STD_FLOOR = 1e-4
"""Added to a group's deviation before dividing by it, as TRL does."""

Steps = list[tuple[int, float]]
"""Steps of one completion: (index of the step's last token, reward). What is true but idle is rewarded with 0."""


def questions_that_fit(tokenizer: Any, questions: Sequence[Any], stage: Any) -> list[Any]:
    """Those whose prompt leaves room for a whole completion within ``max_length``. Raises InputError if none does."""
    room = stage.max_length - stage.max_new_tokens
    kept = [row for row in questions if len(encode_prompt(tokenizer, list(row.prompt))) <= room]
    if len(kept) < len(questions):
        print(f"{len(questions) - len(kept)} of {len(questions)} prompts have more than {room} tokens and are left out")
    if not kept:
        found = f"{len(questions)} prompts, none within {room} tokens (max_length less max_new_tokens)"
        accepted = "prompts that fit; raise max_length or lower max_new_tokens"
        raise InputError([Problem(str(stage.data.source), None, "max_length", found, accepted)])
    return kept


# ---- which prompts are answered when -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Turn:
    """One micro-batch: the ``part``-th of the generation with that number, and the rows whose prompts it answers."""

    generation: int
    part: int
    prompts: tuple[int, ...]


def turns_of_step(step: int, rows: int, stage: Any, seed: int) -> list[Turn]:
    """The micro-batches of the step after ``step``: TRL's RepeatSampler, cut into steps as transformers' Trainer does.

    An epoch is as many whole generations as the rows give; its last step may have fewer micro-batches.
    """
    parts = stage.steps_per_generation or stage.accumulation
    prompts = stage.batch_size * parts // stage.group_size
    generations = rows // prompts
    if not generations:
        found = f"{rows} prompts, and a generation answers {prompts} different ones"
        accepted = f"at least {prompts} prompts, a larger `group_size`, or a smaller `batch_size`"
        raise InputError([Problem(str(stage.data.source), None, None, found, accepted)])
    uses = parts * stage.num_iterations
    per_epoch = generations * uses
    epoch, place = divmod(step, -(-per_epoch // stage.accumulation))
    order = epoch_order(rows, seed, epoch)
    first = place * stage.accumulation
    turns = []
    for micro in range(first, min(first + stage.accumulation, per_epoch)):
        chunk = micro // uses
        asked = tuple(order[chunk * prompts : (chunk + 1) * prompts])
        turns.append(Turn(epoch * generations + chunk, micro % parts, asked))
    return turns


# ---- advantages --------------------------------------------------------------------------------------------------


def group_advantages(rewards: Sequence[float], group_size: int) -> np.ndarray:
    """(N,) rewards less the mean of their group, over its deviation (with n - 1). Silent groups get 0."""
    groups = np.asarray(rewards, np.float64).reshape(-1, group_size)
    centred = groups - groups.mean(1, keepdims=True)
    return (centred / (groups.std(1, ddof=1, keepdims=True) + STD_FLOOR)).reshape(-1)


def silent_groups(rewards: Sequence[float], group_size: int) -> float:
    """Share of the groups whose rewards are all alike: they teach nothing."""
    groups = np.asarray(rewards, np.float64).reshape(-1, group_size)
    return float((groups.std(1) < 1e-8).mean())


def advantage_variance(rewards: Sequence[float], group_size: int) -> float:
    """Variance of the rewards (N,) normalised in each group by its own mean and deviation; silent groups count as 0."""
    groups = np.asarray(rewards, np.float64).reshape(-1, group_size)
    centred = groups - groups.mean(1, keepdims=True)
    deviation = np.sqrt(np.square(centred).mean(1, keepdims=True))
    normalised = np.where(deviation > 1e-8, centred / np.maximum(deviation, 1e-8), 0.0)
    return float(np.square(normalised).mean())


def process_advantages(steps: Sequence[Steps], group_size: int, width: int) -> np.ndarray:
    """(N, width) advantages of N completions in groups: at each token the normalised rewards of the steps that end at
    it or later, summed. A group whose step rewards are all alike teaches nothing and gives 0."""
    advantages = np.zeros((len(steps), width))
    for start in range(0, len(steps), group_size):
        group = steps[start : start + group_size]
        rewards = np.array([reward for one in group for _, reward in one])
        if len(rewards) < 2 or rewards.std() < 1e-8:
            continue
        mean, deviation = rewards.mean(), rewards.std()
        for place, one in enumerate(group):
            for end, reward in one:
                advantages[start + place, : end + 1] += (reward - mean) / deviation
    return advantages


def rewarded_steps(
    verifier: StepVerifier,
    tokenizer: Any,
    prompts: list[str],
    texts: list[str],
    answers: list[str],
    ids: Sequence[Sequence[int]],
) -> list[Steps]:
    """What the verifier says of every completion's steps, each at the token where it ends."""
    found = verifier.steps(prompts, texts, answers)
    rewarded = []
    for steps, text, tokens in zip(found, texts, ids, strict=True):
        ends = token_ends(tokenizer, list(tokens), text)
        rewarded.append([(token_at(ends, step.end), float(step.accepted and step.required)) for step in steps])
    return rewarded


def token_ends(tokenizer: Any, tokens: list[int], text: str) -> list[int]:
    """Number of characters of ``text`` that the tokens up to and including each one spell."""
    pieces = tokenizer.batch_decode([[token] for token in tokens], skip_special_tokens=True)
    if "".join(pieces) != text:  # a character over several tokens, or a decoder that joins words: decode every prefix
        return [len(tokenizer.decode(tokens[: n + 1], skip_special_tokens=True)) for n in range(len(tokens))]
    ends, total = [], 0
    for piece in pieces:
        total += len(piece)
        ends.append(total)
    return ends


def token_at(ends: list[int], character: int) -> int:
    """Index of the token that spells the last of the first ``character`` characters."""
    return next((place for place, end in enumerate(ends) if end >= character), len(ends) - 1)


# ---- what is told ------------------------------------------------------------------------------------------------


def told_of(verdict: Verdict) -> dict[str, float]:
    return {"reward": verdict.reward, **verdict.components}


def component_means(verdicts: Sequence[Verdict]) -> Iterator[tuple[str, float]]:
    """The mean of every part that a reward is made of, as ``reward_NAME``."""
    for name in sorted({name for verdict in verdicts for name in verdict.components}):
        values = [verdict.components[name] for verdict in verdicts if name in verdict.components]
        yield f"reward_{name}", sum(values) / len(values)


def step_gauges(steps: Sequence[Steps]) -> dict[str, float]:
    """``step_reward``: mean over all steps; ``steps``: how many a completion has."""
    rewards = [reward for one in steps for _, reward in one]
    gauges = {"steps": len(rewards) / max(1, len(steps))}
    return gauges | ({"step_reward": sum(rewards) / len(rewards)} if rewards else {})
