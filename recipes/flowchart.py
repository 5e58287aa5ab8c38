"""The method-selection flowchart as data: questions, answers and leaves, and the walk from one to the next."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recipes.errors import InputError, Problem, nearest_word, quoted

START = "goal"


@dataclass(frozen=True)
class Leaf:
    """Where a branch ends: a method and what the flowchart says for it."""

    method: str
    because: str
    notice: str | None = None
    """What must be confirmed before the method is used."""


@dataclass(frozen=True)
class Answer:
    """``leads`` to the next question by its key, or to a leaf."""

    key: str
    text: str
    leads: str | Leaf
    hint: str = ""


@dataclass(frozen=True)
class Question:
    key: str
    text: str
    why: str
    """Why it is asked, for who wonders."""
    answers: tuple[Answer, ...]
    settled_by: str | None = None
    """``forecast``: the machine's own figures suggest the answer, which can be overridden."""


RESPONSIBLE_USE = (
    "Abliteration removes safety constraints. The model will no longer refuse what it was made to refuse, and may do "
    "harm in the wrong hands. Use it for research and on your own responsibility, keep to the law and to the model's "
    "licence, and do not offer the result to others without safeguards of your own."
)

QUESTIONS = {
    question.key: question
    for question in (
        Question(
            "goal",
            "What is your goal?",
            "Each method is good at one thing: what you want to change decides which data you need, how long it takes "
            "and how much memory it needs.",
            (
                Answer(
                    "knowledge", "Inject new knowledge/skills", Leaf("sft", "simple, fast"),
                    "facts, a domain, a task that it cannot do yet; from 100 examples on",
                ),
                Answer(
                    "preferences", "Align to human preferences", "memory",
                    "style, tone, manners: you can say which of two answers is better",
                ),
                Answer(
                    "verifiable", "Improve verifiable task performance", "verification",
                    "math, code, formats: a program can tell whether an answer is right",
                ),
                Answer(
                    "keep-capability", "Minimize capability loss", Leaf("cpo", "conservative alignment"),
                    "preferences too, but nothing else may get worse",
                ),
                Answer(
                    "remove-safety", "Remove safety constraints",
                    Leaf("abliteration", "use responsibly", RESPONSIBLE_USE),
                    "refusals taken out, no training data needed",
                ),
                Answer(
                    "runtime-control", "Need runtime control", Leaf("steering", "reversible, composable"),
                    "a dial that is turned while the model answers, and turned back",
                ),
            ),
        ),
        Question(
            "memory",
            "How much memory is there?",
            "DPO compares with a reference model, about twice the memory; ORPO needs none but is less stable. The forecast "
            "for your machine and model suggests an answer.",
            (
                Answer("available", "High budget (memory available)", Leaf("dpo", "stable, proven")),
                Answer("constrained", "Low budget (memory constrained)", Leaf("orpo", "simpler, lower memory")),
            ),
            settled_by="forecast",
        ),
        Question(
            "verification",
            "What can be verified?",
            "GRPO rewards the final answer alone; RLVR rewards each step of the reasoning, which takes longer and needs "
            "steps that can be checked.",
            (
                Answer("simple", "Simple verification (math, code)", Leaf("grpo", "no critic needed")),
                Answer("multi-step", "Complex multi-step reasoning", Leaf("rlvr", "step-by-step verification")),
            ),
        ),
    )
}  # fmt: skip


def walk(words: Sequence[str]) -> Question | Leaf:
    """Where the answers lead from the start: the question that is open, or the leaf. Raises InputError on a bad word."""
    here: Question | Leaf = QUESTIONS[START]
    for number, word in enumerate(words, start=1):
        if isinstance(here, Leaf):
            found = f"`{word}` after the answers had led to {here.method}"
            raise InputError([Problem("answers", None, str(number), found, f"{number - 1} answers")])
        here = follow(answer_of(here, word))
    return here


def follow(answer: Answer) -> Question | Leaf:
    return QUESTIONS[answer.leads] if isinstance(answer.leads, str) else answer.leads


def answer_of(question: Question, word: str) -> Answer:
    """The answer meant by its key, its number from 1, or its text. Raises InputError with the nearest valid word."""
    clean = word.strip().lower()
    for number, answer in enumerate(question.answers, start=1):
        if clean in (answer.key, str(number), answer.text.lower()):
            return answer
    keys = [answer.key for answer in question.answers]
    texts = {answer.text.lower(): answer.key for answer in question.answers}
    near = nearest_word(clean, keys) or texts.get(nearest_word(clean, texts) or "")
    accepted = f"{quoted(keys)} or a number from 1 to {len(keys)}"
    raise InputError([Problem("answers", None, question.key, f"`{word.strip()}`", accepted, near)])


def paths() -> Iterator[tuple[tuple[Answer, ...], Leaf]]:
    """Every way from the start to a leaf, in the flowchart's order."""

    def below(question: Question, way: tuple[Answer, ...]) -> Iterator[tuple[tuple[Answer, ...], Leaf]]:
        for answer in question.answers:
            there = follow(answer)
            if isinstance(there, Leaf):
                yield (*way, answer), there
            else:
                yield from below(there, (*way, answer))

    yield from below(QUESTIONS[START], ())


def path_to(method: str) -> tuple[Answer, ...] | None:
    """The answers that lead to a method; None for the two that only the strategies name."""
    return next((way for way, leaf in paths() if leaf.method == method), None)
