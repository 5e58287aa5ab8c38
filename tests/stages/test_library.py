"""Every library recipe from its first stage to its last, made short: the small model, few rows, two steps a stage."""

from __future__ import annotations

import pytest
import yaml

from recipes.load import library, load_recipe
from recipes.resources import assets_folder
from tests.in_process import run_here

LOOK = {"max_new_tokens": 8, "prompts": 4, "suite_n": 2, "samples": 1}
GROUPS = {"batch_size": 8, "group_size": 4, "max_new_tokens": 8}
SHORT = {
    "sft": {"steps": 2, "batch_size": 4},
    "dpo": {"steps": 2, "batch_size": 4},
    "orpo": {"steps": 2, "batch_size": 4},
    "cpo": {"steps": 2, "batch_size": 4},
    "grpo": {"steps": 2, **GROUPS},
    "rlvr": {"steps": 2, **GROUPS},
    "anti_hallucination": {"steps": 2, "batch_size": 4, "samples": 1},
    "calibration": {},
    "abliteration": {"steps": 2, "search_prompts": 4, "kl_tokens": 4},
    "steering": {"layers": [1.0], "kl": [0.3], "forms": ["mean"], "search_prompts": 4},
}


UNMEASURED = {
    "accuracy": "not measured: the held-out rows are no questions with answers; `token_accuracy` is measured",
    "abstention_precision": "not measured: the model never abstained",
}
"""Made short, SFT's rows are held out from conversations, and two steps do not teach to abstain."""


def shortened(name, general):
    """The recipe as plain data: its own stages, in its own order, with as little of everything as they run with.
    ``general``: a file of a few general prompts."""
    raw = yaml.safe_load(library()[name].read_text())
    for stage in raw["stages"]:
        stage |= SHORT[stage["method"]] | {"evaluation": LOOK}
        if "data" in stage:
            stage["data"] = {"source": stage["data"]["source"], "limit": 24, "heldout_share": 0.25}
        if "replay" in stage:
            stage["replay"] |= {"source": general, "share": 0.1}
        if stage["method"] == "cpo":
            stage["anchors"] = {"source": general}
            stage["trust_region"] = {"prompts": 4, "suite_n": 2}
        if stage["method"] == "steering":
            stage["general"] = general
        for persona in stage.get("personas", {}).values():
            persona["data"] |= {"limit": 24, "heldout_share": 0.25}
            persona["data"].pop("heldout")
    return raw | {"model": "lab-nano", "threads": 1, "on_gate_fail": "warn"}


@pytest.mark.parametrize("name", sorted(library()))
def test_a_short_version_of_every_library_recipe_reaches_its_end(name, home, tmp_path):
    path = tmp_path / "short.yaml"
    general = tmp_path / "general.jsonl"
    lines = (assets_folder() / "lab" / "data" / "general-heldout.jsonl").read_text().splitlines(keepends=True)
    general.write_text("".join(lines[:24]))
    path.write_text(yaml.safe_dump(shortened(name, str(general))))
    loaded = load_recipe(str(path))
    run = run_here(path)
    for stage, written in zip(run.state().stages, loaded.recipe.stages, strict=True):
        assert stage.method == written.method and stage.status == "done"
        wanted = {name for name, gate in written.gates.items() if gate is not None}
        assert set(stage.gates) == wanted
        unmeasured = {name: gate.detail for name, gate in stage.gates.items() if not gate.n}
        assert unmeasured.items() <= UNMEASURED.items()
