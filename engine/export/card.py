"""The model card: one page that a person can publish, README.md of every export."""

from __future__ import annotations

import json
import math

from engine.account import clock, duration, forecast_words, gate_table, metric_table, sample_words
from engine.export.comparison import Comparison
from engine.export.plan import Plan
from engine.export.source import Source
from engine.runs.state import StageState


def card(source: Source, plan: Plan, comparison: Comparison, command: str, files: dict[str, int]) -> str:
    """Markdown with the hub's front matter. ``files``: name -> bytes."""
    stages = source.state.stages[: source.stage + 1]
    parts = [
        _front_matter(source, plan),
        f"# {source.state.name}",
        f"`{source.lineage.base.id}` after {_chain(stages)}, as {plan.form.name}{f' ({plan.type})' if plan.type else ''}: "
        f"{plan.form.purpose}. Made with finetune-tui.",
        *(f"Note: {note}." for note in plan.notes),
        "## How to use it\n\n```\n" + _next(source, plan) + "\n```",
        "## What it is made of\n\n" + _lineage(source, plan),
        *(_stage(stage, source) for stage in stages),
        "## Limits\n\n" + _limits(source, stages),
        "## Checked\n\nLoaded again and compared with the run before it was handed out: " + comparison.words() + ".",
        "## Recipe\n\n```yaml\n" + source.run.recipe.read_text(encoding="utf-8").strip() + "\n```",
        "## The same again\n\nSave the recipe as `recipe.yaml` beside its data, then:\n\n```\n"
        f"finetune-tui run recipe.yaml\n{command}\n```\n\n" + _versions(source),
        "## Files\n\n" + "\n".join(f"- `{name}`, {size:,} bytes" for name, size in sorted(files.items())),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(source: Source, plan: Plan) -> str:
    lines = ["---"]
    base = source.lineage.base.id
    if base.count("/") == 1 and not base.startswith((".", "/", "~")):
        lines.append(f"base_model: {base}")
    library = {"adapter": "peft", "gguf": "gguf", "ollama": "gguf", "mlx": "mlx", "mlx-adapter": "mlx"}
    lines.append(f"library_name: {library.get(plan.form.name, 'transformers')}")
    lines.append("pipeline_tag: text-generation")
    lines.append("tags:")
    lines += [f"- {tag}" for tag in ["finetune-tui", *dict.fromkeys(stage.method for stage in source.state.stages)]]
    return "\n".join([*lines, "---"])


def _chain(stages: list[StageState]) -> str:
    return ", then ".join(stage.method.replace("_", " ") for stage in stages)


def _next(source: Source, plan: Plan) -> str:
    return plan.form.next.format(path=".", base=source.lineage.base.id, name=source.state.name)


def _lineage(source: Source, plan: Plan) -> str:
    lineage = source.lineage
    revision = f", revision {lineage.base.revision}" if lineage.base.revision else ""
    lines = [f"- Base `{lineage.base.id}`{revision}, never modified. sha256 of its files:"]
    lines += [f"  - `{name}` {digest}" for name, digest in lineage.base.files.items()]
    if lineage.adapter:
        lines.append(f"- LoRA adapter, sha256 {lineage.adapter.sha256}")
    for edit in lineage.edits:
        lines.append(
            f"- Edit by {edit['method']} on the outputs of {len(edit['modules'])} modules, strength {edit['strength']:g}, "
            f"sha256 {edit['sha256']}"
        )
    for vector in lineage.vectors:
        where = f"after layer {vector['layer']}, dial {vector['strength']:g}"
        left_out = "" if plan.form.vectors else " (not in this export)"
        lines.append(f"- Steering vector `{vector['name']}` {where}, sha256 {vector['sha256']}{left_out}")
    if lineage.confidence:
        lines.append(f"- Confidence settings: `{json.dumps(lineage.confidence)}`")
    data = json.loads(source.run.sources.read_text(encoding="utf-8"))["sha256"] if source.run.sources.is_file() else {}
    lines += [f"- Data `{name}`, sha256 {digest}" for name, digest in data.items()]
    return "\n".join(lines)


def _stage(stage: StageState, source: Source) -> str:
    parts = [f"## Stage {stage.index + 1}: {stage.method.replace('_', ' ')}"]
    took = f", {duration(stage.ended - stage.started)}" if stage.started and stage.ended else ""
    parts.append(f"{stage.steps_done} of {stage.steps_total} steps{took}, finished {clock(stage.ended)}.")
    parts += [gate_table(stage), metric_table(stage, frozenset(stage.gates))]
    parts += [forecast_words(source.state, stage), sample_words(stage)]
    return "\n\n".join(part for part in parts if part)


def _limits(source: Source, stages: list[StageState]) -> str:
    lines = ["- Everything above was measured on the recipe's own held-out data; elsewhere it may do worse."]
    failed = [
        f"{gate.name} (stage {stage.index + 1})" for stage in stages for gate in stage.gates.values() if not gate.passed
    ]
    if failed:
        lines.append(f"- Gates that failed: {', '.join(failed)}.")
    kept = [
        (stage.index + 1, stage.latest("retention_worst"))
        for stage in stages
        if stage.latest("retention_worst") is not None
    ]
    for number, measured in kept:
        if measured is not None and math.isfinite(float(measured.value)) and float(measured.value) < 0.95:
            lines.append(
                f"- Stage {number} keeps {float(measured.value):.0%} of the worst task of the capability suite."
            )
    if any(stage.method == "abliteration" for stage in stages):
        lines.append(
            "- A safeguard was taken out: it complies where its base refuses. Who runs it answers for its use."
        )
    lines.append("- It has the limits, biases and licence of its base.")
    return "\n".join(lines)


def _versions(source: Source) -> str:
    versions = source.state.detail.get("versions", {})
    words = ", ".join(f"{name} {number}" for name, number in versions.items())
    return (
        f"Seed and settings are in the recipe. Versions: {words}. Machine: {source.state.detail.get('machine', '?')}."
    )
