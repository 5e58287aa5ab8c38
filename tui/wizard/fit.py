"""The forecast as the guided way shows it: what a recipe costs as it stands, and what the memory question's answer is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.forecast.hardware import Hardware
from engine.forecast.model import ModelFacts, find_model
from engine.forecast.plan import make_fit, missing_data, plan
from engine.forecast.settings import GROUPS, REFERENCES, Settings
from engine.forecast.verdict import estimate, verdict
from recipes.errors import InputError, Problem
from recipes.load import LoadedRecipe, parse_recipe
from tui.wizard.draft import assign, read, redumped

WORST = {"fits": 0, "tight": 1, "does not fit": 2}
TALKED_OF = (
    "lab", "Qwen/Qwen2.5-0.5B-Instruct", "meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-3B-Instruct",
    "meta-llama/Llama-3.1-8B-Instruct", "microsoft/phi-4",
)  # fmt: skip
"""Models of growing size for the memory question, which comes before a model is chosen."""
USUAL = "meta-llama/Llama-3.2-1B-Instruct"
"""What the method comparison's figures are for, as long as no model is chosen."""


@dataclass(frozen=True)
class Priced:
    """A recipe's text, judged. ``problems`` are what a start would refuse; without a ``plan`` there is no price."""

    text: str
    loaded: LoadedRecipe | None
    problems: tuple[Problem, ...] = ()
    plan: dict[str, Any] | None = None
    unpriced: str = ""
    """Why there is no price although the recipe is valid."""

    @property
    def verdict(self) -> str | None:
        """The worst stage's."""
        found = [stage["verdict"] for stage in self.plan["stages"] if stage["verdict"]] if self.plan else []
        return max(found, key=WORST.__getitem__, default=None)


def price(text: str, folder: Path, hardware: Hardware | None, trace: bool = False) -> Priced:
    """Check and price a recipe that is being written. By arithmetic it takes about a millisecond."""
    try:
        loaded = parse_recipe(text, folder)
    except InputError as error:
        return Priced(text, None, tuple(error.problems))
    problems = tuple(missing_data(loaded))
    if hardware is None:
        return Priced(text, loaded, problems, unpriced="the machine is being looked at")
    try:
        return Priced(text, loaded, problems, plan(loaded, hardware, trace=trace, local=True))
    except InputError as error:
        unknown = [problem for problem in error.problems if problem.field != "model"]
        if unknown:
            return Priced(text, loaded, (*problems, *unknown))
        return Priced(text, loaded, problems, unpriced=error.problems[0].found)


def apply(text: str, stage: int, remedy: dict[str, Any]) -> str:
    """The recipe with a remedy's fields set: those of the stage, and those of the whole recipe."""
    for key, value in remedy["set"].items():
        path: tuple[str | int, ...] = (
            ("stages", stage, key.removeprefix("stage.")) if key.startswith("stage.") else (key,)
        )
        text = assign(text, path, value)
    if remedy["set"].get("stage.method"):
        text = _without_strangers(text, stage)
    return text


def _without_strangers(text: str, stage: int) -> str:
    """After a change of method: without the fields and gates that the new one does not have."""
    from recipes.methods import cards, stage_types

    raw = read(text)
    assert raw is not None
    found = raw["stages"][stage]
    known = stage_types()[found["method"]].model_fields  # type: ignore[attr-defined]
    found = {key: value for key, value in found.items() if key in known}
    if "gates" in found:
        found["gates"] = {name: gate for name, gate in found["gates"].items() if name in cards()[found["method"]].gates}
    raw["stages"][stage] = found
    return redumped(text, raw)


def make_it_fit(text: str, folder: Path, hardware: Hardware) -> tuple[str | None, list[str]]:
    """``(the recipe that fits, what was changed)``, or ``(None, why not)``: the same methods, the same effective batch."""
    loaded, changed = make_fit(parse_recipe(text, folder), hardware, trace=False)
    if loaded is None:
        return None, changed
    new = loaded.recipe.model_dump(mode="json")
    for change in changed:  # only what was changed goes into the text: it stays as its writer wrote it
        field = change.partition(":")[0]
        path = tuple(int(part) if part.isdigit() else part for part in field.split("."))
        value: Any = new
        for part in path:
            value = value[part]
        text = assign(text, path, value)
    return text, changed


# ---- the memory question -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Budget:
    """What DPO and ORPO take of a machine for one model, and the answer that this suggests."""

    model: str
    parameters: int
    machine: str
    available_mib: float
    methods: tuple[tuple[str, float, str], ...]
    """Method, MiB, verdict."""
    suggests: str
    """Key of the memory question's answer."""


def budget(model: str, hardware: Hardware, folder: Path | None = None) -> Budget:
    """What ``least`` says of both methods. Raises InputError for an unknown model."""
    facts = find_model(model, folder)
    found = tuple((method, *least(method, facts, hardware)) for method in ("dpo", "orpo"))
    suggests = "available" if found[0][2] == "fits" else "constrained"
    return Budget(model, facts.parameters, hardware.name, hardware.available_mib, found, suggests)


SMALL = 20_000_000
"""Parameters up to which nobody quantizes."""


def least(method: str, facts: ModelFacts, hardware: Hardware) -> tuple[float, str]:
    """``(MiB, verdict)`` of a method on the cheap settings of the method comparison's own figures: the base in 4 bit, one
    row or pair at a time (groups of 8), 512 tokens, activations recomputed."""
    whole = facts.parameters < SMALL
    settings = Settings(
        method=method, loop="stage", quantization="none" if whole else "4bit", double_quant=not whole, prepare_kbit=False,
        autocast=not whole, dtype="fp32" if whole else "bf16", gradient_checkpointing=not whole,
        batch_size=8 if method in GROUPS else 1, length=min(512, facts.max_length or 512),
        reference="base" if method in REFERENCES else "none", padded=True, backend=hardware.backend,
    )  # fmt: skip
    needed = estimate(facts, settings, hardware)
    return needed.process, verdict(needed, hardware.available_mib)
