"""Out of memory: the same step in smaller pieces. The micro-batch is halved, the accumulation doubled, and the stage's
process started again, because only a new process gives everything back.

The effective batch stays, and with it the order of the data: a checkpoint's step is the same place in them. What was
learned is kept in the stage's folder, so that a resume does not run into it again, and for later runs of the same stage
on this machine (``engine.forecast.tight``), which begin with what fitted.
"""

from __future__ import annotations

import contextlib
import json
from typing import Any

from engine.forecast import tight
from engine.forecast.hardware import this_machine
from engine.runs.files import write_atomically
from engine.stages.context import MICRO_BATCH, StageContext

NAMES = ("OutOfMemoryError", "OutOfMemory")
WORDS = ("out of memory", "can't allocate memory", "unable to allocate", "insufficient memory")
"""How PyTorch (CUDA, MPS, CPU) and MLX say it."""


def ran_out(error: BaseException) -> bool:
    """Whether an error, or one behind it, is about the device's or the process's memory."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        if type(current).__name__ in NAMES or isinstance(current, MemoryError):
            return True
        if isinstance(current, RuntimeError) and any(word in str(current).lower() for word in WORDS):
            return True
        current = current.__cause__ or current.__context__
    return False


def smaller(stage: Any) -> dict[str, int] | None:
    """Fields with half the micro-batch and the same product; None when it is 1 already, or the stage trains nothing.

    A generation that is cut into micro-batches by number is cut into more of them, so that its groups stay whole.
    """
    batch = getattr(stage, "batch_size", 1)
    if batch <= 1:
        return None
    half = batch // 2 if batch % 2 == 0 else 1
    found = {"batch_size": half, "accumulation": stage.accumulation * (batch // half)}
    if getattr(stage, "steps_per_generation", None):
        found["steps_per_generation"] = stage.steps_per_generation * (batch // half)
    return found


def fall_back(context: StageContext) -> bool:
    """Keep a smaller micro-batch for the next start of this stage and say so. False when there is none."""
    stage = context.stage
    next_ = smaller(stage)
    if next_ is None:
        text = "out of memory with a micro-batch of 1; `finetune-tui check` says what else makes it smaller"
        context.alert("error", "out-of-memory", text)
        return False
    batch, accumulation = next_["batch_size"], next_["accumulation"]
    context.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(context.folder / MICRO_BATCH, json.dumps(next_))
    text = (
        f"out of memory with a micro-batch of {stage.batch_size}: going on with {batch}, and {accumulation} of them "
        f"accumulated instead of {stage.accumulation}; the effective batch stays {batch * accumulation}"
    )
    context.alert("warning", "out-of-memory", text, batch_size=batch, accumulation=accumulation)
    with contextlib.suppress(OSError):  # the next run would only have to find out again
        tight.remember(context.recipe, context.index, this_machine().name, next_)
    return True


def begin_with_what_fitted(context: StageContext) -> None:
    """Take the smaller micro-batch at once where an earlier run of the same stage ran out of memory here, and say so."""
    if (context.folder / MICRO_BATCH).is_file() or context.folder.is_dir() or not tight.path().is_file():
        return  # under way already: a stage's micro-batch changes only when it must
    fields = tight.remembered(context.recipe, context.index, this_machine().name)
    if fields is None:
        return
    wanted = context.stage.batch_size
    context.stage = context.stage.model_copy(update=fields)
    if context.rank != 0:
        return
    context.folder.mkdir(parents=True)
    write_atomically(context.folder / MICRO_BATCH, json.dumps(fields))
    text = (
        f"an earlier run of this stage ran out of memory here with a micro-batch of {wanted}: beginning with "
        f"{fields['batch_size']}, and {fields['accumulation']} of them accumulated; the effective batch stays "
        f"{fields['batch_size'] * fields['accumulation']}. To try {wanted} again, remove {tight.path()}"
    )
    context.alert("info", "smaller-micro-batch", text, **fields)
