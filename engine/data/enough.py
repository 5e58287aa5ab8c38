"""Held-out rows that the definitions of the gated figures ask for, and in words what fewer of them leave open.

A gate is decided all the same: its line has its n.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from engine.evaluate import calibration, retention
from engine.evaluate.statistics import wilson

LEAST_HELD_OUT = 20
"""Rows below which every gate is uncertain, whatever its figure."""
OF_ECE = ("ece", "ece_cut")
OF_RETENTION = ("retention", "retention_worst")


def few_held_out(n: int, what: str = "rows") -> list[str]:
    """A warning if there are hardly any held-out rows at all."""
    if n >= LEAST_HELD_OUT:
        return []
    return [f"only {n} held-out {what}: the gates will be uncertain (a share of {n} is known to ± {half_width(n):.0%})"]


def few_for_ece(method: str, gates: Iterable[str], questions: int, answerable: int) -> list[str]:
    """A warning if one of ``gates`` stands on the ECE, and the held-out questions are fewer than it is defined on.

    Where the method teaches to abstain, its figure is of what is answered afterwards: of the ``answerable`` ones, if it
    goes well.
    """
    abstains = method == "anti_hallucination"
    n = answerable if abstains else questions
    gated, wanted = [name for name in gates if name in OF_ECE], calibration.DEFINED_ON
    if not gated or n >= wanted:
        return []
    which = " with an answer, and only what is answered in the end counts" if abstains else ""
    return [
        f"{n} held-out questions{which}: {_gates(gated)} at a calibration error (ECE), which is defined on {wanted} or "
        f"more; on {n} even a perfect calibration measures up to about {calibration.chance(n):.2f} by chance alone, on "
        f"{wanted} {calibration.chance(wanted):.2f}"
    ]


def few_for_retention(gates: Iterable[str], tasks: Mapping[str, int], suite_n: int | None) -> list[str]:
    """A warning if one of ``gates`` stands on the suite, and a task of it has fewer rows than retention is defined on.

    ``tasks``: the suite's rows of each task; ``suite_n``: how many of them the stage takes, all if None.
    """
    gated, wanted = [name for name in gates if name in OF_RETENTION], retention.DEFINED_ON
    taken = {task: rows if suite_n is None else min(rows, suite_n) for task, rows in tasks.items()}
    short = [task for task, rows in taken.items() if rows < wanted]
    if not gated or not short:
        return []
    least = min(short, key=lambda task: taken[task])
    n = taken[least]
    why = "" if suite_n is None or tasks[least] <= suite_n else f" (`evaluation.suite_n: {suite_n}`)"
    return [
        f"{n} rows of `{least}` in the capability suite{why}: {_gates(gated)} at a figure that is defined on {wanted} or "
        f"more a task, and {len(short)} of {len(taken)} tasks have fewer; of {n} the share right is known to "
        f"± {half_width(n):.0%}, of {wanted} to ± {half_width(wanted):.0%}"
    ]


def half_width(n: int) -> float:
    """Half of the 95 % interval of a share of about a half, where it is widest."""
    low, high = wilson(n // 2, n)
    return (high - low) / 2


def _gates(names: list[str]) -> str:
    shown = " and ".join(f"`{name}`" for name in names)
    return f"the gate {shown} looks" if len(names) == 1 else f"the gates {shown} look"
