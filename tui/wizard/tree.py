"""The flowchart as a drawn tree, with the path that was taken lit."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from recipes.comparison import short_title
from recipes.flowchart import QUESTIONS, START, Leaf, Question, follow
from recipes.methods import cards


@dataclass(frozen=True)
class Branch:
    """One line of the tree. ``twig`` is what is drawn before the text; ``leaf`` the method that it ends in."""

    twig: str
    text: str
    leaf: str
    light: str
    """``taken``, ``pointed`` (the answer under the cursor and what lies below it), ``open`` or ``dark``."""


def tree(taken: Sequence[str], pointed: str | None = None, ascii_only: bool = False) -> list[Branch]:
    """The whole flowchart. ``taken`` are the keys of the answers given, ``pointed`` the one under the cursor."""
    signs = ("|- ", "`- ", "|  ") if ascii_only else ("├─ ", "└─ ", "│  ")
    wanted = (*taken, pointed) if pointed else tuple(taken)

    def below(question: Question, way: tuple[str, ...], twig: str) -> Iterator[Branch]:
        for number, answer in enumerate(question.answers, start=1):
            last = number == len(question.answers)
            here, there = (*way, answer.key), follow(answer)
            leaf = short_title(cards()[there.method]) if isinstance(there, Leaf) else ""
            yield Branch(twig + signs[1 if last else 0], answer.text, leaf, _light(here, taken, wanted))
            if isinstance(there, Question):
                yield from below(there, here, twig + ("   " if last else signs[2]))

    root = QUESTIONS[START]
    return [Branch("", root.text, "", "taken"), *below(root, (), "")]


def _light(here: tuple[str, ...], taken: Sequence[str], wanted: tuple[str, ...]) -> str:
    if here == tuple(taken[: len(here)]):
        return "taken"
    if len(wanted) > len(taken) and here[: len(wanted)] == wanted:
        return "pointed"
    return "open" if here[: len(taken)] == tuple(taken) else "dark"
