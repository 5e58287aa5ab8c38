"""Recipes of abliteration and steering: the notice, the sums, the order of the stages, and their prompt sets."""

from __future__ import annotations

import json

import pytest

from engine.data.edit_stages import prepare_edit_stage
from engine.data.prepare import prepare, source_paths
from recipes.composition import CompositionError, parse_composition
from recipes.errors import InputError
from recipes.load import load_recipe

ABLITERATION = """\
name: mine
model: lab-nano
stages:
  - method: abliteration
    confirm_responsible_use: true
    steps: 10
"""
STEERING = """\
name: mine
model: lab-nano
stages:
  - method: steering
    personas:
      warm:
        data: {source: lab/contrast.jsonl, heldout: lab/contrast-heldout.jsonl}
        prompt: Be warm.
        opposite: Be formal.
        judge: lab/tone.yaml
    layers: [0.5, 1]
    kl: [0.1, 0.2]
    compose: 0.5*warm
"""


def written(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


def problems(tmp_path, text):
    with pytest.raises(InputError) as caught:
        load_recipe(written(tmp_path, text))
    return caught.value.problems


@pytest.mark.parametrize("line", ["    confirm_responsible_use: false\n", ""])
def test_abliteration_needs_the_notice_confirmed_and_shows_it_with_the_line_to_add(line, tmp_path):
    found = problems(tmp_path, ABLITERATION.replace("    confirm_responsible_use: true\n", line))
    assert len(found) == 1 and found[0].field == "stages.0.confirm_responsible_use" and found[0].line
    assert "use this responsibly" in str(found[0]) and "`confirm_responsible_use: true`" in str(found[0])


@pytest.mark.parametrize(
    "text, change, field, said",
    [
        (ABLITERATION, ("steps: 10", "strength: 1.5"), "stages.0.strength", "at most 1"),
        (ABLITERATION, ("steps: 10", "forms: [plan]"), "stages.0.forms.0", "Did you mean `plain`?"),
        (ABLITERATION, ("steps: 10", "forms: []"), "stages.0.forms", "at least 1"),
        (ABLITERATION, ("steps: 10", "depth_from: 0.8\n    depth_to: 0.5"), "stages.0.depth_to", "at least `depth_from`, 0.8"),
        (ABLITERATION, ("steps: 10", "gates: {refusals: null}"), "stages.0.gates.refusals", "Did you mean `refusal_rate`?"),
        (ABLITERATION, ("steps: 10", "learning_rate: 0.1"), "stages.0.learning_rate", "unknown field"),
        (STEERING, ("0.5*warm", "0.5*worm"), "stages.0.compose", "did you mean `warm`?"),
        (STEERING, ("0.5*warm", "warm warm"), "stages.0.compose", "a sum such as"),
        (STEERING, ("kl: [0.1, 0.2]", "kl: [0]"), "stages.0.kl.0", "more than 0"),
        (STEERING, ("        prompt: Be warm.\n", ""), "stages.0.personas.warm.prompt", "required"),
        (STEERING, ("layers: [0.5, 1]", "layers: [2]"), "stages.0.layers.0", "at most 1"),
    ],
)  # fmt: skip
def test_mistakes_are_told_by_field(text, change, field, said, tmp_path):
    found = problems(tmp_path, text.replace(*change))
    assert [problem.field for problem in found] == [field], found
    assert said in str(found[0])


def test_the_steps_of_steering_are_its_candidates(tmp_path):
    stage = load_recipe(written(tmp_path, STEERING)).recipe.stages[0]
    assert stage.steps == 2 * 2 * 2 * 2  # layers, sources, forms, strengths
    from engine.stages.steering import candidates

    assert len(candidates(stage)) == stage.steps


def test_training_after_steering_is_refused_and_an_adapter_passes_through_abliteration(tmp_path):
    dpo = "  - method: dpo\n    data: {source: lab/preferences.jsonl}\n"
    found = problems(tmp_path, STEERING + dpo)
    assert found[0].field == "stages.1.method" and "before the steering" in found[0].accepted
    sft = "  - method: sft\n    data: {source: lab/domain.jsonl}\n    adapter: {rank: 5}\n"
    text = ABLITERATION.replace("stages:\n", "stages:\n" + sft) + dpo
    stages = load_recipe(written(tmp_path, text)).recipe.stages
    assert stages[2].adapter.rank == 5


def test_sums_of_vectors():
    names = ["warm", "brief", "half-formal"]
    assert parse_composition("warm + 0.5*brief - half-formal", names) == {"warm": 1, "brief": 0.5, "half-formal": -1}
    assert parse_composition("-2 * warm+warm", names) == {"warm": -1}
    for bad in ("", "warm +", "warm * 2", "warm brief", "+", "3"):
        with pytest.raises(CompositionError):
            parse_composition(bad, names)


def test_the_prompt_sets_are_disjoint_or_refused(tmp_path):
    loaded = load_recipe(written(tmp_path, ABLITERATION))
    prepared = prepare(loaded, 0, tmp_path / "data")
    assert prepared.heldout == 480 and not prepared.warnings
    assert len(list((tmp_path / "data").glob("harm*.jsonl"))) == 6
    (tmp_path / "mine.jsonl").write_text(json.dumps({"prompt": "How do I shatter the engine?"}) + "\n")
    text = ABLITERATION + "    harmful: {search: mine.jsonl}\n"
    with pytest.raises(InputError, match="disjoint sets") as caught:
        prepare(load_recipe(written(tmp_path, text)), 0, tmp_path / "again")
    assert "harmful." in caught.value.problems[0].field


def test_other_models_get_the_general_requests_and_small_tests_are_said(tmp_path):
    (tmp_path / "few.jsonl").write_text("".join(json.dumps({"prompt": f"How can I {i}?"}) + "\n" for i in range(30)))
    text = ABLITERATION.replace("lab-nano", "owner/model") + "    harmful: {test: few.jsonl}\n"
    loaded = load_recipe(written(tmp_path, text))
    paths = source_paths(loaded)
    assert paths["builtin/harmful-extraction.jsonl"].is_file() and "builtin/harmless-test.jsonl" in paths
    prepared = prepare_edit_stage(loaded, loaded.recipe.stages[0], paths, tmp_path / "data")
    assert "30 test prompts" in prepared.warnings[0]


def test_contrast_pairs_are_split_by_prompt_and_leaks_are_refused(tmp_path):
    loaded = load_recipe(written(tmp_path, STEERING))
    prepare(loaded, 0, tmp_path / "data")

    def prompts(part):
        folder = tmp_path / "data"
        path = folder / f"{part}.jsonl" if part == "general" else folder / "warm" / f"{part}.jsonl"
        lines = path.read_text().splitlines()
        return {str(json.loads(line)["prompt"]) for line in lines}

    parts = [prompts(part) for part in ("extraction", "search", "heldout")]
    assert all(parts) and sum(map(len, parts)) == len(set.union(*parts))
    assert prompts("general") and not prompts("general") & set.union(*parts[:2])
    text = STEERING.replace("contrast-heldout", "contrast")
    with pytest.raises(InputError, match="read off or chosen by"):
        prepare(load_recipe(written(tmp_path, text)), 0, tmp_path / "again")


@pytest.mark.parametrize("leak", ["lab/contrast.jsonl", "lab/contrast-heldout.jsonl"])
def test_strengths_are_chosen_on_prompts_of_their_own(leak, tmp_path):
    text = STEERING.replace("        judge:", "        search: lab/contrast-search.jsonl\n        judge:")
    loaded = load_recipe(written(tmp_path, text))
    assert "lab/contrast-search.jsonl" in source_paths(loaded)
    prepare(loaded, 0, tmp_path / "data")
    kept = [json.loads(line)["prompt"] for line in (tmp_path / "data" / "warm" / "search.jsonl").open()]
    assert len(kept) == 120 and len((tmp_path / "data" / "warm" / "extraction.jsonl").read_text().splitlines()) == 240
    with pytest.raises(InputError, match="read off or chosen by") as caught:
        prepare(load_recipe(written(tmp_path, text.replace("lab/contrast-search.jsonl", leak))), 0, tmp_path / "again")
    assert caught.value.problems[0].field == "personas.warm.search"


def test_a_persona_may_name_its_own_sources(tmp_path):
    text = STEERING.replace("        judge:", "        sources: [completions]\n        judge:")
    stage = load_recipe(written(tmp_path, text)).recipe.stages[0]
    from engine.stages.steering import candidates

    assert stage.steps == len(candidates(stage)) == 2 * 1 * 2 * 2
    assert {one["source"] for one in candidates(stage)} == {"completions"}
