"""The cards say what the method comparison says. The tables are written down here once more, by hand, to compare with."""

from __future__ import annotations

import pytest

from recipes.methods import cards, stage_types

# method: reference, verification, time, overhead, data, reversible, composable
FEATURES = {
    "sft": (False, False, "Fast", "None", "Low", False, False),
    "dpo": (True, False, "Medium", "None", "High", False, False),
    "orpo": (False, False, "Medium", "None", "High", False, False),
    "grpo": (False, True, "Slow", "None", "Medium", False, False),
    "cpo": (True, False, "Medium", "None", "High", False, False),
    "rlvr": (False, True, "Slow", "None", "Medium", False, False),
    "abliteration": (False, False, "Fast", "None", "None", False, False),
    "steering": (False, False, "N/A", "Low", "Low", True, True),
}
# method: hours low, hours high, data minimum, recommended, GB for 1B in 4-bit
FIGURES = {
    "sft": (0.5, 1, 100, 1000, 2),
    "dpo": (2, 4, 1000, 5000, 4),
    "orpo": (1, 2, 1000, 5000, 2.5),
    "grpo": (4, 8, 500, 2000, 3),
    "cpo": (3, 5, 1000, 5000, 4),
    "rlvr": (6, 12, 500, 2000, 3),
    "abliteration": (5 / 60, 10 / 60, 0, 0, 2),
    "steering": (10 / 60, 30 / 60, 50, 200, 2),
}
# method: gate -> (minimum, maximum), from the quality metrics
TARGETS = {
    "dpo": {"preference_gap": (0.15, None), "kl": (None, 0.1)},
    "orpo": {"preference_gap": (0.15, None), "kl": (None, 0.15)},
    "grpo": {"advantage_variance": (0.5, 1.5)},
    "cpo": {"kl": (None, 0.05), "retention": (0.95, None)},
    "rlvr": {"step_correctness": (0.8, None), "final_correctness": (0.9, None)},
    "abliteration": {"refusal_rate": (None, 0.05), "retention_worst": (0.9, None)},
    "steering": {"side_effects": (None, 0.1)},
}
PLACES = {  # (complexity, capability) ranks of the chart: who stands higher, who further right
    "higher": [("rlvr", "orpo"), ("grpo", "dpo"), ("dpo", "orpo"), ("orpo", "sft"), ("sft", "abliteration")],
    "further right": [("cpo", "dpo"), ("dpo", "sft"), ("steering", "abliteration")],
}
COUNTS = {  # strengths, weaknesses
    "sft": (6, 5), "dpo": (5, 5), "orpo": (5, 5), "grpo": (5, 5), "cpo": (5, 5), "rlvr": (5, 5), "abliteration": (5, 5),
    "steering": (5, 5),
}  # fmt: skip


def test_all_ten_methods_have_a_card():
    assert set(cards()) == {*FEATURES, "calibration", "anti_hallucination"}
    assert {name for name, card in cards().items() if card.from_strategies} == {"calibration", "anti_hallucination"}
    assert set(stage_types()) <= set(cards())


@pytest.mark.parametrize("name", FEATURES)
def test_features(name):
    card = cards()[name]
    found = (
        card.requires_reference_model, card.requires_verification, card.time.word, card.inference_overhead, card.data.need,
        card.reversible, card.composable,
    )  # fmt: skip
    assert found == FEATURES[name]
    assert not card.requires_reward_model
    assert card.memory.reference_model == card.requires_reference_model


@pytest.mark.parametrize("name", FIGURES)
def test_figures(name):
    card = cards()[name]
    low, high, minimum, recommended, gigabytes = FIGURES[name]
    assert (card.time.low_hours, card.time.high_hours) == pytest.approx((low, high), abs=0.01)
    assert (card.data.minimum, card.data.recommended) == (minimum, recommended)
    assert card.memory.total_gb_1b_4bit == gigabytes


@pytest.mark.parametrize("name", TARGETS)
def test_targets_are_default_gates(name):
    gates = cards()[name].gates
    for gate, limits in TARGETS[name].items():
        assert gates[gate].default and (gates[gate].minimum, gates[gate].maximum) == limits


@pytest.mark.parametrize("name", COUNTS)
def test_no_strength_or_weakness_is_left_out(name):
    card = cards()[name]
    assert (len(card.strengths), len(card.weaknesses)) == COUNTS[name]
    assert card.best_for and card.metrics and card.targets and card.purpose and card.time.notes and card.data.quality


def test_places_in_the_chart():
    known = cards()
    assert all(known[a].capability > known[b].capability for a, b in PLACES["higher"])
    assert all(known[a].complexity > known[b].complexity for a, b in PLACES["further right"])


def test_every_gate_of_a_stage_type_belongs_to_its_card():
    for name, card in cards().items():
        for gate, spec in card.gates.items():
            assert spec.meaning, (name, gate)
            assert not spec.default or spec.minimum is not None or spec.maximum is not None
