"""From what was said on the guided way to a recipe, and from a change of mind to a changed recipe.

On the lab models a plan begins with what the library's recipe says, which is made for them; on any other model with
the schema's own defaults, the fields that people turn written out.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from recipes.errors import InputError
from recipes.load import library
from recipes.methods import stage_types
from recipes.resources import BUILT_IN, hub_dataset, is_lab
from tui.wizard.state import Source, Wizard, data_stages, questions_about, said, taken

SHOWN = (
    "steps",
    "batch_size",
    "accumulation",
    "learning_rate",
    "max_length",
    "beta",
    "kl_target",
    "group_size",
    "max_new_tokens",
)
"""Fields that a recipe for one's own model spells out."""
EPOCHS = {"sft": 3.0, "dpo": 1.0, "orpo": 1.0, "cpo": 1.0}
FEWEST, MOST = 50, 3000
"""Steps that are proposed at least and at most."""


class _Flow(dict):  # type: ignore[type-arg]
    """A small mapping that is written on one line."""


class _Row(list):  # type: ignore[type-arg]
    """A list of plain values, likewise."""


class _Dumper(yaml.SafeDumper):
    pass


_Dumper.add_representer(
    _Flow, lambda dumper, data: dumper.represent_mapping("tag:yaml.org,2002:map", data, flow_style=True)
)
_Dumper.add_representer(
    _Row, lambda dumper, data: dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=True)
)


def draft(wizard: Wizard) -> str:
    """The recipe that the way so far leads to, as YAML. Nothing is checked here."""
    assert wizard.plan is not None
    raw: dict[str, Any] = {"name": wizard.plan.name[:64], "model": wizard.model}
    raw["stages"] = [_stage(wizard, index, method) for index, method in enumerate(wizard.plan.methods)]
    way = " > ".join(answer.text for answer in taken(wizard)) or said(wizard)
    heading = textwrap.fill(f"Made by the guided way: {way}.", 110, initial_indent="# ", subsequent_indent="# ")
    return f"{heading}\n{dump(raw)}"


def source_at_hand(wizard: Wizard, index: int) -> Source:
    """The lab's data for a stage on the lab; nothing on another model."""
    assert wizard.plan is not None
    found = _library_stage(wizard.plan.methods, index, wizard.plan.name) if is_lab(wizard.model) else {}
    if "personas" in found:
        name, persona = next(iter(found["personas"].items()))
        words = {"persona": name, **{key: persona[key] for key in ("prompt", "opposite", "judge")}}
        return _source(persona["data"], words)
    words = {"judge": found["judge"]} if "judge" in found else {}
    return _source(found["data"], words) if "data" in found else Source()


def _source(data: dict[str, Any], words: dict[str, str]) -> Source:
    return Source(data["source"], data.get("heldout") or "", dict(data.get("columns") or {}), 0, words)


def _stage(wizard: Wizard, index: int, method: str) -> dict[str, Any]:
    assert wizard.plan is not None
    source = wizard.sources[index]
    lab = is_lab(wizard.model)
    stage: dict[str, Any] = {"method": method}
    if lab:
        stage = dict(_library_stage(wizard.plan.methods, index, wizard.plan.name))
    if not lab:
        stage |= _defaults(method, source)
    if method == "abliteration":
        stage["confirm_responsible_use"] = wizard.confirmed
        if not lab:
            stage.pop("judge", None)
        return stage
    return _with_source(stage, method, source, at_hand=lab and _same(source, source_at_hand(wizard, index)))


def _same(one: Source, other: Source) -> bool:
    return (one.path, one.heldout) == (other.path, other.heldout)


def _with_source(stage: dict[str, Any], method: str, source: Source, at_hand: bool) -> dict[str, Any]:
    """The stage on a source; ``at_hand``: it is the library's own, whose gates and judge go with it."""
    asked = [name for name, _, _ in questions_about(method)]
    words = {name: word.strip() for name, word in source.words.items() if name in asked and word.strip()}
    if method == "steering":
        if at_hand and "personas" in stage and source.words == _persona_words(stage):
            return stage
        persona = {"data": _data(source), **{key: words.get(key, "") for key in ("prompt", "opposite", "judge")}}
        stage["personas"] = {words.get("persona") or "persona": persona}
        stage.pop("compose", None)
        return stage
    stage = {"method": method, "data": _data(source)} | {
        key: value for key, value in stage.items() if key not in ("method", "data")
    }
    if not at_hand:
        stage.pop("gates", None)  # those were set for the lab's data
        stage.pop("judge", None)
    if "judge" in words:
        stage["judge"] = words["judge"]
    else:
        stage.pop("judge", None)
    if words.get("verifier") and words["verifier"] != (stage.get("verifier") or {}).get("kind"):
        stage["verifier"] = {"kind": words["verifier"]}
    return stage


def _persona_words(stage: dict[str, Any]) -> dict[str, str]:
    name, persona = next(iter(stage["personas"].items()))
    return {"persona": name, **{key: persona[key] for key in ("prompt", "opposite", "judge")}}


def _data(source: Source) -> dict[str, Any]:
    found: dict[str, Any] = {"source": source.path}
    if source.heldout:
        found["heldout"] = source.heldout
    if source.columns:
        found["columns"] = dict(source.columns)
    return found


def _library_stage(methods: Sequence[str], index: int, name: str) -> dict[str, Any]:
    """The library's words for a stage: of the strategy's own recipe, else of the method's."""
    names = library()
    method = methods[index]
    if name in names:
        stages = yaml.safe_load(names[name].read_text(encoding="utf-8"))["stages"]
        if [stage["method"] for stage in stages] == list(methods):
            return dict(stages[index])
    stages = yaml.safe_load(names[method.replace("_", "-")].read_text(encoding="utf-8"))["stages"]
    return dict(next(stage for stage in stages if stage["method"] == method))  # a cold start may stand before it


def _defaults(method: str, source: Source) -> dict[str, Any]:
    fields = getattr(stage_types()[method], "model_fields", {})
    found = {name: fields[name].default for name in SHOWN if name in fields}
    if method in EPOCHS and source.rows:
        steps = source.rows * 0.9 * EPOCHS[method] / (found["batch_size"] * found["accumulation"])
        found["steps"] = min(MOST, max(FEWEST, round(steps / 10) * 10))
    return found


# ---- changes of mind ---------------------------------------------------------------------------------------------------


def revised(wizard: Wizard) -> str:
    """The recipe after a step back: what was written by hand stays, model and data are as now said."""
    raw = read(wizard.text)
    methods = [stage.get("method") for stage in raw.get("stages", []) if isinstance(stage, dict)] if raw else []
    if raw is None or wizard.plan is None or methods != list(wizard.plan.methods):
        return draft(wizard)
    if is_lab(raw.get("model", "")) != is_lab(wizard.model):
        return draft(wizard)  # the lab's settings are for so small a model
    raw["model"] = wizard.model
    for index in data_stages(wizard):
        method, stage = wizard.plan.methods[index], raw["stages"][index]
        at_hand = is_lab(wizard.model) and _same(wizard.sources[index], source_at_hand(wizard, index))
        gates = stage.get("gates")
        raw["stages"][index] = _with_source(dict(stage), method, wizard.sources[index], at_hand)
        theirs = _library_stage(wizard.plan.methods, index, wizard.plan.name).get("gates")
        if gates and method != "steering" and (at_hand or gates != theirs):
            raw["stages"][index]["gates"] = gates
    return redumped(wizard.text, raw)


def read(text: str) -> dict[str, Any] | None:
    """The recipe as plain data; None while what is typed is no YAML mapping."""
    try:
        raw = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return raw if isinstance(raw, dict) else None


def assign(text: str, path: Sequence[str | int], value: Any) -> str:
    """The recipe with one field set, or left out for None. Raises InputError when the text cannot be read."""
    raw = read(text)
    if raw is None:
        raise InputError([])
    node: Any = raw
    for part in path[:-1]:
        if isinstance(node, dict) and not isinstance(node.get(part), dict | list):
            if value is None:
                return text
            node[part] = {}
        node = node[part]
    if value is None:
        node.pop(path[-1], None)
        _drop_empty(raw, path[:-1])
    else:
        node[path[-1]] = value
    return redumped(text, raw)


def _drop_empty(raw: dict[str, Any], path: Sequence[str | int]) -> None:
    """A mapping whose last field was taken out goes too, up to the stage."""
    for length in range(len(path), 2, -1):
        node: Any = raw
        for part in path[: length - 1]:
            node = node[part]
        if node[path[length - 1]] == {}:
            del node[path[length - 1]]


def redumped(text: str, raw: dict[str, Any]) -> str:
    """``raw`` as YAML under the comments that ``text`` begins with."""
    heading = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        heading.append(line + "\n")
    return "".join(heading) + dump(raw)


def dump(raw: dict[str, Any]) -> str:
    stages = raw.get("stages")
    if isinstance(stages, list):
        raw = {**raw, "stages": [_short(stage) if isinstance(stage, dict) else stage for stage in stages]}
    return yaml.dump(raw, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def _short(node: dict[str, Any]) -> dict[str, Any]:
    """Small mappings of plain values on one line each, as people write them."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, dict):
            plain = all(not isinstance(one, dict | list) for one in value.values())
            value = _Flow(value) if plain and len(str(value)) < 90 else _short(value)
        elif isinstance(value, list) and all(not isinstance(one, dict | list) for one in value):
            value = _Row(value)
        found[key] = value
    return found


def absolute(word: str) -> str:
    """A path as typed, so that it means the same wherever the recipe is kept."""
    word = word.strip()
    if not word or (word.startswith(tuple(BUILT_IN)) and not Path(word).exists()):
        return word
    if hub_dataset(word, Path.cwd()):
        return word
    return str(Path(word).expanduser().absolute())
