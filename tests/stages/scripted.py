"""A stage of a real run (recipe, prepared rows, card's gates) whose policy says what the test has written down, so that every
figure can be worked out by hand."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.backends.interface import Completion, Conversation, Divergence, Score
from engine.runs.channel import Channel
from engine.runs.create import create_run
from engine.runs.events import Event
from engine.stages.context import StageContext
from recipes.load import load_recipe

HEAD = "name: scripted\nmodel: lab-nano\nthreads: 1\nstages:\n"
CUT = "…"
"""A text that ends in this was cut at the token limit, just there."""
Says = Callable[[str, float, int], str]
"""(last message of the prompt, temperature, how often it was asked that at that temperature before) -> text."""


class ScriptedPolicy:
    """A policy of engine/backends/interface. A completion has a token for each word, and one for its end."""

    def __init__(self, says: Says) -> None:
        self.says = says
        self.logprobs: dict[str, float] = {}
        """Of completions that are scored, in nats."""
        self.gap = 0.0
        """Nats between the logit of what it answers and that of the only other answer."""
        self.apart: dict[str, Callable[[str], float]] = {}
        """start, base -> (text -> divergence of each of its tokens, in nats); what is not named is not at hand."""
        self.asked = Counter[tuple[str, float]]()
        self.seeds: list[tuple[float, int]] = []
        """(temperature, seed) of every generation."""

    def generate(
        self,
        prompts: list[Conversation],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        of: str = "policy",
        progress: Any = None,
    ) -> list[Completion]:
        self.seeds.append((temperature, seed))
        completions = []
        for prompt in prompts:
            words = prompt[-1]["content"]
            text = self.says(words, temperature, self.asked[words, temperature])
            self.asked[words, temperature] += 1
            finished = not text.endswith(CUT)
            text = text.removesuffix(CUT)
            completions.append(Completion(text, tuple(range(len(text.split()) + finished)), finished))
        return completions

    def score(
        self, prompts: list[Conversation], completions: list[str], *, of: str = "policy", progress: Any = None
    ) -> list[Score]:
        return [Score(self.logprobs[text], len(text.split()) + 1, 0) for text in completions]

    def tempered_logprobs(
        self, prompts: Any, completions: list[Completion], temperatures: tuple[float, ...], *, progress: Any = None
    ) -> list[list[float]]:
        return [[-math.log1p(math.exp(-self.gap / t)) for t in temperatures] for _ in completions]

    def divergence(
        self, prompts: Any, completions: list[Completion], *, to: str, progress: Any = None
    ) -> list[Divergence]:
        return [Divergence(self.apart[to](one.text) * len(one.tokens), len(one.tokens)) for one in completions]

    def has(self, which: str) -> bool:
        return which in self.apart


def stage_context(folder: Path, stage: str, **files: list[dict[str, Any]]) -> StageContext:
    """The context of a recipe's one stage (its YAML, indented by four), with each of ``files`` as NAME.jsonl beside it."""
    for name, rows in files.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "scripted.yaml").write_text(HEAD + "  - " + stage.strip() + "\n")
    loaded = load_recipe(str(folder / "scripted.yaml"))
    run = create_run(loaded).run
    run.suite.unlink(missing_ok=True)  # capability is another matter
    events: list[Event] = []
    context = StageContext(run, loaded.recipe, 0, Channel.recording(events))
    context.events = events  # type: ignore[attr-defined] - for the tests to look at
    return context


def figures(measured: Any) -> dict[str, Any]:
    return {one.name: one for one in measured}
