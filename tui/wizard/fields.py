"""The recipe as a form: every simple field of the schema with its value, its default and what is accepted."""

from __future__ import annotations

import types
import typing
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from recipes.methods import cards, stage_types
from recipes.schema import Gate, Recipe

Path = tuple[str | int, ...]
FIRST = (
    "name", "model",
    "method", "data", "personas", "steps", "batch_size", "accumulation", "learning_rate", "max_length", "beta", "group_size", "max_new_tokens",
    "verifier", "judge", "training", "adapter", "quantization",
)  # fmt: skip
"""What people turn most, in this order; the rest follows as the schema has it."""
LEFT_OUT = ("stages", "trust_remote_code", "confirm_responsible_use", "method")


@dataclass(frozen=True)
class Field:
    """``value`` is what the recipe says, "" where it says nothing and ``default`` holds."""

    path: Path
    label: str
    value: str
    default: str
    choices: tuple[str, ...] = ()
    depth: int = 0


@dataclass(frozen=True)
class Section:
    title: str
    fields: tuple[Field, ...]


def form(raw: dict[str, Any]) -> list[Section]:
    """The recipe's own fields, then each stage's. A stage whose method is not known has none."""
    sections = [Section("recipe", tuple(_fields(Recipe, raw, (), 0)))]
    types_of = stage_types()
    stages = raw.get("stages")
    for index, stage in enumerate(stages if isinstance(stages, list) else []):
        method = stage.get("method") if isinstance(stage, dict) else None
        if method in types_of:
            fields = _fields(types_of[method], stage, ("stages", index), 0)
            sections.append(Section(f"{index + 1}. {method}", (*fields, *_gates(method, stage, index))))
    return sections


def _fields(model: type, raw: dict[str, Any], path: Path, depth: int) -> list[Field]:
    found: list[Field] = []
    known: dict[str, Any] = model.model_fields  # type: ignore[attr-defined]
    names = sorted(
        known, key=lambda name: (FIRST.index(name) if name in FIRST else len(FIRST), list(known).index(name))
    )
    for name in names:
        if name in LEFT_OUT or name == "gates":
            continue
        info = known[name]
        given = raw.get(name)
        if name == "personas" and isinstance(given, dict):
            for persona, value in given.items():
                inner = _model(get_args(info.annotation)[1])
                if inner is not None and isinstance(value, dict):
                    found += [
                        _prefixed(one, str(persona)) for one in _fields(inner, value, (*path, name, persona), depth + 1)
                    ]
            continue
        inner = _model(info.annotation)
        here = (*path, name)
        if inner is not None:
            nested = given if isinstance(given, dict) else {}
            found += [_prefixed(one, name) for one in _fields(inner, nested, here, depth + 1)]
            continue
        if not _simple(info.annotation):
            continue
        default = None if info.default is PydanticUndefined else info.default
        found.append(Field(here, name, _shown(given), _shown(default) or "none", _choices(info.annotation), depth))
    return found


def _prefixed(one: Field, name: str) -> Field:
    return Field(one.path, f"{name}.{one.label}", one.value, one.default, one.choices, one.depth)


def _gates(method: str, stage: dict[str, Any], index: int) -> list[Field]:
    """Both limits of every gate that the method knows, as far as its card or the recipe sets them."""
    written = stage.get("gates")
    given: dict[str, Any] = written if isinstance(written, dict) else {}
    found = []
    for name, spec in cards()[method].gates.items():
        one = given.get(name)
        mine: dict[str, Any] = one if isinstance(one, dict) else {}
        for limit, default in (("min", spec.minimum), ("max", spec.maximum)):
            if (spec.default and default is not None) or limit in mine:
                told = _shown(default) if spec.default else ""
                found.append(
                    Field(
                        ("stages", index, "gates", name, limit),
                        f"gates.{name}.{limit}",
                        _shown(mine.get(limit)),
                        told or "none",
                    )
                )
    return found


def _parts(annotation: Any) -> list[Any]:
    """The types that a field may have, Annotated and unions taken apart; without None."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return _parts(get_args(annotation)[0])
    if origin in (Union, types.UnionType):
        return [part for one in get_args(annotation) for part in _parts(one)]
    if isinstance(annotation, typing.TypeAliasType) if hasattr(typing, "TypeAliasType") else False:
        return _parts(annotation.__value__)
    return [] if annotation is type(None) else [annotation]


def _model(annotation: Any) -> type | None:
    """The one sub-model of a field; none for unions of several, which are written in YAML."""
    models = [
        one for one in _parts(annotation) if isinstance(one, type) and issubclass(one, BaseModel) and one is not Gate
    ]
    return models[0] if len(models) == 1 and len(_parts(annotation)) == 1 else None


def _simple(annotation: Any) -> bool:
    return all(one in (str, int, float, bool) or get_origin(one) is Literal for one in _parts(annotation)) and bool(
        _parts(annotation)
    )


def _choices(annotation: Any) -> tuple[str, ...]:
    parts = _parts(annotation)
    if bool in parts:
        return ("false", "true")
    words = [str(word) for one in parts if get_origin(one) is Literal for word in get_args(one)]
    return tuple(words) if len(parts) == 1 else ()


def _shown(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) and abs(value) >= 1e-4 else str(value)


def value_of(text: str) -> Any:
    """What was typed into a field, as YAML would read it; None (left out) when it is empty."""
    if not text.strip():
        return None
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    if isinstance(value, str):
        try:  # YAML 1.1 takes 1e-4 for text
            return float(value)
        except ValueError:
            return value
    return value if isinstance(value, str | int | float | bool) else text
