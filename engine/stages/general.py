"""The model's own answers to general prompts, taken before a stage trains: replay and anchors."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

from engine.backends.interface import Conversation
from engine.data.formats import Conversation as ConversationRow
from engine.runs.files import write_atomically
from engine.stages.context import StageContext

LEAST_TOKENS = 64


def own_answers(context: StageContext, policy: Any, name: str, sources: Sequence[Any]) -> list[Conversation]:
    """General conversations as they are, and general prompts answered by the model as it is now.

    The answers are sampled at temperature 1 and kept as ``<name>.jsonl`` in the stage's folder, so that a resumed run
    trains on the same. Those that did not end are left out.
    """
    answered = context.folder / f"{name}.jsonl"
    if context.rank == 0 and not answered.exists():
        lines = [json.dumps(row, ensure_ascii=False) for row in _answer(context, policy, name, sources)]
        write_atomically(answered, "".join(line + "\n" for line in lines))
    while not answered.exists():  # the other ranks of a several-process stage wait for the first
        time.sleep(0.2)
    return [json.loads(line) for line in answered.read_text(encoding="utf-8").splitlines()]


def _answer(context: StageContext, policy: Any, name: str, sources: Sequence[Any]) -> list[Conversation]:
    conversations = [list(row.messages) for row in sources if isinstance(row, ConversationRow)]
    prompts = [list(row.prompt) for row in sources if not isinstance(row, ConversationRow)]
    if prompts:
        completions = policy.generate(
            prompts,
            max_new_tokens=max(LEAST_TOKENS, context.stage.evaluation.max_new_tokens),
            temperature=1.0,  # as the model would: greedy answers would teach it to vary its replies no more
            seed=context.seed_for(0, name),
            progress=context.phase("evaluating", f"the model's own answers for {name}", "answers"),
        )
        # An answer that was cut off would teach the model not to stop.
        conversations += [
            [*prompt, {"role": "assistant", "content": completion.text}]
            for prompt, completion in zip(prompts, completions, strict=True)
            if completion.finished and completion.text
        ]
    return conversations
