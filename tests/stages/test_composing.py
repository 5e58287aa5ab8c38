"""Vectors that act together: a conflict is said, the joint budget is kept, and the report has what each still does."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from engine.stages.composing import composed
from recipes.methods.steering import Persona, Stage

PICKED = {name: {"persona": name, "window": 1} for name in ("warm", "formal", "cautious")}
COSINES = {frozenset(("warm", "formal")): -0.9, frozenset(("warm", "cautious")): 0.1}


class Bench:
    """Its joint KL is the square of all that acts."""

    def cosine(self, first, second):
        return COSINES.get(frozenset((first["persona"], second["persona"])), 0.0)

    def apply(self, candidates, factors):
        self.acting = dict(zip([one["persona"] for one in candidates], factors, strict=True))

    def joint(self, names):
        assert sorted(names) == sorted(self.acting)
        return sum(abs(factor) for factor in self.acting.values()) ** 2


def stage(compose=None, budget=None, names=PICKED):
    persona = Persona(data={"source": "x"}, prompt="p", opposite="o", judge="j")
    return Stage(method="steering", personas={name: persona for name in names}, compose=compose, kl_budget=budget)


def factors(**settings):
    told = []
    context = SimpleNamespace(stage=stage(**settings), alert=lambda *words: told.append(words))
    bench = Bench()
    return composed(context, bench, {name: PICKED[name] for name in context.stage.personas}, bench.joint), told


def test_nothing_acts_of_several_until_it_is_asked_for():
    assert factors()[0] == {"warm": 0.0, "formal": 0.0, "cautious": 0.0}
    assert factors(names=["warm"])[0] == {"warm": 1.0}
    assert factors(compose="warm - 0.5*cautious") == ({"warm": 1.0, "formal": 0.0, "cautious": -0.5}, [])


@pytest.mark.parametrize(
    ("compose", "who"), [("warm + formal", "warm and formal"), ("warm - formal", ""), ("warm + cautious", "")]
)
def test_vectors_that_undo_each_other_are_named(compose, who):
    _, told = factors(compose=compose)
    assert [words[1] for words in told] == (["conflict"] if who else [])
    assert all(who in words[2] and "-0.90" in words[2] for words in told)


def test_a_joint_budget_scales_all_of_them_alike_and_says_so():
    found, told = factors(compose="warm + cautious", budget=1.0)
    assert found["warm"] == found["cautious"] == pytest.approx(0.5, abs=0.01) and found["warm"] <= 0.5
    assert told[0][1] == "scaled" and "0.50 of its strengths" in told[0][2] and "within 1" in told[0][2]
    assert factors(compose="warm + cautious", budget=5.0) == ({"warm": 1.0, "formal": 0.0, "cautious": 1.0}, [])
