"""Steps of a calculation or an equation, each verified, and the final answer.

A step is *accepted* if it is true and stands on something: its equation holds exactly, and every number it starts from
is a number of the problem or the result of an accepted step before it. It is *required* if the solution needs it: in
problems whose operations can be read (the lab's), if it carries out the next operation on the present value; elsewhere,
if the final result is reached through it and it is no repetition. Where the final result is not reached, the steps count
that lead to the furthest result of the row's worked steps; in a row without those, the ones that lead to the last accepted
step, at least one fewer than a solution needs. What is true but leads nowhere is accepted and not required, and costs in
the score: accepted required steps ÷ max(required, emitted).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from engine.verify import answers as words
from engine.verify import equations
from engine.verify.interface import StepVerdict, Verdict
from engine.verify.numbers import exact_number, numbers
from engine.verify.references import Reference, reference
from engine.verify.segments import segments
from engine.verify.workers import Workers

SEPARATORS = {
    "auto": r";|\n|(?<=[.!?])\s+",
    "lines": r"\n",
    "sentences": r"(?<=[.!?])\s+|\n",
    "numbered": r"(?:^|(?<=\s))(?:[Ss]tep\s+)?\d{1,3}[.):]\s+|\n",
    "semicolons": r";|\n",
}
SPOKEN: dict[str, list[int | Fraction]] = {
    "double": [2], "doubles": [2], "doubled": [2], "twice": [2], "triple": [3], "thrice": [3], "half": [2, Fraction(1, 2)],
    "halve": [2], "halves": [2], "third": [3, Fraction(1, 3)], "quarter": [4, Fraction(1, 4)], "dozen": [12], "pair": [2],
    "percent": [100], "%": [100], "week": [7], "average": [2],
}  # fmt: skip
COUNTED = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
).split()
ARITHMETIC = r"[\d\s.,+\-*/^()\u2212\u00d7\u00f7]"
ALGEBRAIC = rf"(?:{ARITHMETIC}|(?<![A-Za-z])[A-Za-z](?![A-Za-z]))"
LONGEST_SEGMENT = 1000
MARKS = re.compile(
    r"\\boxed\{([^{}\n]{1,200})\}|####([^\n]{1,200})|\banswer\b(?:\s+is)?\s*[:=]?([^\n;]{1,200})", re.IGNORECASE
)
CHAIN = re.compile(r"Start with (\d+)\.((?: (?:Add \d+|Subtract \d+|Multiply by \d+|Double it|Triple it)\.)+)")
OPERATION = re.compile(r"(Add|Subtract|Multiply by|Double|Triple) (\d+|it)\.")


def final_answer(completion: str) -> str | None:
    """What the completion gives as its answer: after the last of ``answer``, ``####`` or in the last ``\\boxed{}``, else
    its last number. None when there is neither."""
    stated = None
    for match in MARKS.finditer(completion):
        stated = next(group for group in match.groups() if group is not None).strip()
    if stated is None:
        found = numbers(completion)
        return str(found[-1]) if found else None
    if exact_number(stated) is None and len(inside := numbers(stated)) == 1:
        return str(inside[0])
    return stated


def right_answer(completion: str, answer: str) -> bool:
    found = final_answer(completion)
    if found is None:
        return False
    one, other = exact_number(_after_equals(found)), exact_number(_after_equals(answer))
    return one == other if one is not None and other is not None else words.matches(found, answer)


def _after_equals(text: str) -> str:
    """``x = 2`` → ``2``."""
    return re.sub(r"^\s*[A-Za-z]\s*=", "", text)


@dataclass(frozen=True)
class Written:
    """A step as it stands in the completion. ``equation`` is None where an equals sign stands in something else."""

    end: int
    equation: str | None


def written_steps(completion: str, segments: Sequence[Sequence[int]], algebra: bool = False) -> list[Written]:
    """Every equation of every segment (start, end); one with an equals sign but no equation is one step, a wrong one.

    The segment that states the final answer is none.
    """
    one = ALGEBRAIC if algebra else ARITHMETIC
    equation = re.compile(rf"{one}+(?:=(?!=){one}+)+")
    steps: list[Written] = []
    for start, end in segments:
        segment = completion[start:end]
        if "=" not in segment or re.match(r"\s*(?:the\s+)?(?:final\s+)?answer\b", segment, re.IGNORECASE):
            continue
        if len(segment) > LONGEST_SEGMENT:
            steps.append(Written(end, None))
            continue
        plain = segment.replace("$", " ").replace("€", " ").replace("£", " ")
        if not algebra:
            plain = re.sub(r"(?<=[\d)])(\s*)[xX](\s*)(?=[\d(])", r"\1*\2", plain)
        if called_out := list(re.finditer(r"<<([^<>]*)>>", plain)):  # GSM8K's calculator marks
            found = [(match.end(), match[1]) for match in called_out]
        else:
            found = [(match.start() + len(match[0].rstrip(" .,\n")), match[0]) for match in equation.finditer(plain)]
        found = [(at, text.strip(" .,\n")) for at, text in found]
        steps += [Written(start + at, text) for at, text in found[:-1]]
        trailing = start + len(segment.rstrip())
        steps.append(Written(trailing, found[-1][1] if found else None))
    return steps


def problem_numbers(prompt: str) -> set[Fraction]:
    """The numbers of the problem, in digits and in words."""
    known = {abs(number) for number in numbers(prompt)}
    for word in re.findall(r"[a-z]+|%", prompt.lower()):
        known |= {Fraction(number) for number in SPOKEN.get(word, [])}
        if word in COUNTED:
            known.add(Fraction(COUNTED.index(word)))
    return known


@dataclass(frozen=True)
class Operation:
    sign: str
    operand: Fraction


def chain_operations(prompt: str) -> tuple[Fraction, list[Operation]] | None:
    """Start and operations of a problem in the lab's form, else None."""
    match = CHAIN.fullmatch(prompt.strip())
    if match is None:
        return None
    signs = {"Add": "+", "Subtract": "-", "Multiply by": "*", "Double": "*", "Triple": "*"}
    operands = {"Double": 2, "Triple": 3}
    found = [
        Operation(signs[verb], Fraction(operands.get(verb, number)))
        for verb, number in OPERATION.findall(match[2])
    ]  # fmt: skip
    return Fraction(match[1]), found


@dataclass(frozen=True)
class Checked:
    """An arithmetic step with its parts; ``tree`` is what was calculated."""

    accepted: bool
    tree: equations.Tree | None = None
    result: Fraction | None = None


def check_arithmetic(equation: str | None, known: set[Fraction]) -> Checked:
    """True, calculated from known numbers, and with a plain result."""
    if equation is None:
        return Checked(False)
    trees = [equations.parse(side) for side in equation.split("=")]
    values = [None if tree is None else equations.evaluate(tree) for tree in trees]
    if None in values or len(set(values)) != 1:
        return Checked(False)
    calculated = next((tree for tree in trees if isinstance(tree, tuple)), None)
    if calculated is None or all(isinstance(tree, tuple) for tree in trees):
        return Checked(False)  # ``9 = 9``, or no result
    stands = all(abs(leaf) in known or leaf in known for leaf in equations.leaves(calculated))
    return Checked(stands, calculated, values[0])


@lru_cache(maxsize=4096)
def worked_results(steps: tuple[str, ...]) -> tuple[Fraction, ...]:
    """The results of a row's worked steps, in their order; equations that do not hold have none."""
    found = []
    for text in steps:
        for step in written_steps(text, segments(SEPARATORS["auto"], text)):
            trees = [equations.parse(side) for side in step.equation.split("=")] if step.equation else []
            values = {None if tree is None else equations.evaluate(tree) for tree in trees}
            value = values.pop() if len(values) == 1 else None
            found += [value] if value is not None else []
    return tuple(found)


def arithmetic_steps(
    prompt: str, steps: Sequence[Written], wanted: Reference, answered: bool = False
) -> list[StepVerdict]:
    """``answered``: the completion's final answer is the right one."""
    known = problem_numbers(prompt)
    given = frozenset(known)
    checks = []
    for step in steps:
        one = check_arithmetic(step.equation, known)
        if one.accepted and one.result is not None:
            known.add(one.result)
        checks.append(one)
    chain = chain_operations(prompt)
    required = _along_chain(checks, *chain) if chain else _leading_to(checks, given, wanted, answered)
    return [
        StepVerdict(step.end, one.accepted, one.accepted and i in required)
        for i, (step, one) in enumerate(zip(steps, checks, strict=True))
    ]


def _along_chain(checks: Sequence[Checked], value: Fraction, operations: Sequence[Operation]) -> set[int]:
    """The accepted steps that carry out the operations in their order."""
    required, at = set(), 0
    for i, one in enumerate(checks):
        if at < len(operations) and one.accepted and _carries_out(one.tree, value, operations[at]):
            assert one.result is not None
            required.add(i)
            value, at = one.result, at + 1
    return required


def _carries_out(tree: equations.Tree | None, value: Fraction, operation: Operation) -> bool:
    if not isinstance(tree, tuple) or isinstance(tree[1], tuple) or isinstance(tree[2], tuple):
        return False
    sign, left, right = tree
    sides = {(left, right)} | ({(right, left)} if sign in "+*" else set())
    if sign == operation.sign and (value, operation.operand) in sides:
        return True
    return operation == Operation("*", Fraction(2)) and tree == ("+", value, value)


def _leading_to(checks: Sequence[Checked], given: frozenset[Fraction], wanted: Reference, answered: bool) -> set[int]:
    """The accepted steps through which the goal is reached: backwards from the first step that gives it. Where none
    does, from the furthest step with a result of the worked steps; where there are none of those either, from the last
    accepted step. A step whose result was known and that uses nothing new is a circle."""
    goal, results, needed = exact_number(wanted.answer), worked_results(wanted.steps), wanted.required
    if results and goal not in results:  # such as an answer that is rounded, or has a unit
        goal = results[-1]
    producers: dict[Fraction, int] = {}
    seen, used = set(given), set[Fraction]()
    for i, one in enumerate(checks):
        if not one.accepted or one.result is None or one.tree is None:
            continue
        leaves = {abs(leaf) for leaf in equations.leaves(one.tree)}
        fresh = (leaves & given) - used
        if one.result not in seen or fresh:
            producers.setdefault(one.result, i)
        seen.add(one.result)
        used |= leaves
    reached = goal in producers
    ends = [producers[goal]] if goal is not None and reached else [
        place for result, place in producers.items() if not results or result in results
    ]  # fmt: skip
    required, todo = set(), [max(ends)] if ends else []
    while todo:
        i = todo.pop()
        if i in required:
            continue
        required.add(i)
        for leaf in equations.leaves(checks[i].tree or Fraction(0)):
            source = producers.get(leaf)
            if source is not None and source < i:
                todo.append(source)
    if needed is None:
        return required
    # Who neither reaches the goal nor has the answer lacks a step at least, however many true ones there are.
    most = needed if reached or goal is None or answered else needed - 1
    return set(sorted(required)[-most:]) if most else set()


def needed_steps(prompt: str, answer: str) -> int | None:
    """How many steps a solution needs: by the problem where its operations can be read, else by what its row says."""
    chain = chain_operations(prompt)
    return len(chain[1]) if chain else reference(answer).required


def step_score(steps: Sequence[StepVerdict], required: int | None) -> float:
    """Accepted required steps ÷ max(required, emitted); 0 when there is nothing."""
    whole = max(required or 0, len(steps))
    return sum(step.accepted and step.required for step in steps) / whole if whole else 0.0


class Steps:
    """The verifier: the reward is the final answer; the steps have their own verdicts and are the component ``steps``."""

    name = "steps"

    def __init__(
        self, split: str = "auto", separator: str | None = None, algebra: bool = False, seconds: float = 3.0
    ) -> None:
        self._separator = separator
        self._split = SEPARATORS[split]
        self._workers = Workers("symbolic", "follows", seconds) if algebra else None
        # A user's pattern may take for ever; ours do not.
        self._splitters = Workers("text", "segments", seconds) if separator else None

    def verify(self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]) -> list[Verdict]:
        verdicts = []
        all_steps = self.steps(prompts, completions, answers)
        for prompt, completion, answer, steps in zip(prompts, completions, answers, all_steps, strict=True):
            wanted = reference(answer).answer
            right = float(right_answer(completion, wanted))
            score = step_score(steps, self.required(prompt, answer))
            detail = f"{sum(s.accepted and s.required for s in steps)} of {len(steps)} steps count"
            detail += "" if right else f"; found {final_answer(completion)}, wanted {wanted}"
            verdicts.append(Verdict(right, {"answer": right, "steps": score}, detail))
        return verdicts

    def steps(
        self, prompts: Sequence[str], completions: Sequence[str], answers: Sequence[str]
    ) -> list[list[StepVerdict]]:
        found = []
        for prompt, completion, answer, edges in zip(
            prompts, completions, answers, self._segments(completions), strict=True
        ):
            wanted = reference(answer)
            steps = written_steps(completion, edges, self._workers is not None)
            if self._workers is not None and "=" in prompt:
                found.append(self._algebraic(prompt, steps))
            else:
                found.append(arithmetic_steps(prompt, steps, wanted, right_answer(completion, wanted.answer)))
        return found

    def _segments(self, completions: Sequence[str]) -> list[list[tuple[int, int]]]:
        """A completion whose splitting takes too long is one segment."""
        if self._splitters is None:
            return [segments(self._split, completion) for completion in completions]
        found = self._splitters.call([(self._separator, completion) for completion in completions])
        return [one.value or [(0, len(text))] for one, text in zip(found, completions, strict=True)]

    def _algebraic(self, prompt: str, steps: Sequence[Written]) -> list[StepVerdict]:
        """Each equation has the solutions of one before it, the problem's to begin with; a repetition is idle."""
        assert self._workers is not None
        known = [
            step.equation for step in written_steps(prompt, segments(SEPARATORS["auto"], prompt), True) if step.equation
        ]
        said = {_bare(equation) for equation in known}
        verdicts = []
        for step in steps:
            accepted = bool(step.equation) and self._workers.call([(step.equation, known)])[0].value is True
            new = step.equation is not None and _bare(step.equation) not in said
            verdicts.append(StepVerdict(step.end, accepted, accepted and new))
            if accepted and step.equation is not None:
                known.append(step.equation)
                said.add(_bare(step.equation))
        return verdicts

    def required(self, prompt: str, answer: str) -> int | None:
        return needed_steps(prompt, answer)

    def close(self) -> None:
        for workers in (self._workers, self._splitters):
            if workers is not None:
                workers.close()


def _bare(equation: str) -> str:
    return "".join(equation.split())
