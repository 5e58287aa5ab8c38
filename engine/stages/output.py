"""What a finished stage hands on, written whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.evaluate.gates import GateResult
from engine.models.lineage import Adapter, Base, Lineage, hash_files, write_lineage
from engine.runs.files import sync_folder, sync_tree
from engine.stages.context import StageContext

RESULT = "result.json"


def seal_output(
    context: StageContext,
    policy: Any | None,
    results: Sequence[GateResult],
    passed: bool,
    confidence: dict[str, Any] | None = None,
) -> None:
    """Write adapter (or model), lineage and result into a temporary folder, sync it, and rename it to ``output``.

    Without a policy the stage hands on the weights that it was given; ``confidence`` replaces the lineage's settings.
    """

    def write(draft: Path) -> Lineage:
        lineage = context.lineage
        if policy is not None:
            context.backend.save_output(policy, draft)
            lineage = _handed_on(context, draft)
        return replace(lineage, confidence=confidence) if confidence else lineage

    seal(context, write, results, passed)


def seal(context: StageContext, write: Callable[[Path], Lineage], results: Sequence[GateResult], passed: bool) -> None:
    """Have ``write`` fill a temporary folder and say the lineage; sync it, and rename it to ``output``."""
    draft = context.output.with_name("output.draft")
    if draft.exists():
        shutil.rmtree(draft)
    draft.mkdir(parents=True)
    write_lineage(draft / "lineage.json", write(draft))
    (draft / RESULT).write_text(
        json.dumps({"passed": passed, "failed": [result.name for result in results if not result.passed]})
    )
    sync_tree(draft)
    draft.rename(context.output)
    sync_folder(context.output.parent)


def sealed_result(context: StageContext) -> dict[str, Any] | None:
    """The result of a stage that already finished, else None."""
    try:
        return json.loads((context.output / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _handed_on(context: StageContext, draft: Any) -> Lineage:
    before = context.lineage
    home = context.output.relative_to(context.run.path)
    if (draft / "adapter").is_dir():
        hashes = hash_files(draft / "adapter")
        adapter = Adapter(path=str(home / "adapter"), sha256=hashes["adapter_model.safetensors"])
        return Lineage(before.base, adapter, before.edits, before.vectors, before.confidence)
    base = Base(
        id=f"{before.base.id} + {context.method}",
        path=str(home / "model"),
        revision=before.base.revision,
        files=hash_files(draft / "model"),
    )
    return Lineage(base, None, before.edits, before.vectors, before.confidence)
