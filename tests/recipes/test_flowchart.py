"""The flowchart, the use cases, the strategies and the tables say what the method comparison says.

``method-comparison.md`` beside this file is the source itself: its tables, tree and chart are read and held against ours.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recipes.comparison import (
    CHART,
    chart_lines,
    data_requirements,
    features,
    memory_requirements,
    quality_metrics,
    short_title,
    times,
)
from recipes.errors import InputError
from recipes.flowchart import QUESTIONS, START, Leaf, answer_of, path_to, paths, walk
from recipes.methods import cards
from recipes.strategies import STRATEGIES, strategies_for
from recipes.use_cases import USE_CASES, use_case

SOURCE = (Path(__file__).parent / "method-comparison.md").read_text(encoding="utf-8")
NAMES = {short_title(card): name for name, card in cards().items()}
NAMES |= {"Steering": "steering", "SFT": "sft", "Anti-hallucination": "anti_hallucination"}


def section(title):
    return re.split(r"\n#{2,3} ", SOURCE.split(f"# {title}\n", 1)[1])[0]


def table(title):
    """The rows of a section's table, without emphasis; ticks as words."""
    lines = [line for line in section(title).splitlines() if line.startswith("|")]
    clean = [[re.sub(r"\*\*|[✅❌] ?", lambda m: {"✅": "yes ", "❌": "no "}.get(m[0].strip(), ""), cell).strip()
              for cell in line.strip("|").split("|")] for line in lines]  # fmt: skip
    return [clean[0], *clean[2:]]


def by_method(rows):
    return {NAMES[row[0]]: row[1:] for row in rows}


# ---- the flowchart -----------------------------------------------------------------------------------------------------


def source_tree():
    """``(texts of the answers…, method, because)`` for every leaf of the source's drawing."""
    found, way = [], []
    for line in section("Selection Flowchart").splitlines():
        match = re.match(r"([│ ]*)[├└]─ (.*)", line)
        if not match:
            continue
        depth, text = len(match[1]) // 4, match[2]
        leaf = re.fullmatch(r"(.+?) \(([^)]*)\)", text)
        if leaf and leaf[1] in NAMES:
            found.append((*way[:depth], NAMES[leaf[1]], leaf[2]))
        else:
            way = [*way[:depth], text]
    return found


def test_every_branch_leads_where_the_source_says():
    ours = [(*(answer.text for answer in way), leaf.method, leaf.because) for way, leaf in paths()]
    assert len(ours) == 8 and ours == source_tree()
    assert QUESTIONS[START].text == "What is your goal?" and "START: What is your goal?" in SOURCE


def test_every_leaf_has_a_card_and_every_question_is_reached():
    leaves = [leaf for _, leaf in paths()]
    assert {leaf.method for leaf in leaves} == {name for name, card in cards().items() if not card.from_strategies}
    led = {answer.leads for question in QUESTIONS.values() for answer in question.answers}
    assert {START, *(word for word in led if isinstance(word, str))} == set(QUESTIONS)
    for question in QUESTIONS.values():
        keys = [answer.key for answer in question.answers]
        assert len(set(keys)) == len(keys) >= 2 and question.why and question.text.endswith("?")
    assert [leaf.method for leaf in leaves if leaf.notice] == ["abliteration"]


def test_walking_by_key_number_and_text():
    for way, leaf in paths():
        assert walk([answer.key for answer in way]) == leaf
        assert walk([answer.text.upper() for answer in way]) == leaf
    assert walk([]) is QUESTIONS["goal"] and walk(["2"]) is QUESTIONS["memory"]
    assert walk([" 3 ", "2"]).method == "rlvr"
    assert [answer.key for answer in path_to("orpo")] == ["preferences", "constrained"] and path_to(
        "calibration"
    ) is None


@pytest.mark.parametrize(
    "words, said",
    [
        (["preferense"], "`goal`: found `preferense`.*Did you mean `preferences`"),
        (["inject new knowledge"], "Did you mean `knowledge`"),
        (["preferences", "constraint"], "`memory`.*Did you mean `constrained`"),
        (["7"], "a number from 1 to 6"),
        (["knowledge", "simple"], "after the answers had led to sft"),
    ],
)
def test_bad_words_get_the_nearest(words, said):
    with pytest.raises(InputError, match=said):
        walk(words)


def test_an_answer_is_found_in_its_own_question_only():
    with pytest.raises(InputError):
        answer_of(QUESTIONS["memory"], "simple")
    assert isinstance(answer_of(QUESTIONS["memory"], "1").leads, Leaf)


# ---- tables ------------------------------------------------------------------------------------------------------------


def test_the_feature_table():
    heading, *rows = table("Feature Comparison")
    ours = {key: row[1:] for key, row in zip(features().keys, features().rows, strict=True)}
    assert [row[0] for row in rows] == [
        "Requires reference model", "Requires reward model", "Requires verification logic", "Training time",
        "Inference overhead", "Data requirements", "Reversible", "Composable",
    ]  # fmt: skip
    for column, title in enumerate(heading[1:], start=1):
        assert [row[column] for row in rows] == list(ours[NAMES[title]]), title


@pytest.mark.parametrize(
    "title, made",
    [
        ("Training Time Estimates", times), ("Data Requirements", data_requirements),
        ("Memory Requirements", memory_requirements), ("Quality Metrics", quality_metrics),
    ],
)  # fmt: skip
def test_the_other_tables(title, made):
    ours = {key: row[1:] for key, row in zip(made().keys, made().rows, strict=True)}
    theirs = by_method(table(title)[1:])
    assert len(theirs) == 8
    for method, row in theirs.items():
        if title == "Memory Requirements":
            row = [row[0].split()[0].lower(), *row[1:]]
        if title == "Quality Metrics":
            row, ours[method] = [cell.lower() for cell in row], tuple(cell.lower() for cell in ours[method])
        assert row == list(ours[method]), method


def test_strengths_weaknesses_and_best_for():
    for heading in re.findall(r"\n### (.+)", SOURCE):
        name = NAMES.get(heading.partition(" (")[0])
        if name is None:
            continue
        card, text = cards()[name], section(heading)
        strengths, _, rest = text.partition("**Weaknesses**")
        assert tuple(re.findall(r"\n- (.+)", strengths)) == card.strengths
        assert tuple(re.findall(r"\n- (.+)", rest)) == card.weaknesses
        best = re.search(r"\*\*Best For\*\*: (.+)", text)[1]
        assert ", ".join(card.best_for).lower() == best.lower()


def test_the_chart_is_the_sources_drawing():
    drawing = section("Complexity vs Capability").split("```")[1].strip("\n")
    assert "\n".join(chart_lines()) == drawing
    assert all(sign.isascii() for sign in chart_lines(ascii_only=True))
    assert {place.method for place in CHART} == {name for name, card in cards().items() if not card.from_strategies}


def test_the_cards_stand_as_in_the_chart():
    """What stands higher in the drawing is not less capable by its card."""
    rows = {place.method: place.row for place in CHART}
    for one in rows:
        for other in rows:
            if rows[one] < rows[other]:
                assert cards()[one].capability >= cards()[other].capability, (one, other)


# ---- use cases and strategies ------------------------------------------------------------------------------------------


def test_the_use_case_matrix():
    rows = table("Use Case Matrix")[1:]
    assert len(rows) == len(USE_CASES) == 8
    for row, case in zip(rows, USE_CASES, strict=True):

        def methods(cell):
            return () if cell == "-" else tuple(NAMES[name] for name in cell.split(" + "))

        assert (row[0], methods(row[1]), methods(row[2]), row[3]) == (
            case.name,
            case.primary,
            case.alternative,
            case.note,
        )
        assert set(case.primary + case.alternative) <= set(cards())


def test_a_use_case_by_name():
    assert use_case("A/B Testing").primary == ("steering",) and use_case("math-tutoring").key == "math-tutoring"
    with pytest.raises(InputError, match="Did you mean `code-generation`"):
        use_case("code generating")


def test_the_strategies():
    titles = re.findall(r"\n### Strategy \d: (.+)", SOURCE)
    assert titles == [strategy.title for strategy in STRATEGIES]
    for number, strategy in enumerate(STRATEGIES, start=1):
        text = section(f"Strategy {number}: {strategy.title}")
        steps = [(NAMES[name], purpose) for name, purpose in re.findall(r"\n\d\. (.+?) \((.+)\)", text)]
        assert steps == [(step.method, step.purpose) for step in strategy.steps]
        low, high = strategy.hours
        assert f"**Time**: {low}-{high} hours total" in text
        during = f" (during {short_title(cards()[strategy.peak_during])})" if strategy.peak_during else ""
        assert f"**Memory**: {strategy.peak_gb} GB peak{during}\n" in text
        assert f"**Use Case**: {strategy.use_case}\n" in text + "\n"
        assert set(strategy.goals) <= {answer.key for answer in QUESTIONS[START].answers}
        assert all(step.method in cards() for step in strategy.steps)


def test_every_strategy_is_offered_somewhere():
    offered = {s.name for way, leaf in paths() for s in strategies_for(way[0].key, leaf.method)}
    assert offered == {strategy.name for strategy in STRATEGIES}
    assert [strategy.name for strategy in strategies_for("preferences", "dpo")] == [
        "base-alignment",
        "customizable-assistant",
    ]
    assert strategies_for("remove-safety", "abliteration") == []
