"""Every method that takes data says before the run where there are fewer rows than its card asks for."""

from __future__ import annotations

import pytest

from engine.data.prepare import prepare
from recipes.load import load_recipe
from recipes.methods import cards

PAIRS = "    data: {source: lab/preferences.jsonl, limit: 20, heldout_share: 0.2}"
CHAINS = "    data: {source: lab/chains.jsonl, limit: 20, heldout_share: 0.2}"
ASKED = "    data: {source: lab/questions.jsonl, limit: 20, heldout_share: 0.2}"
STAGES = {
    "sft": "    data: {source: lab/domain.jsonl, limit: 20, heldout_share: 0.2}",
    "dpo": PAIRS,
    "orpo": PAIRS,
    "cpo": PAIRS,
    "grpo": CHAINS,
    "rlvr": CHAINS + "\n    verifier: {kind: steps, split: semicolons}",
    "calibration": ASKED,
    "anti_hallucination": ASKED,
    "steering": "    personas:\n      warm:\n        data: {source: lab/contrast.jsonl, limit: 20}\n        prompt: Be warm.\n        opposite: Be formal.\n"
    "        judge: lab/tone.yaml",
}


def test_every_method_with_a_least_amount_is_here():
    assert {name.replace("-", "_") for name, card in cards().items() if card.data.minimum} == STAGES.keys()


@pytest.mark.parametrize("method", STAGES)
def test_too_few_rows_are_told_before_the_run(method, tmp_path):
    text = f"name: x\nmodel: lab-nano\nstages:\n  - method: {method}\n{STAGES[method]}\n"
    (tmp_path / "recipe.yaml").write_text(text)
    found = prepare(load_recipe(str(tmp_path / "recipe.yaml")), 0, tmp_path / "out")
    least = cards()[method].data.minimum
    assert any(f"fewer than the {least} that {method}" in warning for warning in found.warnings), found.warnings
