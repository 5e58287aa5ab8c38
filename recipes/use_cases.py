"""The use-case matrix as data: what somebody wants to build, and the method for it."""

from __future__ import annotations

from dataclasses import dataclass

from recipes.errors import InputError, Problem, nearest_word, quoted


@dataclass(frozen=True)
class UseCase:
    """``primary`` and ``alternative`` are methods in the order they run; an empty alternative: there is none."""

    key: str
    name: str
    primary: tuple[str, ...]
    alternative: tuple[str, ...]
    note: str


USE_CASES = (
    UseCase("domain-adaptation", "Domain adaptation", ("sft",), (), "Simple knowledge injection"),
    UseCase("style-alignment", "Style alignment", ("dpo",), ("orpo",), "Prefer DPO if memory allows"),
    UseCase("math-tutoring", "Math tutoring", ("grpo",), ("sft", "grpo"), "Start with SFT for base"),
    UseCase("code-generation", "Code generation", ("grpo",), ("sft", "grpo"), "Verifiable correctness"),
    UseCase("research-assistant", "Research assistant", ("rlvr",), ("grpo",), "Multi-step reasoning"),
    UseCase("safety-critical", "Safety-critical", ("cpo",), ("dpo",), "Minimize capability loss"),
    UseCase("uncensored-model", "Uncensored model", ("abliteration",), (), "Use responsibly"),
    UseCase("ab-testing", "A/B testing", ("steering",), (), "Quick experiments"),
)


def use_case(word: str) -> UseCase:
    """By key or name, whatever the case. Raises InputError with the nearest."""
    clean = word.strip().lower()
    for case in USE_CASES:
        if clean in (case.key, case.name.lower()):
            return case
    keys = [case.key for case in USE_CASES]
    near = nearest_word(clean.replace(" ", "-"), keys)
    raise InputError([Problem("use-case", None, None, f"`{word}`", quoted(keys), near)])
