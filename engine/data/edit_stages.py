"""The data of the stages that train nothing: three disjoint prompt sets (abliteration), contrast pairs (steering)."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

from engine.data.enough import few_held_out
from engine.data.formats import Contrast, Form, Prompt, Question
from engine.data.prepare import Prepared, _normal, _prompt_key, _write, load_rows
from recipes.errors import InputError, Problem
from recipes.load import LoadedRecipe
from recipes.methods import cards
from recipes.resources import is_lab

PARTS = ("extraction", "search", "test")
KINDS = ("harmful", "harmless")
LEAST_TESTED = 400
"""Test prompts from which on a refusal rate under 5 % can be shown with some refusals left (11 of 400)."""
SEARCH_SHARE = 0.25
"""Share of a persona's prompts that vectors are compared on instead of being read off."""


def sources_of(loaded: LoadedRecipe, stage: Any) -> dict[str, str]:
    """Field -> the recipe's word for its file."""
    if stage.method == "abliteration":
        found = {f"{kind}.{part}": _prompt_source(loaded, stage, kind, part) for kind in KINDS for part in PARTS}
        return found | ({"judge": stage.judge} if stage.judge else {})
    found = {"general": _general_source(loaded, stage)}
    for name, persona in stage.personas.items():
        found |= {f"personas.{name}.data.source": persona.data.source, f"personas.{name}.judge": persona.judge}
        if persona.data.heldout:
            found[f"personas.{name}.data.heldout"] = persona.data.heldout
        if persona.search:
            found[f"personas.{name}.search"] = persona.search
        if persona.shown:
            found[f"personas.{name}.shown"] = persona.shown
    return found


def _prompt_source(loaded: LoadedRecipe, stage: Any, kind: str, part: str) -> str:
    named = getattr(getattr(stage, kind), part)
    if named:
        return named
    if is_lab(loaded.recipe.model):
        return f"lab/{'forbidden' if kind == 'harmful' else kind}-{part}.jsonl"
    return f"builtin/{kind}-{part}.jsonl"


def _general_source(loaded: LoadedRecipe, stage: Any) -> str:
    return stage.general or ("lab/general.jsonl" if is_lab(loaded.recipe.model) else "builtin/general.jsonl")


def prepare_edit_stage(loaded: LoadedRecipe, stage: Any, paths: dict[str, Path], into: Path) -> Prepared:
    """Write the stage's normalized rows under ``into``. Raises InputError, also for prompts in two sets at once."""
    if stage.method == "abliteration":
        return _prepare_abliteration(loaded, stage, paths, into)
    return _prepare_steering(loaded, stage, paths, into)


def _prompts(path: Path) -> list[Form]:
    rows = _normal(path, ("prompt", "question"), None)
    return [Prompt(row.prompt) if isinstance(row, Question) else row for row in rows]


def _prepare_abliteration(loaded: LoadedRecipe, stage: Any, paths: dict[str, Path], into: Path) -> Prepared:
    seen: dict[str, str] = {}
    sizes: dict[str, int] = {}
    for kind in KINDS:
        for part in PARTS:
            source = _prompt_source(loaded, stage, kind, part)
            rows = list({_prompt_key(row): row for row in _prompts(paths[source])}.values())
            shared = [seen[_prompt_key(row)] for row in rows if _prompt_key(row) in seen]
            if shared:
                found = f"{len(shared)} prompts that `{shared[0]}` has too"
                accepted = "disjoint sets: a prompt that was searched with proves nothing in the test"
                raise InputError([Problem(source, None, f"{kind}.{part}", found, accepted)])
            seen |= {_prompt_key(row): source for row in rows}
            sizes[f"{kind}.{part}"] = len(rows)
            _write(into / f"{kind}-{part}.jsonl", rows)
    if stage.judge:
        from engine.verify.refusal import load_forms

        load_forms(paths[stage.judge])
        shutil.copyfile(paths[stage.judge], into / "judge.yaml")
    prepared = Prepared(sizes["harmful.extraction"] + sizes["harmless.extraction"], sizes["harmful.test"])
    if sizes["harmful.test"] < LEAST_TESTED:
        prepared.warnings.append(
            f"{sizes['harmful.test']} test prompts: {LEAST_TESTED} or more are wanted to show a rate under 5 %"
        )
    return prepared


def _prepare_steering(loaded: LoadedRecipe, stage: Any, paths: dict[str, Path], into: Path) -> Prepared:
    prepared = Prepared(0, 0)
    general = _normal(paths[_general_source(loaded, stage)], ("prompt", "question", "conversation"), None)
    asked: set[str] = set()
    needs = cards()["steering"].data
    for name, persona in stage.personas.items():
        from engine.verify.judge import load_judge

        load_judge(paths[persona.judge])
        rows = _pairs(paths[persona.data.source], persona)[: persona.data.limit]
        heldout = _pairs(paths[persona.data.heldout], persona) if persona.data.heldout else None
        searching = _pairs(paths[persona.search], persona) if persona.search else None
        keys = _shuffled({_prompt_key(row) for row in rows}, loaded.recipe.seed)
        if heldout is None:
            out = set(keys[: max(1, round(len(keys) * persona.data.heldout_share))])
            heldout = [row for row in rows if _prompt_key(row) in out]
            keys = [key for key in keys if key not in out]
        _refuse_shared(keys, heldout, f"personas.{name}.data.heldout", persona.data.heldout, f"`{persona.data.source}`")
        if searching is not None:
            where = f"personas.{name}.search"
            _refuse_shared(keys, searching, where, persona.search, f"`{persona.data.source}`")
            tested = persona.data.heldout or persona.data.source
            _refuse_shared([_prompt_key(row) for row in heldout], searching, where, persona.search, f"`{tested}`")
            searched: set[str] = set()
        else:
            searched = set(keys[: max(1, round(len(keys) * SEARCH_SHARE))])
            searching = [row for row in rows if _prompt_key(row) in searched]
        asked |= {_prompt_key(row) for row in [*rows, *searching, *heldout]}
        extraction = [row for row in rows if _prompt_key(row) in set(keys) - searched]
        if not extraction or not heldout:
            found = f"{len(keys)} different prompts besides the held-out ones"
            accepted = "at least two, so that vectors are compared on others than they are read off"
            raise InputError([Problem(persona.data.source, None, f"personas.{name}.data", found, accepted)])
        folder = into / name
        _write(folder / "extraction.jsonl", extraction)
        _write(folder / "search.jsonl", searching)
        if persona.shown:
            shown = _prompts(paths[persona.shown])
            tested = [_prompt_key(row) for row in [*searching, *heldout]]
            _refuse_shared(tested, shown, f"personas.{name}.shown", persona.shown, "its search or held-out prompts")
            _write(folder / "shown.jsonl", shown)
        _write(folder / "heldout.jsonl", heldout)
        shutil.copyfile(paths[persona.judge], folder / "judge.yaml")
        prepared.rows, prepared.heldout = prepared.rows + len(extraction), prepared.heldout + len(heldout)
        if len(extraction) < needs.minimum:
            prepared.warnings.append(
                f"{name}: {len(extraction)} contrast pairs, fewer than the {needs.minimum} that steering needs at "
                f"least ({needs.recommended}+ recommended)"
            )
        prepared.warnings += [f"{name}: {warning}" for warning in few_held_out(len(heldout), "pairs")]
    beside = [Prompt(list(_turns(row))) for row in general]
    beside = [row for row in beside if _prompt_key(row) not in asked]  # what a persona is asked is not beside the point
    if not beside:
        accepted = "prompts that no persona is asked"
        raise InputError(
            [Problem(_general_source(loaded, stage), None, "general", "none but the personas' own", accepted)]
        )
    _write(into / "general.jsonl", beside)
    return prepared


def _turns(row: Any) -> list[dict[str, str]]:
    """The turns before the answer, whatever form the row has."""
    return row.prompt if isinstance(row, Prompt | Question) else row.messages[:-1]


def _pairs(path: Path, persona: Any) -> list[Form]:
    return _normal(path, ("contrast",), persona.data.columns)


def _shuffled(keys: set[str], seed: int) -> list[str]:
    ordered = sorted(keys)
    random.Random(seed).shuffle(ordered)
    return ordered


def _refuse_shared(keys: list[str], rows: list[Form], field: str, source: str | None, other: str) -> None:
    """Of extraction, search and test no two may share a prompt."""
    shared = {_prompt_key(row) for row in rows} & set(keys)
    if shared:
        found = f"{len(shared)} prompts that are in {other} too, such as {json.loads(min(shared))}"
        accepted = "prompts of its own: what a vector is read off or chosen by proves nothing in the test"
        raise InputError([Problem(str(source), None, field, found, accepted)])


# ---- reading back ----------------------------------------------------------------------------------------------------


def load_prompts(path: Path) -> list[list[dict[str, str]]]:
    return [list(row.prompt) for row in load_rows(path) if isinstance(row, Prompt)]


def load_contrasts(path: Path) -> list[Contrast]:
    return [row for row in load_rows(path) if isinstance(row, Contrast)]
