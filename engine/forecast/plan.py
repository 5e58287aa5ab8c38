"""A recipe's forecast: every stage on a machine, and the recipe that fits."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.forecast.auto import pick_quantization
from engine.forecast.call import described, priced
from engine.forecast.duration import duration, stage_signature
from engine.forecast.hardware import Hardware
from engine.forecast.model import ModelFacts, find_model, from_config
from engine.forecast.model import catalogue as model_catalogue
from engine.forecast.of_stages import settings_of_stages
from engine.forecast.rates import measured_here
from engine.forecast.settings import Settings
from engine.forecast.tight import remembered
from engine.forecast.tracer import TRACER
from engine.forecast.verdict import Change, Estimate, estimate, fitting, verdict
from engine.forecast.workload import workload
from recipes.errors import InputError, Problem
from recipes.load import LoadedRecipe, dump_recipe, validate
from recipes.methods import cards, stage_types
from recipes.resources import BUILT_IN, hub_dataset, resolve_model, resolve_source

SOURCE_MODEL = "meta-llama/Llama-3.2-1B"
SOURCE_LENGTH = 512
WARNED = ("dpo", "cpo")
"""Methods that the source calls memory-hungry: when they do not fit, the flowchart's own way out is named."""


def plan(loaded: LoadedRecipe, hardware: Hardware, *, trace: bool = True, local: bool = False) -> dict[str, Any]:
    """``{"name", "model", "hardware", "quantization", "stages": […], "fits"}``; each stage as ``engine.forecast.forecast`` gives it.

    ``local``: the hardware is this machine, so that what earlier runs measured here counts. Raises InputError for an
    unknown model and for settings that are impossible, naming the stage's field.
    """
    model = find_model(loaded.recipe.model, loaded.folder)
    records = measured_here(hardware.name, hardware.backend) if local else []
    stages = []
    picked = pick_quantization(loaded, hardware)
    wanted = settings_of_stages(loaded, model, hardware, picked.value)
    with TRACER.together():
        prices = [priced(model, settings, hardware, trace=trace) for settings in wanted]
    for index, (settings, found) in enumerate(zip(wanted, prices, strict=True)):
        signature = stage_signature(loaded.recipe, index) if local else ""
        time = duration(model, settings, hardware, workload(loaded, index), records, signature)
        told = described(model, settings, hardware, found, time, _allowed(loaded, index))
        told["notes"] += _warnings(told, settings)
        fitted = remembered(loaded.recipe, index, hardware.name) if local else None
        if fitted is not None:
            told["notes"].append(
                f"an earlier run ran out of memory here with a micro-batch of {settings.batch_size}: it will begin with "
                f"{fitted['batch_size']}, {fitted['accumulation']} of them accumulated"
            )
        told["source_case"] = source_case(settings.method)
        stages.append(told)
    return {
        "name": loaded.recipe.name,
        "model": {"name": model.name, "parameters": model.parameters, "architecture": model.architecture},
        "hardware": {"name": hardware.name, "kind": hardware.kind, "available_mib": round(hardware.available_mib, 1)},
        "quantization": {"value": picked.value, "why": picked.why},
        "stages": stages,
        "fits": all(stage["verdict"] != "does not fit" for stage in stages),
    }


def _warnings(told: dict[str, Any], settings: Settings) -> list[str]:
    if settings.method not in WARNED or told["verdict"] == "fits":
        return []
    name = settings.method.upper()
    keeping = [
        one["name"]
        for one in told["remedies"]
        if one["name"] not in ("orpo", "smaller model", "make-fit") and one["verdict"] == "fits"
    ]
    kept = (
        f"{name} is kept by: {', '.join(keeping)}"
        if keeping
        else f"no single change keeps {name}; --make-fit combines them"
    )
    orpo = next((one for one in told["remedies"] if one["name"] == "orpo"), None)
    figure = f" ({orpo['process_mib'] / 1024:.1f} GiB)" if orpo else ""
    return [f"low on memory, the flowchart's way is ORPO{figure}; {kept}"]


def _allowed(loaded: LoadedRecipe, index: int) -> Any:
    """Only changes that the recipe's schema can express are offered."""
    types: dict[str, Any] = stage_types()
    known = types[loaded.recipe.stages[index].method].model_fields

    def allowed(change: Change) -> bool:
        if "method" in change.stage:
            return change.stage["method"] in types
        return bool(change.stage or change.recipe) and all(key in known for key in change.stage)

    return allowed


# ---- the source's own figures --------------------------------------------------------------------------------------------


def source_case(method: str) -> dict[str, Any] | None:
    """The source's figure for a 1B model in 4 bit beside ours for Llama-3.2-1B, and why they differ."""
    card = cards().get(method)
    if card is None or not card.memory.total_gb_1b_4bit:
        return None
    model = from_config(model_catalogue()[SOURCE_MODEL]["config"], SOURCE_MODEL)
    settings = Settings(
        method=method, loop="stage", quantization="4bit", double_quant=True, prepare_kbit=False, autocast=True,
        gradient_checkpointing=True, length=SOURCE_LENGTH, batch_size=8 if method in ("grpo", "rlvr") else 1,
        reference="base" if method in WARNED else "none",
    )  # fmt: skip
    found = estimate(model, settings, Hardware("source", "cuda", 0, 0, 86, None, None, 400.0))
    return {
        "model": SOURCE_MODEL,
        "source_gb": card.memory.total_gb_1b_4bit,
        "ours_gb": round(found.process * 2**20 / 1e9, 1),
        "why": WHY[method],
    }


WHY = {
    "sft": "the head is fused with the loss, so the logits over 128k words are never held whole",
    "dpo": "the source counts a second model as the reference; here it is the same model without the adapter",
    "orpo": "no reference, but a pair of sequences; the fused head keeps the logits out of memory",
    "grpo": "a group of 8 completions of 256 tokens: the cache is small at 1B, the micro-batch is what counts",
    "cpo": "as DPO: the reference is the same model without the adapter",
    "rlvr": "as GRPO: verifying runs on the CPU",
    "abliteration": "64 prompts are generated and read at once, with the hidden states of all layers; no gradients",
    "steering": "64 prompts are generated and read at once, with the hidden states of all layers; no gradients",
    "calibration": "the model and a block of logits",
    "anti_hallucination": "sampling 64 answers at once, then a small SFT",
}


# ---- a recipe that fits --------------------------------------------------------------------------------------------------


def make_fit(loaded: LoadedRecipe, hardware: Hardware, *, trace: bool = True) -> tuple[LoadedRecipe | None, list[str]]:
    """``(the changed recipe, what was changed)``, or ``(None, why)`` when nothing that keeps the methods fits.

    Every stage keeps its method and its effective batch. The arithmetic searches; the trace confirms, and where it
    disagrees the search goes on with less memory.
    """
    with TRACER.together():
        return _made_to_fit(loaded, hardware, trace)


def _made_to_fit(loaded: LoadedRecipe, hardware: Hardware, trace: bool) -> tuple[LoadedRecipe | None, list[str]]:
    model = find_model(loaded.recipe.model, loaded.folder)
    wanted = settings_of_stages(loaded, model, hardware, pick_quantization(loaded, hardware).value)
    quantization: str | None = None
    results: list[Settings] = []
    for index, settings in enumerate(wanted):
        found = _fitting_stage(model, settings, hardware, trace)
        if found is None:
            least = remedies_least(model, settings, hardware)
            return None, [
                f"stage {index + 1} ({settings.method}) does not fit whatever is changed: at least "
                f"{least / 1024:.1f} GiB, {hardware.available_mib / 1024:.1f} GiB are there; a smaller model is needed"
            ]
        if found.quantization != settings.quantization:
            quantization = found.quantization
        results.append(found)
    if quantization is not None:  # one base for all stages: none of them can train it whole
        results = [
            replace(
                one,
                quantization=quantization,
                training="lora",
                reference="base" if one.reference == "copy" else one.reference,
            )
            for one in results
        ]
    return _changed(loaded, wanted, results, quantization)


def _fitting_stage(model: ModelFacts, settings: Settings, hardware: Hardware, trace: bool) -> Settings | None:
    available = hardware.available_mib
    for _ in range(5):
        room = available

        def fits(tried: Settings, room: float = room) -> bool:
            return verdict(estimate(model, tried, hardware), room) == "fits"

        found = fitting(settings, fits)
        if found is None:
            return None
        confirmed = priced(model, found, hardware, trace=trace)
        if verdict(confirmed, hardware.available_mib) == "fits":
            return found
        available -= confirmed.high - hardware.available_mib + 64
    return None


def remedies_least(model: ModelFacts, settings: Settings, hardware: Hardware) -> float:
    """MiB that the stage needs with everything changed that can be."""
    tried: list[Estimate] = []

    def fits(one: Settings) -> bool:
        tried.append(estimate(model, one, hardware))
        return False

    fitting(settings, fits)
    return min(one.high for one in tried)


FIELDS = {
    "training": "training", "gradient_checkpointing": "gradient_checkpointing", "batch_size": "batch_size",
    "accumulation": "accumulation", "optimizer": "optimizer", "length": "max_length",
}  # fmt: skip
"""Field of Settings -> field of a recipe's stage."""


def _changed(
    loaded: LoadedRecipe, wanted: list[Settings], results: list[Settings], quantization: str | None
) -> tuple[LoadedRecipe, list[str]]:
    raw = loaded.recipe.model_dump(mode="json")
    said = []
    if quantization is not None:
        raw["quantization"] = quantization
        said.append(f"quantization: {quantization}")
    for index, (before, after) in enumerate(zip(wanted, results, strict=True)):
        for name, field in FIELDS.items():
            if getattr(before, name) != getattr(after, name):
                raw["stages"][index][field] = getattr(after, name)
                said.append(f"stages.{index}.{field}: {getattr(before, name)} -> {getattr(after, name)}")
    _share_adapter(raw)
    where = str(loaded.path or "recipe")
    recipe = validate(raw, where, {})
    return LoadedRecipe(recipe, loaded.path, loaded.folder, dump_recipe(recipe)), said


def _share_adapter(raw: dict[str, Any]) -> None:
    """One adapter goes through all LoRA stages: those after the first inherit its rank and targets."""
    first: dict[str, Any] | None = None
    for stage in raw["stages"]:
        if stage.get("training") != "lora":
            first = None
            continue
        if first is None:
            first = stage.get("adapter")
        elif first is not None and stage.get("adapter"):
            stage["adapter"] = {**stage["adapter"], "rank": first["rank"], "targets": first["targets"]}


def anywhere(loaded: LoadedRecipe) -> str:
    """The recipe's text with relative paths made absolute, so that it can be kept in another folder."""
    from engine.data.prepare import source_words

    raw = loaded.recipe.model_dump(mode="json")
    for field, word in source_words(loaded):
        *way, name = field.split(".")
        holder: Any = raw
        for key in way:
            holder = holder[int(key)] if isinstance(holder, list) else holder.get(key) or {}
        if holder.get(name) is None or word.startswith(tuple(BUILT_IN)) or hub_dataset(word, loaded.folder):
            continue  # a default, or what is the same everywhere
        try:
            holder[name] = str(resolve_source(word, loaded.folder))
        except InputError:
            continue  # not there yet: it stays as it was written
    folder = resolve_model(raw["model"], loaded.folder)
    if folder is not None and raw["model"] not in ("lab", "lab-nano"):
        raw["model"] = str(folder)
    return dump_recipe(validate(raw, "recipe", {}))


def missing_data(loaded: LoadedRecipe) -> list[Problem]:
    """Sources of the recipe that do not exist; a forecast does not need them, a run does."""
    from engine.data.prepare import source_paths

    try:
        source_paths(loaded)
    except InputError as error:
        return error.problems
    return []
