"""From a recipe's ``verifier:`` to the verifier that does it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema
from pydantic import TypeAdapter

from engine.verify.code import Code
from engine.verify.custom import CustomSteps, Python
from engine.verify.interface import Verifier
from engine.verify.plain import Exact, Json, Math, Number, Regex
from engine.verify.sandbox.jails import Jail, find_jail
from engine.verify.sandbox.pool import Limits, SandboxError
from engine.verify.steps import Steps
from engine.verify.total import Total
from recipes import verifiers as specs
from recipes.errors import InputError, Problem

SPEC: TypeAdapter[Any] = TypeAdapter(specs.VerifierSpec)


def open_verifier(spec: Mapping[str, Any], folder: Path) -> Verifier:
    """``spec`` is the validated ``verifier:`` of a stage, paths in it are relative to ``folder``. Close it when done.

    Raises InputError when a file is missing or broken, or when code must be run and no sandbox is there.
    """
    return _open(SPEC.validate_python(dict(spec)), folder)


def _open(spec: Any, folder: Path) -> Verifier:
    try:
        verifier = _opened(spec, folder)
    except SandboxError as error:
        accepted = "a machine on which its process starts, or another kind"
        found = f"`{spec.kind}`, whose process cannot be started ({error})"
        raise InputError([Problem("the verifier", None, "kind", found, accepted)]) from error
    template = getattr(spec, "template", None)
    if template is not None:
        setattr(verifier, "template", template)  # noqa: B010 - of no verifier's business but check.verifiability's
    return verifier


def _opened(spec: Any, folder: Path) -> Verifier:
    match spec:
        case specs.Number():
            return Number(spec.pattern, spec.seconds)
        case specs.Exact():
            return Exact()
        case specs.Math():
            return Math(spec.seconds)
        case specs.Regex():
            return Regex(spec.pattern, spec.seconds)
        case specs.Json():
            return Json(_schema(spec.json_schema, folder), spec.answer, spec.seconds)
        case specs.Code():
            limits = Limits(cpu=spec.cpu, wall=spec.seconds, memory_mib=spec.memory_mib)
            return Code(_jail(spec.kind), limits, spec.reward)
        case specs.Python() | specs.CustomSteps():
            return _custom(spec, folder)
        case specs.Steps():
            return Steps(spec.split, spec.separator, spec.algebra, spec.seconds)
        case specs.Sum():
            return _sum(spec, folder)
    raise AssertionError(spec)


def _sum(spec: specs.Sum, folder: Path) -> Verifier:
    opened: list[Verifier] = []
    try:
        for item in spec.components:
            opened.append(_open(item.verifier, folder))
    except InputError:
        for verifier in opened:
            verifier.close()
        raise
    weights = [item.weight for item in spec.components]
    return Total(opened, weights)


def _jail(kind: str) -> Jail:
    """The sandbox of this machine. Raises InputError with the reason and what to install when there is none."""
    jail, reason = find_jail()
    if jail is None:
        raise InputError(
            [
                Problem(
                    "the verifier", None, "kind", f"`{kind}`, which runs code, and no sandbox ({reason})",
                    "a machine with a sandbox, or a verifier that runs no code: number, exact, math, regex, json, steps",
                )
            ]
        )  # fmt: skip
    return jail()


def _custom(spec: specs.Python | specs.CustomSteps, folder: Path) -> Verifier:
    path = folder / spec.path

    def wrong(found: str, accepted: str) -> InputError:
        return InputError([Problem("the verifier", None, "path", found, accepted)])

    if not path.is_file():
        raise wrong(f"`{spec.path}`, which is not there ({path})", "an existing file, relative to the recipe")
    program = path.suffix != ".py"
    if program and isinstance(spec, specs.Python):
        raise wrong(f"`{spec.path}`", "a Python file (.py)")
    if program and not os.access(path, os.X_OK):
        raise wrong(f"`{spec.path}`, which cannot be executed", f"an executable program (chmod +x {spec.path})")
    if not program:
        try:
            compile(path.read_text(encoding="utf-8"), str(path), "exec")
        except (OSError, ValueError, SyntaxError) as error:
            raise wrong(f"`{spec.path}` ({error})", "a Python file") from error
    made = Python if isinstance(spec, specs.Python) else CustomSteps
    return made(_jail(spec.kind), path, spec.function, spec.seconds, spec.memory_mib)


def _schema(schema: Any, folder: Path) -> Any:
    """The schema itself, read and checked."""
    if schema is None:
        return None
    where: str = "the verifier"
    field: str | None = "json_schema"
    if isinstance(schema, str):
        path = folder / schema
        try:
            schema, where, field = json.loads(path.read_text(encoding="utf-8")), str(path), None
        except (OSError, ValueError, RecursionError) as error:
            problem = Problem(where, None, field, f"`{schema}` ({error})", "a file with a JSON schema")
            raise InputError([problem]) from error
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise InputError([Problem(where, None, field, error.message[:200], "a valid JSON schema (2020-12)")]) from error
    return schema
