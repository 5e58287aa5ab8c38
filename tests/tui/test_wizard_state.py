"""The guided way without a screen: where each answer leads, what is kept, and what recipe comes out."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import pytest

from recipes.errors import InputError
from recipes.flowchart import paths
from recipes.load import load_recipe, parse_recipe
from recipes.strategies import STRATEGIES
from recipes.use_cases import USE_CASES
from tui.wizard import keep
from tui.wizard.draft import absolute, assign, draft, revised, source_at_hand
from tui.wizard.state import (
    Source,
    Wizard,
    answer,
    back,
    choose_case,
    choose_model,
    choose_plan,
    choose_source,
    choose_strategy,
    data_stages,
    from_json,
    notice,
    plans,
    show,
    to_json,
    trail,
    unanswered,
    write,
)
from tui.wizard.tree import tree

OWN = {"persona": "brief", "prompt": "Be brief.", "opposite": "Be long.", "judge": "judge.yaml"}


def at_leaf(words):
    wizard = Wizard()
    for word in words:
        wizard = answer(wizard, word)
    return wizard


def through(wizard, model="lab"):
    """To the fit, with the lab's data or somebody's own."""
    wizard = choose_model(wizard, model)
    while wizard.page == "data":
        source = source_at_hand(wizard, wizard.stage)
        wizard = choose_source(wizard, source if source.path else Source("/data/mine.jsonl", rows=1000, words=OWN))
    return wizard


LEAVES = [tuple(answer.key for answer in way) for way, _ in paths()]
EVERY_WAY = [
    *(("questions", ",".join(way)) for way in LEAVES),
    *(("case", case.key) for case in USE_CASES),
    *(("strategy", strategy.name) for strategy in STRATEGIES),
]


def chosen(kind, name):
    """Every plan that a way in offers, taken up."""
    if kind == "strategy":
        return [choose_strategy(Wizard(page="strategies"), name)]
    wizard = at_leaf(name.split(",")) if kind == "questions" else choose_case(Wizard(page="cases"), name)
    return [choose_plan(wizard, plan, confirmed=True) for plan in plans(wizard)]


@pytest.mark.parametrize(("words", "leaf"), [(way, leaf) for way, (_, leaf) in zip(LEAVES, paths(), strict=True)])
def test_every_branch_leads_where_the_flowchart_says(words, leaf):
    wizard = at_leaf(words)
    assert wizard.page == "method" and plans(wizard)[0].methods == (leaf.method,)
    assert bool(notice(plans(wizard)[0])) == (leaf.method == "abliteration")


def test_all_strategies_are_offered_where_they_fit_the_goal():
    offered = {plan.name for way in LEAVES for plan in plans(at_leaf(way))[1:]}
    assert offered == {strategy.name for strategy in STRATEGIES}


@pytest.mark.parametrize("case", USE_CASES, ids=lambda case: case.key)
def test_a_use_case_offers_its_primary_and_its_alternative(case):
    offered = plans(choose_case(Wizard(), case.key))
    assert offered[0].methods == case.primary and offered[0].note == case.note
    if case.alternative:
        assert offered[1].methods == case.alternative


@pytest.mark.parametrize("model", ["lab", "someone/a-model"])
@pytest.mark.parametrize(("kind", "name"), EVERY_WAY)
def test_every_way_ends_in_a_recipe_that_is_valid(kind, name, model, tmp_path):
    for begun in chosen(kind, name):
        wizard = through(begun, model)
        loaded = parse_recipe(draft(wizard), tmp_path)
        assert [stage.method for stage in loaded.recipe.stages] == list(wizard.plan.methods)
        assert loaded.recipe.model == model
        assert from_json(json.loads(json.dumps(to_json(wizard)))) == wizard


def test_on_the_lab_it_is_the_librarys_recipe(tmp_path):
    made = parse_recipe(draft(through(chosen("questions", "preferences,available")[0])), tmp_path).recipe
    assert made == load_recipe("dpo").recipe


def test_ones_own_data_on_the_lab_take_neither_its_judge_nor_its_gates(tmp_path):
    wizard = choose_model(chosen("questions", "preferences,available")[0], "lab")
    wizard = choose_source(wizard, Source("/mine.jsonl", columns={"prompt": "frage"}))
    stage = parse_recipe(draft(wizard), tmp_path).recipe.stages[0]
    assert stage.judge is None and "retention" not in stage.gates and stage.data.columns == {"prompt": "frage"}
    assert stage.steps == 150, "its settings are for so small a model and stay"


def test_steps_follow_the_number_of_rows(tmp_path):
    begun = choose_model(chosen("questions", "knowledge")[0], "someone/a-model")
    steps = [
        parse_recipe(draft(choose_source(begun, Source("/d.jsonl", rows=rows))), tmp_path).recipe.stages[0].steps
        for rows in (0, 50, 2000, 10**6)
    ]
    assert steps == [200, 50, 680, 3000]


def test_back_at_any_time_and_nothing_said_is_lost():
    wizard = replace(write(through(chosen("strategy", "base-alignment")[0]), "text"), page="recipe")
    seen = []
    while (before := back(wizard)) is not None:
        wizard = before
        seen.append((wizard.page, wizard.stage))
    assert seen == [("fit", 1), ("data", 1), ("data", 0), ("model", 0), ("strategies", 0), ("goal", 0)]
    assert wizard.model == "lab" and wizard.sources[1].path == "lab/preferences.jsonl" and wizard.text == "text"
    wizard = at_leaf(("preferences", "available"))
    assert [back(wizard).answers, back(back(wizard)).answers] == [("preferences",), ()]


def test_another_plan_forgets_the_data_of_the_one_before_and_the_same_one_does_not():
    wizard = through(chosen("questions", "preferences,available")[0])
    again = choose_plan(replace(wizard, page="method"), wizard.plan)
    assert again.sources == wizard.sources
    other = choose_plan(replace(wizard, page="method"), plans(at_leaf(("knowledge",)))[0])
    assert other.sources == (Source(),)


def test_abliteration_wants_a_word_and_takes_no_data(tmp_path):
    wizard = at_leaf(("remove-safety",))
    with pytest.raises(InputError, match="removes safety constraints"):
        choose_plan(wizard, plans(wizard)[0])
    taken_up = choose_plan(wizard, plans(wizard)[0], confirmed=True)
    assert data_stages(taken_up) == [] and choose_model(taken_up, "lab").page == "fit"
    assert parse_recipe(draft(choose_model(taken_up, "lab")), tmp_path).recipe.stages[0].confirm_responsible_use


def test_steering_says_what_is_still_open():
    assert len(unanswered("steering", Source("/d.jsonl"))) == 4
    assert unanswered("steering", Source("/d.jsonl", words=OWN)) == [] == unanswered("dpo", Source())


def test_a_bad_answer_names_the_nearest_good_one():
    with pytest.raises(InputError, match="Did you mean `preferences`"):
        answer(Wizard(), "preferencs")
    with pytest.raises(InputError, match="end of the questions"):
        answer(at_leaf(("knowledge",)), "more")


def test_the_tree_lights_the_path_and_what_the_cursor_points_at():
    lights = {branch.text: branch.light for branch in tree(("preferences",), "constrained")}
    assert lights["What is your goal?"] == lights["Align to human preferences"] == "taken"
    assert lights["Low budget (memory constrained)"] == "pointed"
    assert lights["High budget (memory available)"] == "open" and lights["Minimize capability loss"] == "dark"
    below = {branch.leaf for branch in tree((), "verifiable") if branch.light == "pointed"}
    assert below == {"", "GRPO", "RLVR"}
    assert all(branch.twig.isascii() for branch in tree((), ascii_only=True))


def test_the_trail_shows_where_one_stands():
    assert [name for name, here in trail(through(chosen("questions", "remove-safety")[0])) if here] == ["fit"]
    assert "data" not in dict(trail(chosen("questions", "remove-safety")[0]))


# ---- changes of the recipe ---------------------------------------------------------------------------------------------


def test_what_was_changed_by_hand_survives_a_change_of_mind(tmp_path):
    wizard = through(chosen("questions", "preferences,available")[0], "someone/a-model")
    text = assign(assign(draft(wizard), ("stages", 0, "steps"), 77), ("seed",), 5)
    wizard = choose_model(replace(write(wizard, text), page="model"), "other/model")
    wizard = choose_source(wizard, replace(wizard.sources[0], path="/other.jsonl"))
    recipe = parse_recipe(revised(wizard), tmp_path).recipe
    assert (recipe.stages[0].steps, recipe.seed, recipe.model) == (77, 5, "other/model")
    assert recipe.stages[0].data.source == "/other.jsonl"


def test_fields_are_set_and_left_out_and_the_heading_stays(tmp_path):
    text = draft(through(chosen("questions", "preferences,available")[0]))
    changed = assign(text, ("stages", 0, "adapter", "rank"), 4)
    assert parse_recipe(changed, tmp_path).recipe.stages[0].adapter.rank == 4
    assert assign(changed, ("stages", 0, "adapter", "rank"), None) == text
    assert changed.splitlines()[0].startswith("# Made by the guided way")
    assert assign(text, ("stages", 0, "adapter", "rank"), None) == text


def test_a_typed_path_means_the_same_everywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute(" rows.jsonl ") == str(tmp_path / "rows.jsonl")
    assert absolute("lab/domain.jsonl") == "lab/domain.jsonl" and absolute("") == ""


# ---- on the disk -------------------------------------------------------------------------------------------------------


def test_the_way_is_kept_and_forgotten(home):
    assert keep.kept() is None
    wizard = through(chosen("questions", "preferences,available")[0])
    keep.keep(wizard)
    assert keep.kept() == wizard
    keep.keep(Wizard())
    assert keep.kept() is None, "nothing was begun"
    keep.keep(wizard)
    keep.forget()
    assert keep.kept() is None
    keep.forget()


@pytest.mark.parametrize(
    "change",
    [
        {"version": 99}, {"page": "nowhere"}, {"page": "data", "stage": 7}, {"page": "fit", "plan": None}, {"answers": ["x"]},
        {"sources": [{"odd": 1}]}, {"page": "method", "answers": ["preferences"]}, {"answers": None},
    ],
)  # fmt: skip
def test_a_state_that_is_none_is_not_believed(change, home):
    good = to_json(through(chosen("questions", "preferences,available")[0]))
    home.mkdir(parents=True)
    keep.place().write_text(json.dumps(good | change))
    assert keep.kept() is None


def test_a_torn_state_is_not_believed(home):
    home.mkdir(parents=True)
    for text in (b"", b"{", b"[]", b"\xff\xfe", b"null"):
        keep.place().write_bytes(text)
        assert keep.kept() is None


def test_a_home_that_cannot_be_written_costs_only_the_memory_of_the_way(home):
    home.write_text("a file where the folder should be")
    keep.keep(at_leaf(("knowledge",)))
    assert keep.kept() is None


def test_the_page_to_start_from_can_be_chosen():
    assert show(at_leaf(("preferences",)), "cases") == Wizard(page="cases")


def test_no_screen_is_needed():
    import subprocess

    code = "import sys, tui.wizard.state, tui.wizard.draft, tui.wizard.tree, tui.wizard.keep; print('textual' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
