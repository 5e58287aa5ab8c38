"""Where somebody stands on the guided way, and every step from there: plain data in, plain data out.

Pages in their order: ``goal`` (the flowchart; or ``cases``, ``strategies``), ``method``, ``model``, ``data`` (once for
each stage that takes data), ``fit``, ``recipe``. Every function returns a new state; screens only draw it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from recipes.errors import InputError, Problem, quoted
from recipes.flowchart import QUESTIONS, START, Answer, Leaf, Question, answer_of, follow, paths, walk
from recipes.methods import cards
from recipes.strategies import STRATEGIES, Strategy, strategies_for
from recipes.use_cases import UseCase, use_case

PAGES = ("goal", "cases", "strategies", "method", "model", "data", "fit", "recipe")
VERSION = 1


@dataclass(frozen=True)
class Source:
    """The data of one stage as given. ``columns`` says which column plays which part, where that is not by name."""

    path: str = ""
    heldout: str = ""
    columns: dict[str, str] = field(default_factory=dict)
    rows: int = 0
    """Usable rows that the inspection counted; 0 when nobody looked."""
    words: dict[str, str] = field(default_factory=dict)
    """What else the method wants to know of the data, by the name of its question (``questions_about``)."""


@dataclass(frozen=True)
class Plan:
    """What may be run: one method or several in a row. ``name`` is its recipe's."""

    name: str
    title: str
    methods: tuple[str, ...]
    note: str = ""


@dataclass(frozen=True)
class Wizard:
    """``stage`` counts the stages whose data are asked for; ``text`` is the recipe once it is written."""

    page: str = "goal"
    answers: tuple[str, ...] = ()
    case: str = ""
    entry: str = "goal"
    """The page that the methods were chosen from: goal, cases or strategies."""
    plan: Plan | None = None
    confirmed: bool = False
    model: str = ""
    sources: tuple[Source, ...] = ()
    stage: int = 0
    text: str = ""
    over_no_fit: bool = False
    """Said yes to starting although the forecast says that it does not fit."""

    def begun(self) -> bool:
        """Whether there is anything that would be lost."""
        return self != Wizard()


# ---- what to run -------------------------------------------------------------------------------------------------------


def where(wizard: Wizard) -> Question | Leaf:
    """The question that is open, or the leaf that the answers led to."""
    return walk(wizard.answers)


def answer(wizard: Wizard, word: str) -> Wizard:
    """Answer the open question by key, number or text. Raises InputError with the nearest valid word."""
    here = where(wizard)
    if isinstance(here, Leaf):
        raise InputError([Problem("answers", None, None, f"`{word}` at the end of the questions", "no further answer")])
    taken = replace(wizard, answers=(*wizard.answers, answer_of(here, word).key), entry="goal", case="")
    return replace(taken, page="method" if isinstance(where(taken), Leaf) else "goal")


def choose_case(wizard: Wizard, word: str) -> Wizard:
    """Start from a row of the use-case matrix. Raises InputError."""
    return replace(wizard, page="method", entry="cases", case=use_case(word).key, answers=())


def choose_strategy(wizard: Wizard, name: str) -> Wizard:
    """Start from a combined strategy. Raises InputError."""
    found = next((one for one in STRATEGIES if one.name == name), None)
    if found is None:
        names = [one.name for one in STRATEGIES]
        raise InputError([Problem("strategy", None, None, f"`{name}`", quoted(names))])
    return choose_plan(replace(wizard, entry="strategies", case="", answers=()), plan_of(found))


def plans(wizard: Wizard) -> list[Plan]:
    """What may be chosen on the method page, the first being the way that the answers or the use case lead to."""
    if wizard.case:
        case = use_case(wizard.case)
        found = [_plan(case.primary, case.note)]
        found += [_plan(case.alternative, "the alternative")] if case.alternative else []
        return found + [plan_of(one) for one in strategies_like(case)]
    leaf = where(wizard)
    if isinstance(leaf, Question):
        return []
    return [_plan((leaf.method,), leaf.because), *map(plan_of, strategies_for(wizard.answers[0], leaf.method))]


def strategies_like(case: UseCase) -> list[Strategy]:
    """Strategies whose stages contain the use case's method for the goal that leads to that method."""
    goals = [way[0].key for way, leaf in paths() if leaf.method == case.primary[-1]]
    return strategies_for(goals[0], case.primary[-1]) if goals else []


def plan_of(strategy: Strategy) -> Plan:
    return Plan(strategy.name, strategy.title, tuple(step.method for step in strategy.steps), strategy.use_case)


def _plan(methods: Sequence[str], note: str) -> Plan:
    titles = [cards()[name].title.partition(" (")[0] for name in methods]
    return Plan("-".join(methods).replace("_", "-"), " + ".join(titles), tuple(methods), note)


def notice(plan: Plan) -> str | None:
    """What has to be confirmed before a plan is taken up."""
    notices = [leaf.notice for _, leaf in paths() if leaf.method in plan.methods and leaf.notice]
    return notices[0] if notices else None


def choose_plan(wizard: Wizard, plan: Plan, confirmed: bool = False) -> Wizard:
    """Take up a plan; what was said about the data of another one is forgotten. Raises InputError when it has a
    notice that was not confirmed."""
    asked = notice(plan)
    if asked and not confirmed:
        raise InputError([Problem("wizard", None, "confirm_responsible_use", "no confirmation", asked)])
    kept = wizard.plan is not None and wizard.plan.methods == plan.methods
    fresh = tuple(Source() for _ in plan.methods)
    return replace(
        wizard, plan=plan, page="model", confirmed=confirmed, stage=0, sources=wizard.sources if kept else fresh,
        text=wizard.text if kept else "", over_no_fit=False,
    )  # fmt: skip


# ---- what to run it on -------------------------------------------------------------------------------------------------


def choose_model(wizard: Wizard, model: str) -> Wizard:
    stages = data_stages(wizard)
    page = "data" if stages else "fit"
    return replace(wizard, model=model, page=page, stage=stages[0] if stages else 0, over_no_fit=False)


def data_stages(wizard: Wizard) -> list[int]:
    """The stages that are trained or measured on data of the user's."""
    methods = wizard.plan.methods if wizard.plan else ()
    return [index for index, name in enumerate(methods) if cards()[name].data.minimum]


def choose_source(wizard: Wizard, source: Source) -> Wizard:
    """The data of the stage that is asked for; then the next stage's, or the fit."""
    sources = tuple(source if index == wizard.stage else one for index, one in enumerate(wizard.sources))
    later = [index for index in data_stages(wizard) if index > wizard.stage]
    return replace(
        wizard, sources=sources, page="data" if later else "fit", stage=later[0] if later else wizard.stage,
        over_no_fit=False,
    )  # fmt: skip


QUESTIONS_ABOUT: dict[str, tuple[tuple[str, str, str], ...]] = {
    "steering": (
        ("persona", "name of the behaviour", "warm"),
        ("prompt", "a system prompt that asks for it", "Be warm."),
        ("opposite", "one that asks for the contrary", "Be formal."),
        ("judge", "judge file: regular expressions `preferred` and `rejected`", "tone.yaml"),
    ),
    "dpo": (("judge", "judge file, if you have one", "none: the preferred share is not gated"),),
    "grpo": (("verifier", "how an answer is checked", "number"),),
    "rlvr": (("verifier", "how a step is checked", "steps"),),
}
QUESTIONS_ABOUT["orpo"] = QUESTIONS_ABOUT["cpo"] = QUESTIONS_ABOUT["dpo"]
VERIFIERS = {"grpo": ("number", "exact", "math", "code"), "rlvr": ("steps",)}
"""Verifiers that need nothing but the data; the others are written in the recipe."""
REQUIRED = ("persona", "prompt", "opposite", "judge")


def questions_about(method: str) -> tuple[tuple[str, str, str], ...]:
    """``(name, question, example or default)`` of what a method wants to know beside its rows."""
    return QUESTIONS_ABOUT.get(method, ())


def unanswered(method: str, source: Source) -> list[str]:
    """The questions about the data that a recipe cannot do without and that are still open."""
    if method != "steering":
        return []
    return [
        text for name, text, _ in questions_about(method) if name in REQUIRED and not source.words.get(name, "").strip()
    ]


# ---- back and forth ----------------------------------------------------------------------------------------------------


def back(wizard: Wizard) -> Wizard | None:
    """One step back, everything that was said being kept; None at the very beginning."""
    page = wizard.page
    if page == "goal":
        return replace(wizard, answers=wizard.answers[:-1]) if wizard.answers else None
    if page in ("cases", "strategies"):
        return replace(wizard, page="goal", answers=(), case="")
    if page == "method":
        if wizard.entry == "cases":
            return replace(wizard, page="cases", case="")
        return replace(wizard, page="goal", answers=wizard.answers[:-1])
    if page == "model":
        return replace(wizard, page="strategies" if wizard.entry == "strategies" else "method")
    stages = data_stages(wizard)
    if page == "data":
        before = [index for index in stages if index < wizard.stage]
        return replace(wizard, stage=before[-1]) if before else replace(wizard, page="model")
    if page == "fit":
        return replace(wizard, page="data", stage=stages[-1]) if stages else replace(wizard, page="model")
    return replace(wizard, page="fit")


def show(wizard: Wizard, page: str) -> Wizard:
    """Another way in, from the first page."""
    return replace(wizard, page=page, answers=(), case="") if page in ("goal", "cases", "strategies") else wizard


def write(wizard: Wizard, text: str, page: str | None = None) -> Wizard:
    """The recipe as it now reads."""
    changed = replace(wizard, text=text, page=page or wizard.page)
    return replace(changed, over_no_fit=False) if text != wizard.text else changed


def taken(wizard: Wizard) -> list[Answer]:
    """The answers that were given, whole."""
    here: Question | Leaf = QUESTIONS[START]
    found: list[Answer] = []
    for word in wizard.answers:
        assert isinstance(here, Question)
        found.append(answer_of(here, word))
        here = follow(found[-1])
    return found


def trail(wizard: Wizard) -> list[tuple[str, bool]]:
    """``(name, whether it is where one stands)`` of the pages of this way, for the head of the screen."""
    names = (
        ["goal", "method", "model"] + (["data"] if data_stages(wizard) or not wizard.plan else []) + ["fit", "recipe"]
    )
    here = "goal" if wizard.page in ("cases", "strategies") else wizard.page
    return [(name, name == here) for name in names]


def said(wizard: Wizard) -> str:
    """The way so far in one line."""
    if wizard.case:
        parts = [use_case(wizard.case).name]
    else:
        parts = [one.text for one in taken(wizard)]
    if wizard.plan and wizard.page not in ("goal", "cases", "strategies", "method"):
        parts = [wizard.plan.title]
        if wizard.page != "model":
            parts.append(f"on {wizard.model}")
        if wizard.page == "data" and len(wizard.plan.methods) > 1:
            parts.append(f"stage {wizard.stage + 1} of {len(wizard.plan.methods)}: {wizard.plan.methods[wizard.stage]}")
    return ", ".join(parts)


# ---- kept on the disk --------------------------------------------------------------------------------------------------


def to_json(wizard: Wizard) -> dict[str, Any]:
    return {"version": VERSION, **asdict(wizard)}


def from_json(data: Any) -> Wizard:
    """Raises ValueError for anything that ``to_json`` did not write, or that this version cannot go on with."""
    try:
        if data["version"] != VERSION:
            raise ValueError(f"version {data['version']}")
        plan = data["plan"]
        if plan is not None:
            plan = Plan(plan["name"], plan["title"], tuple(plan["methods"]), plan["note"])
        wizard = Wizard(
            page=data["page"], answers=tuple(data["answers"]), case=data["case"], entry=data["entry"], plan=plan,
            confirmed=data["confirmed"], model=data["model"], stage=data["stage"], text=data["text"],
            sources=tuple(Source(**one) for one in data["sources"]), over_no_fit=data["over_no_fit"],
        )  # fmt: skip
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(f"no state of the guided way ({error})") from None
    _check(wizard)
    return wizard


def _check(wizard: Wizard) -> None:
    """A state that this version can stand in. Raises ValueError."""
    try:
        taken(wizard)
        if wizard.case:
            use_case(wizard.case)
    except InputError as error:
        raise ValueError(str(error)) from None
    known = set(cards())
    if wizard.page not in PAGES or (wizard.plan and not set(wizard.plan.methods) <= known):
        raise ValueError(f"page {wizard.page} or methods that are not known")
    late = wizard.page in ("model", "data", "fit", "recipe")
    if late and (wizard.plan is None or len(wizard.sources) != len(wizard.plan.methods)):
        raise ValueError("nothing chosen to run")
    if wizard.page == "data" and wizard.stage not in data_stages(wizard):
        raise ValueError(f"stage {wizard.stage} takes no data")
    if wizard.page == "method" and not plans(wizard):
        raise ValueError("questions left open")
