"""From the sources a recipe names to the rows a run trains on, checked and split once and kept in the run directory."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.data.enough import few_for_ece, few_for_retention, few_held_out
from engine.data.formats import (
    FORMS,
    Conversation,
    Form,
    Preference,
    Prompt,
    Question,
    convert,
    detect,
    renamed,
    to_json,
)
from engine.data.rows import data_files, read_rows
from engine.data.verifiable import check_stage
from engine.data.verifier_files import keep_files, kept_spec, named_files
from engine.data.worked import KIND as WITH_STEPS
from engine.data.worked import says_steps, unknown_words, with_steps
from engine.verify.references import own_answer
from recipes.errors import InputError, Problem
from recipes.load import LoadedRecipe
from recipes.methods import cards
from recipes.resources import is_lab, resolve_source
from recipes.schema import EditStage

TRAINING_FORMS = {
    "conversations": ("conversation", "question"),
    "preference pairs": ("preference",),
    "prompts with answers": ("question",),
    "prompts with answers and steps": ("question",),
    "questions with answers": ("question",),
}
"""The kind of data on a method's card -> forms that its rows may have."""
GENERAL = ("replay", "anchors")
"""Fields of a stage that name general data beside its own."""


@dataclass
class Prepared:
    """What was found while preparing one stage's data."""

    rows: int
    heldout: int
    gap: float | None = None
    """Mean difference of the scores, scaled to 0..1; None when the dataset has none."""
    warnings: list[str] = field(default_factory=list)


def source_words(loaded: LoadedRecipe) -> list[tuple[str, str]]:
    """Every field that names data, with the recipe's word."""
    recipe = loaded.recipe
    wanted: list[tuple[str, str]] = [("suite", suite_source(loaded))]
    for index, stage in enumerate(recipe.stages):
        if isinstance(stage, EditStage):
            from engine.data.edit_stages import sources_of

            wanted += [(f"stages.{index}.{name}", source) for name, source in sources_of(loaded, stage).items()]
            continue
        wanted.append((f"stages.{index}.data.source", stage.data.source))
        if stage.data.heldout:
            wanted.append((f"stages.{index}.data.heldout", stage.data.heldout))
        if getattr(stage, "judge", None):
            wanted.append((f"stages.{index}.judge", stage.judge))
        if verifier := getattr(stage, "verifier", None):
            wanted += [(f"stages.{index}.verifier.{field}", path) for field, path in named_files(verifier.model_dump())]
        for name in GENERAL:
            if general := general_source(loaded, stage, name):
                wanted.append((f"stages.{index}.{name}.source", general))
    return wanted


def source_paths(loaded: LoadedRecipe) -> dict[str, Path]:
    """Every file or directory that the recipe's data come from, by the words that the recipe uses for it."""
    problems: list[Problem] = []
    paths: dict[str, Path] = {}
    for field_name, source in source_words(loaded):
        try:
            paths[source] = resolve_source(source, loaded.folder, str(loaded.path or "recipe"), field_name)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(problems)
    return paths


def suite_source(loaded: LoadedRecipe) -> str:
    default = "lab/suite.jsonl" if is_lab(loaded.recipe.model) else "builtin/suite.jsonl"
    return loaded.recipe.suite or default


def general_source(loaded: LoadedRecipe, stage: Any, name: str) -> str | None:
    """Where the general rows of a stage's ``replay`` or ``anchors`` come from; None if it has none."""
    settings = getattr(stage, name, None)
    if settings is None or not settings.share:
        return None
    default = "lab/general.jsonl" if is_lab(loaded.recipe.model) else "builtin/general.jsonl"
    return settings.source or default


def hash_sources(loaded: LoadedRecipe) -> dict[str, str]:
    """sha256 of every source's content, by the words that the recipe uses for it."""
    hashes = {}
    for source, path in source_paths(loaded).items():
        digest = hashlib.sha256()
        for file in data_files(path) if path.is_dir() else [path]:
            digest.update(file.name.encode() + b"\0" + file.read_bytes())
        hashes[source] = digest.hexdigest()
    return hashes


def prepare(loaded: LoadedRecipe, index: int, into: Path) -> Prepared:
    """Write the normalized rows of stage ``index`` under ``into`` and say what was found. Raises InputError."""
    stage = loaded.recipe.stages[index]
    paths = source_paths(loaded)
    prepared = _prepared(loaded, index, paths, into)
    tasks = Counter(str(row.get("task")) for _, _, row in read_rows(paths[suite_source(loaded)]))
    prepared.warnings += few_for_retention(_gates(stage), tasks, stage.evaluation.suite_n)
    return prepared


def _prepared(loaded: LoadedRecipe, index: int, paths: dict[str, Path], into: Path) -> Prepared:
    stage = loaded.recipe.stages[index]
    if isinstance(stage, EditStage):
        from engine.data.edit_stages import prepare_edit_stage

        return prepare_edit_stage(loaded, stage, paths, into)
    prepared = Prepared(0, 0)
    rows = _without_useless(_rows_of(stage, paths[stage.data.source])[: stage.data.limit], prepared)
    prepared.warnings += _unknown_steps(stage, stage.data.source, rows)
    if stage.data.heldout:
        heldout = _rows_of(stage, paths[stage.data.heldout])
        prepared.warnings += _unknown_steps(stage, stage.data.heldout, heldout)
        _refuse_overlap(rows, heldout, stage)
    else:
        rows, heldout = _split(rows, stage, loaded.recipe.seed)
    prepared.rows, prepared.heldout = len(rows), len(heldout)
    _judge_amount(stage, rows, heldout, prepared)
    if stage.method == "sft":
        rows = [_as_conversation(row) for row in rows]
    for name in GENERAL:
        if general := general_source(loaded, stage, name):
            _write(into / f"{name}.jsonl", _normal(paths[general], ("prompt", "conversation", "question"), None))
    if getattr(stage, "judge", None):
        from engine.verify.judge import load_judge

        load_judge(paths[stage.judge])
        into.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(paths[stage.judge], into / "judge.yaml")
    _write(into / "train.jsonl", rows)
    _write(into / "heldout.jsonl", heldout)
    if verifier := getattr(stage, "verifier", None):
        spec = verifier.model_dump()
        keep_files(spec, paths, into)
        where = str(loaded.path or "recipe")
        prepared.warnings += check_stage(stage, index, loaded.recipe.on_gate_fail, where, into, kept_spec(spec))
    return prepared


def prepare_suite(loaded: LoadedRecipe, into: Path) -> int:
    """Copy the capability suite's rows into the run; returns their number."""
    path = source_paths(loaded)[suite_source(loaded)]
    lines = []
    for file, line, row in read_rows(path):
        if not all(isinstance(row.get(name), str) and row[name] for name in ("task", "prompt", "answer")):
            raise InputError([Problem(file, line, None, ", ".join(row), "`task`, `prompt` and `answer`, each text")])
        lines.append(json.dumps({name: row[name] for name in ("task", "prompt", "answer")}, ensure_ascii=False))
    into.parent.mkdir(parents=True, exist_ok=True)
    into.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return len(lines)


# ---- checks ------------------------------------------------------------------------------------------------------------


def _rows_of(stage: Any, path: Path) -> list[Form]:
    """The rows of a training stage's file, in the forms that its method uses."""
    kind = cards()[stage.method].data.kind
    algebra = kind == WITH_STEPS and getattr(stage.verifier, "algebra", False)
    return _normal(
        path, TRAINING_FORMS[kind], stage.data.columns, kind == "questions with answers", kind == WITH_STEPS, algebra
    )


def _normal(
    path: Path,
    wanted: tuple[str, ...],
    columns: dict[str, str] | None,
    unanswerable: bool = False,
    stepwise: bool = False,
    algebra: bool = False,
) -> list[Form]:
    """All rows in their normal form; ``unanswerable``: questions without an answer are welcome; ``stepwise``: what a row
    says of steps goes into the reference of its answer, ``algebra`` with unknowns in them."""
    rows: list[Form] = []
    layout = None
    for file, line, row in read_rows(path):
        if layout is None:
            layout = detect(row, wanted, file, line, columns)
        form = convert(row, layout, file, line, columns)
        if isinstance(form, Question) and form.answer is None and not unanswerable:
            raise InputError([Problem(file, line, "answer", "null", "an answer: this method learns from right ones")])
        if stepwise and isinstance(form, Question):
            form = with_steps(form, renamed(row, columns, file, line), file, line, algebra)
        rows.append(form)
    return rows


def _without_useless(rows: list[Form], prepared: Prepared) -> list[Form]:
    """Exact duplicates and pairs whose two sides are the same teach nothing; they are left out and counted."""
    telling = [r for r in rows if not (isinstance(r, Preference) and r.chosen.strip() == r.rejected.strip())]
    if len(telling) < len(rows):
        same = len(rows) - len(telling)
        prepared.warnings.append(f"{same} pairs have the same text as chosen and rejected and are left out")
    rows = telling
    first: dict[str, Form] = {}
    for row in rows:
        first.setdefault(json.dumps(to_json(_own(row)), sort_keys=True), row)
    kept = list(first.values())
    if len(kept) < len(rows):
        prepared.warnings.append(f"{len(rows) - len(kept)} rows occur more than once and are used once")
    return kept


def _own(row: Form) -> Form:
    """The row without what its columns added to its answer: a question is the same however it is worked."""
    if isinstance(row, Question) and row.answer is not None:
        return replace(row, answer=own_answer(row.answer))
    return row


def _unknown_steps(stage: Any, source: str, rows: Sequence[Form]) -> list[str]:
    """A custom step verifier may know the number itself: it is asked when it is tried (verifiable.py)."""
    if cards()[stage.method].data.kind != WITH_STEPS or stage.verifier.kind != "steps":
        return []
    unknown = sum(isinstance(row, Question) and not says_steps(row) for row in rows)
    return [f"`{source}`: {unknown_words(unknown, len(rows))}"] if unknown else []


def _refuse_overlap(rows: Sequence[Form], heldout: Sequence[Form], stage: Any) -> None:
    """Held-out rows that are trained on would make every gate a lie."""
    trained = {_key(row) for row in rows}
    shared = [number for number, row in enumerate(heldout, start=1) if _key(row) in trained]
    if shared:
        shown = ", ".join(map(str, shared[:5])) + (" …" if len(shared) > 5 else "")
        found = f"{len(shared)} of {len(heldout)} rows that are in `{stage.data.source}` too (row {shown})"
        raise InputError([Problem(str(stage.data.heldout), None, "heldout", found, "rows that are not trained on")])


def _split(rows: list[Form], stage: Any, seed: int) -> tuple[list[Form], list[Form]]:
    """Split off whole prompts, so that no prompt is on both sides."""
    prompts = sorted({_prompt_key(row) for row in rows})
    random.Random(seed).shuffle(prompts)
    wanted = max(1, round(len(prompts) * stage.data.heldout_share))
    out = set(prompts[:wanted])
    train, heldout = [row for row in rows if _prompt_key(row) not in out], [r for r in rows if _prompt_key(r) in out]
    if not train or not heldout:
        found = f"{len(prompts)} different prompts"
        raise InputError([Problem(stage.data.source, None, "heldout", found, "at least two, or a `heldout` file")])
    return train, heldout


def _judge_amount(stage: Any, rows: Sequence[Form], heldout: Sequence[Form], prepared: Prepared) -> None:
    needs = cards()[stage.method].data
    if len(rows) < needs.minimum:
        prepared.warnings.append(
            f"{len(rows)} training rows, fewer than the {needs.minimum} that {stage.method} needs at least "
            f"({needs.recommended}+ recommended)"
        )
    prepared.warnings += few_held_out(len(heldout))
    answerable = sum(not (isinstance(row, Question) and row.answer is None) for row in heldout)
    prepared.warnings += few_for_ece(stage.method, _gates(stage), len(heldout), answerable)
    scored = [
        (row.score_chosen, row.score_rejected)
        for row in rows
        if isinstance(row, Preference) and row.score_chosen is not None and row.score_rejected is not None
    ]
    if rows and isinstance(rows[0], Preference):
        if not scored:
            prepared.warnings.append("no scores in the data: its preference gap is unknown (0.15 or more is wanted)")
            return
        low, high = min(min(pair) for pair in scored), max(max(pair) for pair in scored)
        prepared.gap = sum(good - bad for good, bad in scored) / len(scored) / ((high - low) or 1.0)
        if prepared.gap < 0.15:
            prepared.warnings.append(f"the data's preference gap is {prepared.gap:.2f}; 0.15 or more is wanted")


def _gates(stage: Any) -> list[str]:
    return [name for name, gate in stage.gates.items() if gate is not None]


def _as_conversation(row: Form) -> Form:
    if isinstance(row, Question) and row.answer is not None:
        return Conversation([*row.prompt, {"role": "assistant", "content": row.answer}])
    return row


def _key(row: Form) -> str:
    """What makes two rows the same for a leak: prompt and completion, whatever form they have."""
    if isinstance(row, Conversation):
        turns = [message["content"].strip().rstrip(".") for message in row.messages]
    elif isinstance(row, Question):
        turns = [
            *(message["content"].strip().rstrip(".") for message in row.prompt),
            own_answer(row.answer or "").strip().rstrip("."),
        ]
    else:
        return json.dumps(to_json(row), sort_keys=True)
    return json.dumps(turns)


def _prompt_key(row: Form) -> str:
    if isinstance(row, Conversation):
        return json.dumps([message["content"] for message in row.messages if message["role"] != "assistant"])
    return json.dumps([message["content"] for message in row.prompt])


# ---- reading back --------------------------------------------------------------------------------------------------------


def _write(path: Path, rows: Sequence[Form]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = {form: name for name, form in FORMS.items()}
    lines = [json.dumps({"form": names[type(row)], **to_json(row)}, ensure_ascii=False) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def load_rows(path: Path) -> list[Form]:
    """The normalized rows that ``prepare`` wrote; none if the file is not there."""
    if not path.is_file():
        return []
    items = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [FORMS[item.pop("form")](**item) for item in items]


def load_heldout(folder: Path) -> list[Form]:
    return load_rows(folder / "heldout.jsonl")


def load_conversations(path: Path) -> list[Conversation]:
    return [row for row in load_rows(path) if isinstance(row, Conversation)]


def load_preferences(path: Path) -> list[Preference]:
    return [row for row in load_rows(path) if isinstance(row, Preference)]


def load_general(folder: Path, name: str) -> list[Form]:
    """The general rows of ``replay`` or ``anchors``: conversations as they are, of the others the prompts."""
    rows = load_rows(folder / f"{name}.jsonl")
    return [Prompt(row.prompt) if isinstance(row, Question) else row for row in rows]
