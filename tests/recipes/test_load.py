"""Bad recipes are told with line, field, found, accepted and nearest word, all at once; good ones round-trip."""

from __future__ import annotations

import pytest

from recipes.errors import InputError
from recipes.load import dump_recipe, library, load_recipe

GOOD = """\
name: mine
model: lab
stages:
  - method: sft
    data: {source: rows.jsonl}
    steps: 10
  - method: dpo
    data: {source: pairs.jsonl}
    gates: {kl: null, preference_gap: {min: 0.3}}
"""


def written(tmp_path, text):
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return str(path)


def problems(tmp_path, text, overrides=()):
    with pytest.raises(InputError) as caught:
        load_recipe(written(tmp_path, text), overrides)
    return caught.value.problems


def test_a_good_recipe_gets_its_defaults_from_the_cards(tmp_path):
    recipe = load_recipe(written(tmp_path, GOOD)).recipe
    sft, dpo = recipe.stages
    assert sft.steps == 10 and sft.replay.share == 0.3
    assert sft.gates["retention"].min == 0.9
    assert dpo.gates["preference_gap"].min == 0.3 and dpo.gates["kl"] is None and dpo.gates["broken_share"].max == 0.05
    assert dpo.adapter == sft.adapter


def test_rows_without_padding_are_not_for_the_eager_kernel(tmp_path):
    text = GOOD.replace("model: lab", "model: lab\nattention: eager").replace("steps: 10", "padding_free: true")
    (found,) = problems(tmp_path, text)
    assert (found.line, found.field) == (7, "stages.0.padding_free") and "`attention: eager`" in found.found


def test_a_dumped_recipe_loads_to_the_same(tmp_path):
    recipe = load_recipe(written(tmp_path, GOOD)).recipe
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(str(tmp_path / "again.yaml")).recipe == recipe


@pytest.mark.parametrize("name", sorted(library()))
def test_library_recipes_load_and_round_trip(name, tmp_path):
    recipe = load_recipe(name).recipe
    (tmp_path / "again.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(str(tmp_path / "again.yaml")).recipe == recipe


@pytest.mark.parametrize(
    "change, line, field, said",
    [
        (("model: lab", "modle: lab"), 2, "modle", "Did you mean `model`?"),
        (("model: lab", "model: lab\nattention: flash"), 3, "attention", "`eager`, `flash_attention_2`"),
        (("steps: 10", "padding_free: yes please"), 6, "stages.0.padding_free", "true"),
        (("method: sft", "method: sff"), 4, "stages.0.method", "Did you mean `sft`?"),
        (("method: sft", "method: grop"), 4, "stages.0.method", "Did you mean `grpo`"),
        (("steps: 10", "stepz: 10"), 6, "stages.0.stepz", "Did you mean `steps`?"),
        (("steps: 10", "steps: ten"), 6, "stages.0.steps", "the text `ten`; accepted: a whole number"),
        (("steps: 10", "steps: 0"), 6, "stages.0.steps", "at least 1"),
        (("steps: 10", "steps: 1.5"), 6, "stages.0.steps", "a whole number"),
        (("steps: 10", "learning_rate: 1e-4"), 6, "stages.0.learning_rate", "write 1.0e-4"),
        (("steps: 10", "training: lor"), 6, "stages.0.training", "Did you mean `lora`?"),
        (("steps: 10", "checkpoint: {every: 5, keep: 1}"), 6, "stages.0.checkpoint.keep", "at least 2"),
        (("{source: rows.jsonl}", "{sorce: rows.jsonl}"), 5, "stages.0.data.sorce", "Did you mean `source`?"),
        (("{kl: null,", "{kk: null,"), 9, "stages.1.gates.kk", "Did you mean `kl`?"),
        (("name: mine", "name: My Recipe"), 1, "name", "lower-case letters"),
        (("steps: 10", "steps: .nan"), 6, "stages.0.steps", "whole number"),
        (("name: mine", "name: mine\nname: yours"), 2, "name", "same field twice"),
        (("  - method: dpo", "\t- method: dpo"), 7, None, "cannot start any token"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line_and_the_nearest_word(change, line, field, said, tmp_path):
    found = problems(tmp_path, GOOD.replace(*change))
    assert len(found) == 1
    assert (found[0].line, found[0].field) == (line, field)
    assert said in str(found[0]) and f"line {line}" in str(found[0])


def test_all_problems_are_told_at_once(tmp_path):
    text = GOOD.replace("model: lab", "modle: lab").replace("steps: 10", "steps: ten").replace("kl: null", "lk: null")
    assert [problem.line for problem in problems(tmp_path, text)] == [2, 6, 9]


@pytest.mark.parametrize(
    "text, said",
    [
        ("", "nothing"),
        ("- a\n- b\n", "list"),
        ("just words", "str"),
        ("name: x\nstages: []\n", "at least 1"),
        ("name: x\nstages: 3\n", "a list"),
        ("name: x\n", "required"),
        ("name: x\nstages: [{data: {source: a}}]\n", "`method`"),
        ("? [a, b]\n: c\n", "no text"),
        ("name: !!python/object/apply:os.system ['true']\n", "the tag tag:yaml.org,2002:python"),
    ],
)
def test_things_that_are_no_recipe(text, said, tmp_path):
    assert said in " ".join(map(str, problems(tmp_path, text)))


def test_an_alias_bomb_is_refused_quickly(tmp_path):
    bomb = "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
    for previous, name in zip("abcdefgh", "bcdefghi", strict=True):
        bomb += f"{name}: &{name} [{', '.join([f'*{previous}'] * 6)}]\n"
    assert "values" in str(problems(tmp_path, bomb)[0]) or "aliases" in str(problems(tmp_path, bomb)[0])
    many = "a: &a 1\nb: [" + ", ".join(["*a"] * 60) + "]\n"
    assert "60 aliases" in str(problems(tmp_path, many)[0])


def test_a_huge_or_undecodable_file_is_refused(tmp_path):
    assert "bytes" in str(problems(tmp_path, "#" * 300_000)[0])
    (tmp_path / "recipe.yaml").write_bytes(b"name: x\nmodel: \xff\n")
    with pytest.raises(InputError, match="line 2.*UTF-8"):
        load_recipe(str(tmp_path / "recipe.yaml"))


def test_a_later_stage_cannot_change_the_adapter(tmp_path):
    text = GOOD.replace("steps: 10", "adapter: {rank: 8}") + "    adapter: {rank: 4}\n"
    found = problems(tmp_path, text)
    assert found[0].line == 10 and found[0].field == "stages.1.adapter.rank" and "`8`" in found[0].accepted


def test_overrides(tmp_path):
    path = written(tmp_path, GOOD)
    recipe = load_recipe(path, ["stages.*.steps=7", "seed=3", "stages.1.beta=0.2", "stages.0.data.limit=5"]).recipe
    assert [stage.steps for stage in recipe.stages] == [7, 7]
    assert recipe.seed == 3 and recipe.stages[1].beta == 0.2 and recipe.stages[0].data.limit == 5
    for bad, said in {
        "seed": "key=value",
        "stages.5.steps=1": "from 0 to 1",
        "stages.0.stepz=1": "Did you mean `steps`",
        "seed=[": "a YAML value",
        "name.x=1": "accepted: text",
    }.items():
        with pytest.raises(InputError) as caught:
            load_recipe(path, [bad])
        assert said in str(caught.value), bad


def test_an_unknown_recipe_gets_the_nearest_name(tmp_path):
    with pytest.raises(InputError, match="Did you mean `base-alignment`"):
        load_recipe("base-alignement")
    with pytest.raises(InputError, match="a directory"):
        load_recipe(str(tmp_path))
