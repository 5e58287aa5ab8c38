"""The verifier of a stage: every kind is read strictly, and what is wrong is told with the field and the nearest word."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from recipes.explain import VERIFIER_KINDS, explain
from recipes.schema import Strict
from recipes.verifiers import VerifierSpec


class Holder(Strict):
    verifier: VerifierSpec


LEAST = {
    "regex": {"pattern": "a"}, "python": {"path": "a.py"}, "custom-steps": {"path": "a.py"},
    "sum": {"components": [{"verifier": {"kind": "number"}, "weight": 2}]},
}  # fmt: skip


@pytest.mark.parametrize("kind", VERIFIER_KINDS)
def test_every_kind_loads_and_round_trips(kind):
    one = Holder.model_validate({"verifier": {"kind": kind, **LEAST.get(kind, {})}})
    assert Holder.model_validate(one.model_dump()) == one


def test_the_kinds_are_those_of_the_schema():
    mapping = TypeAdapter(VerifierSpec).json_schema()["discriminator"]["mapping"]
    assert set(mapping) == set(VERIFIER_KINDS)


@pytest.mark.parametrize(
    "verifier, field, said",
    [
        ({"kind": "numbr"}, "verifier.kind", "Did you mean `number`?"),
        ({}, "verifier.kind", "found nothing"),
        ({"kind": "number", "patern": "(a)"}, "verifier.patern", "Did you mean `pattern`?"),
        ({"kind": "number", "pattern": "("}, "verifier.pattern", "a regular expression"),
        ({"kind": "number", "pattern": "a"}, "verifier.pattern", "with 1 group, found 0"),
        ({"kind": "code", "memory_mib": "x"}, "verifier.memory_mib", "a whole number"),
        ({"kind": "code", "seconds": -1}, "verifier.seconds", "more than 0"),
        ({"kind": "exact", "template": "no place"}, "verifier.template", "{answer}"),
        ({"kind": "sum", "components": []}, "verifier.components", "at least 1"),
        (
            {"kind": "sum", "components": [{"verifier": {"kind": "math", "secs": 2}}]},
            "verifier.components.0.verifier.secs",
            "`seconds`",
        ),
        ("number", "verifier", "a mapping"),
    ],
)
def test_what_is_wrong_is_told(verifier, field, said):
    with pytest.raises(ValidationError) as caught:
        Holder.model_validate({"verifier": verifier})
    problems = explain(caught.value, Holder, "recipe.yaml", {(): 1}, ())
    assert [problem.field for problem in problems] == [field]
    assert said in str(problems[0])
