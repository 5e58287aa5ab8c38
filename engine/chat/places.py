"""Which lineage of a run a word names: ``base``, a stage by its number or method, or the newest that is finished."""

from __future__ import annotations

from dataclasses import dataclass

from engine.backends import installed
from engine.models.lineage import Lineage, lineage_in, read_lineage
from engine.runs.directory import RunDirectory
from recipes.errors import InputError, Problem, nearest_word, quoted
from recipes.load import load_recipe

BASE = "base"


@dataclass(frozen=True)
class Place:
    """``word`` finds it again; ``label`` is shown."""

    word: str
    label: str
    lineage: Lineage


def methods_of(run: RunDirectory) -> list[str]:
    return [stage.method for stage in load_recipe(str(run.recipe)).recipe.stages]


def places(run: RunDirectory) -> list[str]:
    """Words of everything in the run that can be talked with now: the base, then the finished stages by number."""
    finished = [str(index + 1) for index in range(len(methods_of(run))) if _sealed(run, index)]
    return ([BASE] if run.model.is_file() else []) + finished


def find_place(run: RunDirectory, word: str | None, option: str = "--stage") -> Place:
    """Raises InputError for a word that names no stage, and for a stage that has no output (yet)."""
    methods = methods_of(run)
    known = places(run)
    if word is None:
        if not known or known[-1] == BASE:
            accepted = "a finished stage; `finetune-tui attach` watches it, `--stage base` talks with the base" if known else (
                "a run that has its model; `finetune-tui resume` carries on with it"
            )  # fmt: skip
            raise InputError([Problem(run.id, None, option, "no stage that is finished", accepted)])
        word = known[-1]
    if word in (BASE, "0"):
        if not run.model.is_file():
            accepted = "a run that has its model; `finetune-tui resume` carries on with it"
            raise InputError([Problem(run.id, None, option, "a run without its base model yet", accepted)])
        lineage = lineage_in(run, 0)
        return Place(BASE, f"{BASE} ({lineage.base.id})", lineage)
    index = _index(run, word, methods, option)
    if not _sealed(run, index):
        found = f"stage {index + 1} ({methods[index]}), which has no output yet"
        raise InputError([Problem(run.id, None, option, found, quoted(known) if known else "nothing yet")])
    label = f"{index + 1} {methods[index]}"
    return Place(str(index + 1), label, read_lineage(run.output_folder(index) / "lineage.json"))


def backend_of(run: RunDirectory, place: Place) -> str:
    """The backend that talks: the one that the stage ran on."""
    recipe = load_recipe(str(run.recipe)).recipe
    own = None if place.word == BASE else recipe.stages[int(place.word) - 1].backend
    return installed(own or recipe.backend)


def _index(run: RunDirectory, word: str, methods: list[str], option: str) -> int:
    if word.isdigit() and 1 <= int(word) <= len(methods):
        return int(word) - 1
    if word in methods:
        return len(methods) - 1 - methods[::-1].index(word)
    words = [BASE, *map(str, range(1, len(methods) + 1)), *methods]
    raise InputError(
        [Problem(run.id, None, option, f"`{word}`", quoted(dict.fromkeys(words)), nearest_word(word, words))]
    )


def _sealed(run: RunDirectory, index: int) -> bool:
    return (run.output_folder(index) / "lineage.json").is_file()
