"""Read a recipe: safe YAML with line numbers, overrides, defaults from the cards, every problem at once."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from recipes.errors import InputError, Problem, nearest_word, quoted
from recipes.explain import explain
from recipes.generation import generation_conflicts
from recipes.kernels import kernel_conflicts
from recipes.methods import cards, stage_types
from recipes.mlx import mlx_lacks
from recipes.schema import Adapter, Gate, Recipe
from recipes.schema import Stage as TrainingStage

LARGEST = 256 * 1024
MOST_ALIASES = 50
MOST_NODES = 20_000


@dataclass(frozen=True)
class LoadedRecipe:
    """``folder`` is where relative paths of the recipe start; ``text`` is the recipe as written."""

    recipe: Recipe
    path: Path | None
    folder: Path
    text: str


def library() -> dict[str, Path]:
    """Name -> file of the built-in recipes."""
    return {path.stem: path for path in sorted((Path(__file__).parent / "library").glob("*.yaml"))}


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> LoadedRecipe:
    """A recipe by library name or path, with ``key=value`` overrides applied. Raises InputError with all problems."""
    path = _find(name_or_path)
    text = _read(path)
    return LoadedRecipe(_parsed(text, str(path), overrides), path, path.resolve().parent, text)


def parse_recipe(text: str, folder: Path, where: str = "recipe") -> LoadedRecipe:
    """A recipe that is being written and lies in no file yet. Raises InputError with all problems."""
    return LoadedRecipe(_parsed(text, where, ()), None, folder, text)


def _parsed(text: str, where: str, overrides: Sequence[str]) -> Recipe:
    tree = Lines(where)
    raw = tree.parse(text)
    if not isinstance(raw, dict):
        found = "nothing" if raw is None else f"a {type(raw).__name__}"
        raise InputError([Problem(where, 1, None, found, "a mapping with `name`, `model` and `stages`")])
    for override in overrides:
        _override(raw, override)
    return validate(raw, where, tree.lines)


def validate(raw: dict[str, Any], where: str, lines: dict[tuple[str | int, ...], int]) -> Recipe:
    """Check plain data against the schema; ``lines`` maps field paths to lines of the file."""
    problems: list[Problem] = []
    raw = copy.deepcopy(raw)
    written = raw.get("stages")
    stages: list[Any] = []
    adapter: Adapter | None = None
    for index, item in enumerate(written if isinstance(written, list) else []):
        stage = _stage(item, index, where, lines, problems)
        if stage is None:
            continue
        stage, adapter = _carry_adapter(stage, adapter, index, where, lines, problems)
        stages.append(stage)
    problems += _training_after_steering(stages, where, lines)
    try:
        recipe = Recipe(**{key: value for key, value in raw.items() if isinstance(key, str)})
        strangers = [key for key in raw if not isinstance(key, str)]
        problems += [Problem(where, None, str(key), "a field name that is no text", "text") for key in strangers]
    except ValidationError as error:
        problems += explain(error, Recipe, where, lines, ())
        raise InputError(_in_order(problems)) from None
    problems += mlx_lacks(stages, recipe.backend, recipe.processes, where, lines, recipe.attention, recipe.fixed_order)
    problems += kernel_conflicts(stages, recipe.attention, where, lines)
    problems += generation_conflicts(stages, recipe.backend, recipe.quantization, where, lines)
    if problems:
        raise InputError(_in_order(problems))
    return recipe.model_copy(update={"stages": stages})


def dump_recipe(recipe: Recipe) -> str:
    """The recipe with every default written out, as YAML that loads to the same recipe."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)


def _in_order(problems: list[Problem]) -> list[Problem]:
    return sorted(problems, key=lambda problem: problem.line or 0)


# ---- stages ------------------------------------------------------------------------------------------------------------


def _stage(
    item: Any, index: int, where: str, lines: dict[tuple[str | int, ...], int], problems: list[Problem]
) -> Any | None:
    here: tuple[str | int, ...] = ("stages", index)
    types = stage_types()
    line = lines.get(here)
    if not isinstance(item, dict) or "method" not in item:
        found = quoted(item) if isinstance(item, dict) else f"a {type(item).__name__}"
        problems.append(Problem(where, line, f"stages.{index}", found, f"a mapping with `method` ({quoted(types)})"))
        return None
    method = item["method"]
    if method not in types:
        line = lines.get((*here, "method"), line)
        near = nearest_word(str(method), types)
        problems.append(Problem(where, line, f"stages.{index}.method", f"`{method}`", quoted(types), near))
        return None
    try:
        stage = types[method](**{str(key): value for key, value in item.items()})
    except ValidationError as error:
        problems += explain(error, types[method], where, lines, here)
        return None
    return _with_gates(stage, where, lines, here, problems)


def _with_gates(
    stage: Any,
    where: str,
    lines: dict[tuple[str | int, ...], int],
    here: tuple[str | int, ...],
    problems: list[Problem],
) -> Any:
    """The card's default gates under the recipe's own."""
    specs = cards()[stage.method].gates
    for name in stage.gates:
        if name not in specs:
            line = lines.get((*here, "gates", name))
            field = f"{here[0]}.{here[1]}.gates.{name}"
            problems.append(Problem(where, line, field, f"`{name}`", quoted(specs), nearest_word(name, specs)))
    defaults = {name: Gate(min=spec.minimum, max=spec.maximum) for name, spec in specs.items() if spec.default}
    return stage.model_copy(update={"gates": {**defaults, **stage.gates}})


def _carry_adapter(
    stage: Any,
    adapter: Adapter | None,
    index: int,
    where: str,
    lines: dict[tuple[str | int, ...], int],
    problems: list[Problem],
) -> tuple[Any, Adapter | None]:
    """One adapter goes through all training stages: the first fixes rank and targets, later ones inherit."""
    if not isinstance(stage, TrainingStage):  # trains nothing: the adapter passes through
        return stage, adapter
    if stage.training != "lora":
        return stage.model_copy(update={"adapter": stage.adapter or Adapter()}), None
    if adapter is None:
        adapter = stage.adapter or Adapter()
    elif stage.adapter is not None:
        for field in ("rank", "targets"):
            mine, fixed = getattr(stage.adapter, field), getattr(adapter, field)
            if mine != fixed:
                line = lines.get(("stages", index, "adapter", field), lines.get(("stages", index, "adapter")))
                accepted = f"`{fixed}`, which an earlier stage fixed for the one adapter of the run (or leave it out)"
                problems.append(Problem(where, line, f"stages.{index}.adapter.{field}", f"`{mine}`", accepted))
    return stage.model_copy(update={"adapter": stage.adapter or adapter}), adapter


def _training_after_steering(stages: list[Any], where: str, lines: dict[tuple[str | int, ...], int]) -> list[Problem]:
    """Vectors are read off the weights they steer: training after them would leave them pointing elsewhere."""
    steered = next((index for index, stage in enumerate(stages) if stage.method == "steering"), len(stages))
    accepted = f"training and abliteration before the steering of stage {steered + 1}, more steering after it"
    return [
        Problem(where, lines.get(("stages", index, "method")), f"stages.{index}.method", f"`{stage.method}`", accepted)
        for index, stage in enumerate(stages)
        if index > steered and stage.method != "steering"
    ]


# ---- text --------------------------------------------------------------------------------------------------------------


def _find(name_or_path: str) -> Path:
    names = library()
    if name_or_path in names:
        return names[name_or_path]
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return path
    beside = [entry.name for entry in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    found = f"`{name_or_path}`, " + (
        "a directory" if path.is_dir() else "which is neither a file nor a built-in recipe"
    )
    near = nearest_word(name_or_path, [*names, *beside])
    raise InputError([Problem("recipe", None, None, found, f"a YAML file or one of {quoted(names)}", near)])


def _read(path: Path) -> str:
    size = path.stat().st_size
    if size > LARGEST:
        raise InputError([Problem(str(path), None, None, f"{size} bytes", f"a recipe of at most {LARGEST} bytes")])
    data = path.read_bytes()
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(
            [Problem(str(path), line, None, f"a byte that is not UTF-8 ({error})", "UTF-8 text")]
        ) from None


class Lines:
    """Parses YAML to plain data and remembers the line of every field. Aliases are limited and keys must differ."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.lines: dict[tuple[str | int, ...], int] = {}
        self._nodes = 0

    def parse(self, text: str) -> Any:
        loader = yaml.SafeLoader(text)
        try:
            aliases = sum(isinstance(token, yaml.AliasToken) for token in yaml.scan(text, Loader=yaml.SafeLoader))
            if aliases > MOST_ALIASES:
                raise InputError([Problem(self.where, None, None, f"{aliases} aliases", f"at most {MOST_ALIASES}")])
            node = loader.get_single_node()
            return None if node is None else self._value(loader, node, ())
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = mark.line + 1 if mark else None
            what = " ".join(str(getattr(error, "problem", None) or error).split())
            shown = (
                f" in {text.splitlines()[mark.line].strip()!r}" if mark and mark.line < len(text.splitlines()) else ""
            )
            accepted = "YAML with plain values, indented by spaces"
            raise InputError([Problem(self.where, line, None, f"{what}{shown}", accepted)]) from None
        finally:
            loader.dispose()

    def _value(self, loader: yaml.SafeLoader, node: yaml.Node, path: tuple[str | int, ...]) -> Any:
        self._nodes += 1
        if self._nodes > MOST_NODES or len(path) > 32:
            found = "more values than a recipe can have (aliases that multiply?)"
            raise InputError(
                [Problem(self.where, node.start_mark.line + 1, None, found, f"at most {MOST_NODES} values")]
            )
        self.lines.setdefault(path, node.start_mark.line + 1)
        if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
            raise InputError(
                [Problem(self.where, node.start_mark.line + 1, None, f"the tag {node.tag}", "plain values")]
            )
        if isinstance(node, yaml.SequenceNode):
            return [self._value(loader, item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(loader, node, path)
        return loader.construct_object(node)

    def _mapping(self, loader: yaml.SafeLoader, node: yaml.MappingNode, path: tuple[str | int, ...]) -> dict[Any, Any]:
        result: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                raise InputError([Problem(self.where, line, None, "a field name that is no text", "text")])
            key = loader.construct_object(key_node)
            if key in result:
                raise InputError([Problem(self.where, line, str(key), "the same field twice", "each field once")])
            self.lines[(*path, key)] = line
            result[key] = self._value(loader, value_node, (*path, key))
        return result


def _override(raw: dict[str, Any], text: str) -> None:
    """Apply ``stages.0.steps=5`` (or ``stages.*.steps=5`` for all) to the plain data."""
    where = f"--set {text}"
    key, equals, value_text = text.partition("=")
    if not equals or not key:
        raise InputError(
            [Problem(where, None, None, f"`{text}`", "key=value, such as `stages.0.steps=100` or `seed=1`")]
        )
    try:
        value = yaml.safe_load(value_text)
    except yaml.YAMLError:
        raise InputError([Problem(where, None, key, f"`{value_text}`", "a YAML value")]) from None
    _assign(raw, key.split("."), value, where, key)


def _assign(node: Any, keys: list[str], value: Any, where: str, whole: str) -> None:
    first, rest = keys[0], keys[1:]
    if isinstance(node, list):
        indices = range(len(node)) if first == "*" else [int(first)] if first.isdigit() else []
        if not indices or max(indices) >= len(node):
            accepted = f"`*` or a number from 0 to {len(node) - 1}"
            raise InputError([Problem(where, None, whole, f"`{first}` as a position in a list", accepted)])
        for index in indices:
            if rest:
                _assign(node[index], rest, value, where, whole)
            else:
                node[index] = value
        return
    if not isinstance(node, dict):
        found = f"`{first}` below something that has no fields"
        raise InputError([Problem(where, None, whole, found, "a field of the recipe")])
    if not rest:
        node[first] = value
        return
    if not isinstance(node.get(first), dict | list):
        node[first] = {}
    _assign(node[first], rest, value, where, whole)
