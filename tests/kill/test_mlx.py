"""The library's training recipes on MLX, shortened for lab-nano, as stages of one run: every gate is decided, and a run
that is killed ends in the same bits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import yaml

from recipes.load import library
from tests.kill.conftest import Real
from tests.kill.test_every_method import told
from tests.kill.test_kill import torture

pytest.importorskip("mlx_lm")

NAMES = ("cpo", "rlvr", "sft", "dpo", "orpo", "grpo", "anti-hallucination", "calibration")
KILLED = 2
"""Of them in ``make test``: those that keep the most beside weights and optimizer. ``make soak`` kills in all."""
GROUP = {"group_size": 4, "max_new_tokens": 12, "num_iterations": 2, "steps_per_generation": 2}
SHORTER: dict[str, dict[str, Any]] = {
    "cpo": {
        "steps": 7,
        "anchors": {"share": 0.25, "source": "lab/general-heldout.jsonl"},
        "trust_region": {"every": 3, "kl": 0.0005, "prompts": 8, "suite_n": 2},  # so narrow that it steps back
    },
    "rlvr": {"steps": 7, **GROUP},
    "grpo": {**GROUP},
    "sft": {"replay": {"share": 0.3, "source": "lab/general-heldout.jsonl"}},
    "anti-hallucination": {"samples": 1, "replay": {"share": 0.3, "source": "lab/general-heldout.jsonl"}},
}
LOOK = {"prompts": 8, "suite_n": 4, "samples": 1}


def shortened(name: str) -> dict[str, Any]:
    """The stage of that library recipe with few rows, few steps and short evaluations."""
    *_, stage = yaml.safe_load(library()[name].read_text())["stages"]  # a cold start may come before
    stage["data"] = {"source": stage["data"]["source"], "limit": 40, "heldout_share": 0.3}
    stage["evaluation"] = {**LOOK, "max_new_tokens": 12}
    if "steps" in stage:
        stage |= {"steps": 5, "batch_size": 8, "max_length": 96, "checkpoint": {"every": 2}} | SHORTER.get(name, {})
    return stage


def recipe(names: Sequence[str]) -> str:
    """Those stages as one run. A stage's bits depend on its place alone, not on what comes after it."""
    return yaml.safe_dump(
        {
            "name": "on-mlx",
            "model": "lab-nano",
            "backend": "mlx",
            "threads": 1,
            "stages": [shortened(name) for name in names],
            "on_gate_fail": "warn",
        },
        sort_keys=False,
    )


@pytest.fixture(scope="module")
def on_mlx(tmp_path_factory):
    """The run that nothing happens to."""
    real = Real(tmp_path_factory.mktemp("on-mlx"), recipe(NAMES))
    real.start()
    real.finish(900)
    return real


@pytest.mark.timeout(1200)
def test_every_recipe_of_the_library_runs_on_mlx(on_mlx):
    state = on_mlx.run.state()
    assert [stage.status for stage in state.stages] == ["done"] * len(NAMES)
    for name, stage in zip(NAMES, state.stages, strict=True):
        assert stage.gates, name
        if name != "calibration":
            assert len(stage.series["loss"].steps) == stage.steps_total and stage.metrics["kl"]["after"].value > 0
    assert {"reward", "advantage_variance", "silent_groups", "step_reward"} <= state.stages[
        NAMES.index("rlvr")
    ].series.keys()
    assert any(sample.label == "training" for sample in state.stages[NAMES.index("grpo")].samples)
    assert any(alert.code == "step-back" for alert in state.alerts)


@pytest.mark.kill
@pytest.mark.timeout(900)
def test_the_methods_that_keep_most_survive_being_killed(real, on_mlx):
    (real.home / "short.yaml").write_text(recipe(NAMES[:KILLED]))
    torture(real, seed=5, kills=1, stages=KILLED)
    assert real.result() == {name: found[:KILLED] for name, found in on_mlx.result().items()}
    assert told(real) == told(on_mlx)[:KILLED]


@pytest.mark.soak
@pytest.mark.kill
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [31, 32])
def test_every_method_survives_many_kills(seed, real, on_mlx):
    (real.home / "short.yaml").write_text(recipe(NAMES))
    torture(real, seed=seed, kills=10, stages=len(NAMES))
    assert real.result() == on_mlx.result()
    assert told(real) == told(on_mlx)
