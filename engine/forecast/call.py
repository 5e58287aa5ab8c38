"""The library call: a plain description in, a plain forecast out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from engine.forecast.duration import Duration, duration
from engine.forecast.hardware import Hardware, find_hardware, from_dict, machines
from engine.forecast.model import ModelFacts, find_model, from_config
from engine.forecast.settings import GROUPS, Settings, read_settings
from engine.forecast.storage import storage
from engine.forecast.trace import Trace, can_trace, traceable
from engine.forecast.verdict import Estimate, estimate, remedies, verdict
from recipes.errors import InputError, Problem, nearest_word, quoted

ANYWHERE = Hardware("unnamed", "cuda", 0.0, 0.0, 80, None, None, 400.0)
"""When no hardware is named: no verdict, an unmeasured context."""
KEYS = ("model", "model_config", "model_id", "config", "run", "settings", "hardware", "gpu", "tier")


def forecast(description: dict[str, Any]) -> dict[str, Any]:
    """Memory and time of one stage.

    ``description``::

        {"model": "Qwen/Qwen2.5-1.5B-Instruct"          a name of the catalogue or hub cache, or a directory
                  | {"hidden_size": …, …},               or the content of a config.json (also as "model_config")
         "run": {"method": "sft", …},                    also as "settings"; see below
         "hardware": "rtx-3090" | {"name": …, "kind": "cuda", "memory_mib": 24576, "available_mib": 23000, …},
         "tier": "auto"}                                 auto: trace where torch is installed | trace | arithmetic

    The fields of ``run`` and their defaults are those of ``engine.forecast.settings.Settings``; the usual other names
    are understood (seq_len, precision, quantization nf4, lora_r, grad_checkpoint, attn_impl, adam8bit …). What most
    changes the result: ``loop`` (default ``plain``: ``model(input_ids, labels=labels)`` in transformers and PEFT, the
    whole logits held, and for a quantized base prepare_model_for_kbit_training, which keeps the rest in fp32;
    ``stage``: what this project's stages run, with TRL's fused head), ``batch_size`` (per device; pairs for DPO, ORPO,
    CPO), ``length`` (every row is taken to be that long), ``gradient_checkpointing`` (default false), ``lora_targets``
    (default all-linear), ``double_quant``, ``training`` (lora or full), ``reference`` (base, adapter, copy; of DPO and
    CPO also precomputed). A full fine-tuning with AdamW keeps gradients and states in the weights' precision, as
    torch.optim does. Without hardware, the GPU that ``run`` names (gpu_key, gpu_name), else no verdict.

    Returns ``{"method", "memory": {"allocated_mib", "reserved_mib", "process_mib", "low_mib", "high_mib", "tier",
    "peak", "parts"}, "time_s", "storage", "available_mib", "verdict", "remedies", "notes"}``: ``allocated`` is the peak
    of live tensors, ``reserved`` the allocator's, ``process`` adds the CUDA context; the process is expected within
    ``low`` and ``high``. Raises InputError with every problem when the description cannot be understood or the
    settings are impossible.
    """
    unknown = [
        key for key in description if key not in KEYS and key not in ("source", "measured_mib", "weight_breakdown")
    ]
    if unknown:
        raise InputError(
            [
                Problem("forecast", None, key, f"an unknown key `{key}`", quoted(KEYS), nearest_word(key, KEYS))
                for key in unknown
            ]
        )
    run = description.get("run") or description.get("settings") or {}
    model = _model(description)
    hardware = _hardware(description, run)
    tier = description.get("tier", "auto")
    if tier not in ("auto", "trace", "arithmetic"):
        raise InputError([Problem("forecast", None, "tier", f"`{tier}`", "`auto`, `trace` or `arithmetic`")])
    settings = read_settings(run)
    check_possible(model, settings, "run")
    found = priced(model, settings, hardware, trace=tier != "arithmetic")
    return described(model, settings, hardware, found)


def _model(description: dict[str, Any]) -> ModelFacts:
    given = description.get("model_config") or description.get("config") or description.get("model")
    name = description.get("model_id")
    if given is None:
        given = name
    if isinstance(given, dict):
        return from_config(given, str(name or given.get("_name_or_path") or given.get("name") or "the model"))
    if isinstance(given, str):
        return find_model(given)
    raise InputError([Problem("forecast", None, "model", f"`{given}`", "a name, or the content of a config.json")])


def _hardware(description: dict[str, Any], run: dict[str, Any]) -> Hardware:
    given = description.get("hardware")
    if given is not None:
        return from_dict(given)
    for word in (run.get("gpu_key"), description.get("gpu"), run.get("gpu_name")):
        if isinstance(word, str):
            try:
                return find_hardware(word)
            except InputError:
                continue
    return ANYWHERE


def check_possible(model: ModelFacts, settings: Settings, where: str, field: str = "length") -> None:
    """Raises InputError for settings that this model cannot run with."""
    problems = []
    if model.max_length is not None and settings.length > model.max_length:
        accepted = f"at most {model.max_length}, the longest sequence {model.name} was made for"
        problems.append(Problem(where, None, field, f"`{settings.length}`", accepted))
    if isinstance(settings.lora_targets, list) and settings.training == "lora" and model.certain:
        names = [linear.name for linear in model.linears()]
        if not model.reached(settings.lora_targets):
            problems.append(Problem(where, None, "lora_targets", quoted(settings.lora_targets), quoted(names)))
    if problems:
        raise InputError(problems)


def priced(
    model: ModelFacts, settings: Settings, hardware: Hardware, *, trace: bool, timeout: float = 120.0
) -> Estimate:
    """The best figures there are: the trace's where it is wanted and possible, else the arithmetic's."""
    if not trace or hardware.kind == "apple" or not traceable(settings) or not can_trace():
        return estimate(model, settings, hardware)
    result = Trace(model, settings, hardware.compute_capability).result(timeout)
    found = estimate(model, settings, hardware, result)
    if "error" in result:
        return replace(found, notes=(*found.notes, f"not traced: {result['error']}"))
    return found


def described(
    model: ModelFacts,
    settings: Settings,
    hardware: Hardware,
    found: Estimate,
    time: Duration | None = None,
    allowed: Any = None,
) -> dict[str, Any]:
    """The forecast as plain data."""
    judged = verdict(found, hardware.available_mib) if hardware.available_mib else None
    offered: list[dict[str, Any]] = []
    if judged in ("tight", "does not fit"):
        offered = remedies(model, settings, hardware, allowed) if allowed else remedies(model, settings, hardware)
    notes = list(found.notes)
    if settings.method in GROUPS and settings.batch_size * settings.accumulation % settings.group_size:
        notes.append(
            f"{settings.batch_size * settings.accumulation} completions a step are no multiple of the group of "
            f"{settings.group_size}"
        )
    return {
        "method": settings.method,
        "memory": found.to_json(),
        "time_s": (time or duration(model, settings, hardware)).to_json(),
        "storage": storage(model, settings),
        "available_mib": round(hardware.available_mib, 1) if hardware.available_mib else None,
        "verdict": judged,
        "remedies": offered,
        "notes": notes,
    }


def known_machines() -> list[str]:
    """Names that ``hardware`` accepts."""
    return sorted(machines())
