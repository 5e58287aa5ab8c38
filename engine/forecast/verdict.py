"""From bytes to words: does it fit into what is available, and what would make it fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from engine.forecast.arithmetic import MIB, Memory, memory
from engine.forecast.hardware import Hardware
from engine.forecast.model import ModelFacts, catalogue, from_config
from engine.forecast.settings import REFERENCES, Settings

BAND = {"trace": (0.95, 1.10), "arithmetic": (0.88, 1.20)}
"""Tier -> (low, high) around the process's memory. Trace: the same 4-bit setting measured twice on the T4 differed by up to
7 %, and the trace is within -7 % and +4 % of all 50 rows there; unquantized within 0.3 %. Arithmetic: -12 % and +23 %."""
SHORTEST = 256
"""Tokens below which a shorter length is no remedy but another task."""

MADE_TO_FIT = (
    "gradient_checkpointing", "batch_size", "accumulation", "training", "optimizer", "quantization", "length",
)  # fmt: skip
"""Settings that ``fitting`` may change."""

Remedy = dict[str, Any]


@dataclass(frozen=True)
class Estimate:
    """Figures in MiB on one device, of all processes on it. ``process`` is what the driver shows: reserved and context."""

    allocated: float
    reserved: float
    process: float
    low: float
    high: float
    tier: str
    parts: dict[str, float]
    moment: str
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "allocated_mib": round(self.allocated, 1),
            "reserved_mib": round(self.reserved, 1),
            "process_mib": round(self.process, 1),
            "low_mib": round(self.low, 1),
            "high_mib": round(self.high, 1),
            "tier": self.tier,
            "peak": self.moment,
            "parts": {name: round(value, 1) for name, value in self.parts.items()},
        }


def estimate(
    model: ModelFacts, settings: Settings, hardware: Hardware, traced: dict[str, Any] | None = None
) -> Estimate:
    """Tier 1, with the training step's figures replaced by the trace's where there are some.

    The parts of a trace are the arithmetic's, the activations taking up the difference. Where generating or measuring
    needs more than the training step, the larger of both stands.
    """
    found = memory(model, settings)
    tier = "arithmetic"
    if traced is not None and "allocated_mib" in traced:
        tier = "trace"
        found = _traced(model, settings, found, traced)
    if hardware.kind == "cpu":
        found = _without_workspaces(found)
    here = hardware.shared_by(settings.gpus) if settings.trains else 1
    allocated, reserved = here * found.allocated / MIB, here * found.reserved / MIB
    context = here * hardware.context_mib
    process = reserved + context
    low, high = BAND[tier]
    certain = 1.0 if model.certain or tier == "trace" else 1.25
    return Estimate(
        allocated=allocated,
        reserved=reserved,
        process=process,
        low=process * low / certain,
        high=process * high * certain,
        tier=tier,
        parts={name: here * value / MIB for name, value in found.parts.items()} | {
            "unused": reserved - allocated,
            "context": context,
        },
        moment=found.moment,
        notes=(*found.notes, *_shared_out(settings, here)),
    )  # fmt: skip


def _without_workspaces(found: Memory) -> Memory:
    """cuBLAS's are a GPU's."""
    size = found.parts.get("workspace", 0.0)
    parts = {**found.parts, "workspace": 0.0}
    return Memory(found.allocated - size, found.reserved - size, parts, found.moment, found.notes)


def _shared_out(settings: Settings, here: int) -> list[str]:
    if settings.gpus == 1:
        return []
    if not settings.trains:
        return ["one process: a stage that trains nothing is not shared out"]
    held = (
        f"the {here} processes share this memory, and each of them holds all of it"
        if here > 1
        else f"each of the {settings.gpus} GPUs holds all of it"
    )
    return [f"{held}: the data are shared out, the model is not"]


def _traced(model: ModelFacts, settings: Settings, found: Memory, traced: dict[str, Any]) -> Memory:
    allocated, reserved = traced["allocated_mib"] * MIB, traced["reserved_mib"] * MIB
    if found.moment in ("generating", "measuring") and found.reserved > reserved:
        return found
    step = memory(model, replace(settings, evaluation_prompts=0)) if found.moment == "generating" else found
    if step.moment == "generating":  # GRPO: the step is the trace's, its parts are not split further
        return Memory(allocated, reserved, {**step.parts, "kv_cache": 0.0, "activations": allocated - sum(
            value for name, value in step.parts.items() if name not in ("kv_cache", "activations")
        )}, "training step", found.notes)  # fmt: skip
    rest = allocated - sum(value for name, value in step.parts.items() if name != "activations")
    parts = {**step.parts, "activations": max(0.0, rest)}
    surplus = sum(parts.values()) - allocated
    parts["logits"] = max(0.0, parts["logits"] - surplus) if surplus > 0 else parts["logits"]
    return Memory(allocated, reserved, parts, step.moment, found.notes)


def verdict(found: Estimate, available_mib: float) -> str:
    """``fits`` when even the high figure does, ``does not fit`` when even the low one does not, else ``tight``."""
    if found.high <= available_mib:
        return "fits"
    return "does not fit" if found.low > available_mib else "tight"


# ---- remedies ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Change:
    """A way to need less. ``stage`` and ``recipe`` are the fields to set; ``costs`` is what one pays for it."""

    name: str
    words: str
    costs: str
    settings: Settings
    stage: dict[str, Any]
    recipe: dict[str, Any]


def changes(settings: Settings) -> Iterator[Change]:
    """The single changes that this stage allows, gentlest first."""
    if not settings.trains:
        yield from _quantize(settings)
        return
    if settings.training == "full":
        words = "train a LoRA adapter instead of all weights"
        if settings.method in REFERENCES:
            words += ": the reference is then the same model without it, not a second copy"
        reference = "base" if settings.reference == "copy" else settings.reference
        lora = replace(settings, training="lora", reference=reference)
        yield Change("lora", words, "a little capacity", lora, {"training": "lora"}, {})
    if not settings.gradient_checkpointing:
        yield Change(
            "checkpointing", "recompute activations in the backward (gradient checkpointing)", "about a third more time",
            replace(settings, gradient_checkpointing=True), {"gradient_checkpointing": True}, {},
        )  # fmt: skip
    if settings.batch_size > 1:
        accumulation = settings.batch_size * settings.accumulation
        yield Change(
            "micro-batch", f"micro-batch 1 with {accumulation} accumulation steps (the same effective batch)",
            "some speed", replace(settings, batch_size=1, accumulation=accumulation),
            {"batch_size": 1, "accumulation": accumulation}, {},
        )  # fmt: skip
    if settings.optimizer == "adamw" and settings.backend == "pytorch":
        yield Change(
            "8-bit optimizer", "optimizer states in 8 bit", "hardly anything",
            replace(settings, optimizer="adamw-8bit"), {"optimizer": "adamw-8bit"}, {},
        )  # fmt: skip
    yield from _quantize(settings)
    if settings.attention == "eager":
        yield Change(
            "fused attention",
            "the fused attention kernel (sdpa)",
            "nothing",
            replace(settings, attention="sdpa"),
            {},
            {"attention": "auto"},
        )
    if settings.length >= 2 * SHORTEST:
        half = settings.length // 2
        yield Change(
            "shorter", f"sequences of at most {half} tokens", "longer rows are truncated",
            replace(settings, length=half), {"max_length": half}, {},
        )  # fmt: skip
    if settings.method in REFERENCES and settings.reference in ("copy", "base", "adapter"):
        yield Change(
            "precomputed reference", "the reference's log-probabilities computed once, before training",
            "no live KL", replace(settings, reference="precomputed"), {"precompute_reference": True}, {},
        )  # fmt: skip
    if settings.method in REFERENCES:
        # Its loss has no reference; of a full fine-tuning a stage keeps a copy all the same, for its gauges and gates.
        kept = "copy" if settings.training == "full" and settings.loop == "stage" else "none"
        yield Change(
            "orpo", "ORPO instead: the flowchart's way to align on a low memory budget, without a reference",
            "less stable than " + settings.method.upper(),
            replace(settings, method="orpo", reference=kept), {"method": "orpo"}, {},
        )  # fmt: skip


def _quantize(settings: Settings) -> Iterator[Change]:
    if settings.quantization == "4bit":
        return
    lora: dict[str, Any] = {"training": "lora"} if settings.training == "full" else {}
    reference = "base" if settings.reference == "copy" else settings.reference
    words = "the base in 4 bit" + (", trained through a LoRA adapter" if lora else "")
    four = replace(settings, quantization="4bit", training="lora", reference=reference, double_quant=True)
    yield Change("4-bit", words, "a little quality and speed", four, lora, {"quantization": "4bit"})


def remedies(
    model: ModelFacts, settings: Settings, hardware: Hardware, allowed: Callable[[Change], bool] = lambda change: True
) -> list[Remedy]:
    """What would make the stage need less, each with its own figure: those that fit
    first, the gentlest first among equals; all it takes together is one of them, a smaller model comes last."""
    now = estimate(model, settings, hardware)
    found: list[Remedy] = []
    for change in changes(settings):
        if not allowed(change):
            continue
        priced = estimate(model, change.settings, hardware)
        if change.name == "orpo" or priced.process < now.process * 0.99:  # the flowchart's way is always named
            found.append(
                _remedy(change.name, change.words, change.costs, priced, hardware, change.stage, change.recipe)
            )
    smaller = smaller_model(model, settings, hardware)
    if smaller is not None:
        priced = estimate(smaller, settings, hardware)
        words = f"a smaller model: {smaller.name}"
        found.append(_remedy("smaller model", words, "capability", priced, hardware, {}, {"model": smaller.name}))
    combined = _combined(model, settings, hardware)
    if combined is not None:
        found.append(combined)
    rank = {"fits": 0, "tight": 1, "does not fit": 2}
    return sorted(found, key=lambda one: (one["name"] == "smaller model", rank[one["verdict"]]))


def _combined(model: ModelFacts, settings: Settings, hardware: Hardware) -> Remedy | None:
    """What ``--make-fit`` would do: the least that makes it fit, several changes together."""
    available = hardware.available_mib
    together = fitting(settings, lambda tried: verdict(estimate(model, tried, hardware), available) == "fits")
    if together is None or together == settings:
        return None
    now, then = settings.to_json(), together.to_json()
    names = [name for name in MADE_TO_FIT if now[name] != then[name]]
    words = "all that it takes (--make-fit): " + ", ".join(f"{name} {then[name]}" for name in names)
    priced = estimate(model, together, hardware)
    fields = {("max_length" if name == "length" else name): then[name] for name in names if name != "quantization"}
    recipe = {"quantization": then["quantization"]} if "quantization" in names else {}
    return _remedy("make-fit", words, "what its parts cost", priced, hardware, fields, recipe)


def _remedy(name: str, words: str, costs: str, priced: Estimate, hardware: Hardware, stage: Any, recipe: Any) -> Remedy:
    return {
        "name": name,
        "what": words,
        "costs": costs,
        "process_mib": round(priced.process, 1),
        "low_mib": round(priced.low, 1),
        "high_mib": round(priced.high, 1),
        "verdict": verdict(priced, hardware.available_mib),
        "set": {**recipe, **{f"stage.{key}": value for key, value in stage.items()}},
    }


@cache
def _catalogued() -> tuple[ModelFacts, ...]:
    """Every shape of the catalogue once, under its first name."""
    entries = [entry for name, entry in catalogue().items() if name == entry["ids"][0]]
    return tuple(from_config(entry["config"], entry["ids"][0]) for entry in entries)


def smaller_model(model: ModelFacts, settings: Settings, hardware: Hardware) -> ModelFacts | None:
    """The largest model of the same family in the catalogue that fits as the recipe stands, or the next smaller one."""
    family = model.name.rpartition("/")[0].lower()
    if not family:
        return None
    known = _catalogued()
    same = [
        one for one in known if one.name.lower().startswith(family + "/") and one.parameters < 0.95 * model.parameters
    ]
    same = [one for one in same if one.max_length is None or one.max_length >= settings.length]
    same.sort(key=lambda one: -one.parameters)
    fitting = [one for one in same if verdict(estimate(one, settings, hardware), hardware.available_mib) == "fits"]
    return next(iter(fitting or same), None)


# ---- making it fit -------------------------------------------------------------------------------------------------------


def fitting(settings: Settings, fits: Callable[[Settings], bool]) -> Settings | None:
    """The settings with the least change that ``fits`` accepts and the same effective batch; None if there are none.

    First what changes nothing but time (checkpointing, smaller micro-batches), then what changes the training (LoRA,
    an 8-bit optimizer, 4 bit, shorter sequences). What turned out not to be needed is taken back. The method stays.
    """
    if fits(settings):
        return settings
    current = settings
    for step in _ladder(settings):
        for tried in step(current):
            current = tried
            if fits(current):
                return _relaxed(settings, current, fits)
    return None


def _ladder(settings: Settings) -> list[Callable[[Settings], Iterator[Settings]]]:
    def checkpointing(now: Settings) -> Iterator[Settings]:
        if now.trains and not now.gradient_checkpointing:
            yield replace(now, gradient_checkpointing=True)

    def micro_batch(now: Settings) -> Iterator[Settings]:
        while now.trains and now.batch_size > 1:
            smaller = now.batch_size // 2 if now.batch_size % 2 == 0 else 1
            factor = now.batch_size // smaller
            now = replace(now, batch_size=smaller, accumulation=now.accumulation * factor)
            yield now

    def lora(now: Settings) -> Iterator[Settings]:
        if now.trains and now.training == "full":
            reference = "base" if now.reference == "copy" else now.reference
            yield replace(now, training="lora", reference=reference)

    def optimizer(now: Settings) -> Iterator[Settings]:
        if now.trains and now.optimizer == "adamw" and now.backend == "pytorch":
            yield replace(now, optimizer="adamw-8bit")

    def four_bit(now: Settings) -> Iterator[Settings]:
        if now.quantization != "4bit":
            yield replace(now, quantization="4bit", double_quant=True)

    def shorter(now: Settings) -> Iterator[Settings]:
        while now.trains and now.length >= 2 * SHORTEST:
            now = replace(now, length=now.length // 2)
            yield now

    return [checkpointing, micro_batch, lora, optimizer, four_bit, shorter]


def _relaxed(wanted: Settings, found: Settings, fits: Callable[[Settings], bool]) -> Settings:
    """Take back what is not needed: the optimizer, then checkpointing, then the small micro-batches."""
    if found.optimizer != wanted.optimizer and fits(replace(found, optimizer=wanted.optimizer)):
        found = replace(found, optimizer=wanted.optimizer)
    while found.batch_size < wanted.batch_size and found.accumulation % 2 == 0:
        larger = replace(found, batch_size=found.batch_size * 2, accumulation=found.accumulation // 2)
        if not fits(larger):
            break
        found = larger
    if found.gradient_checkpointing and not wanted.gradient_checkpointing:
        without = replace(found, gradient_checkpointing=False)
        if fits(without):
            found = without
    return found
