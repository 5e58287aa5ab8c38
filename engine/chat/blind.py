"""A blind comparison of two stages: the same prompts, sides shuffled, choices kept as preference pairs to train on."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from engine.chat.messages import COMPARED, TUNED, Done, Message, Say
from engine.chat.places import methods_of
from engine.chat.settings import Settings
from engine.data.formats import Conversation
from engine.data.prepare import _normal
from engine.evaluate.statistics import wilson
from engine.runs.directory import RunDirectory
from engine.runs.files import write_atomically
from recipes.errors import InputError, Problem
from recipes.load import load_recipe
from recipes.resources import is_lab, resolve_source

Choice = Literal["left", "right", "tie", "bad"]
CHOICES: tuple[Choice, ...] = ("left", "right", "tie", "bad")
FORMS = ("prompt", "question", "conversation", "preference", "contrast")
HELD_OUT = ("heldout.jsonl", "harmless-test.jsonl", "*/heldout.jsonl")
"""What a stage keeps of held-out data (an abliteration its harmless prompts, a steering stage each persona's)."""


@dataclass(frozen=True)
class Pair:
    """One prompt and what each stage says to it; ``whole``: both replies ended by themselves."""

    prompt: list[Message]
    replies: dict[str, str]
    whole: bool

    @property
    def same(self) -> bool:
        return self.replies[TUNED].strip() == self.replies[COMPARED].strip()


@dataclass(frozen=True)
class Tally:
    """``share``: of the decided pairs those in which the tuned stage was preferred, with its 95 % Wilson interval."""

    tuned: int
    compared: int
    tie: int
    bad: int
    same: int
    """Both said the same: never shown, counted here."""

    @property
    def decided(self) -> int:
        return self.tuned + self.compared

    @property
    def share(self) -> float | None:
        return self.tuned / self.decided if self.decided else None

    @property
    def interval(self) -> tuple[float, float]:
        return wilson(self.tuned, self.decided)

    def words(self, stage: str, against: str) -> str:
        rest = f"{self.tie} ties, {self.bad} both bad, {self.same} the same"
        if self.share is None:
            return f"nothing decided yet ({rest})"
        low, high = self.interval
        sure = "no preference can be told from chance" if low <= 0.5 <= high else "significant at 95 %"
        return (
            f"{stage} preferred in {self.tuned} of {self.decided} ({self.share:.0%}, 95 % interval {low:.0%} to "
            f"{high:.0%}) over {against}: {sure}; {rest}"
        )


class Blind:
    """Kept under ``<run>/blind/<name>``; the same question asked again goes on where it was left."""

    def __init__(
        self, run: RunDirectory, stage: str, against: str, prompts: Sequence[list[Message]], settings: Settings
    ) -> None:
        if stage == against:
            raise InputError([Problem(run.id, None, "--against", f"stage {stage} on both sides", "another stage")])
        order = random.Random(f"order {settings.seed}")
        self.prompts = list(prompts)
        order.shuffle(self.prompts)
        if settings.system:
            self.prompts = [[{"role": "system", "content": settings.system}, *prompt] for prompt in self.prompts]
        self.run, self.stage, self.against, self.settings = run, stage, against, settings
        facts = json.dumps([self.prompts, msgspec.to_builtins(settings)], sort_keys=True)
        self.folder = run.path / "blind" / f"{stage}-against-{against}-{hashlib.sha256(facts.encode()).hexdigest()[:8]}"
        self.pairs: list[Pair] = [Pair(**row) for row in _rows(self.folder / "pairs.jsonl")]
        self.choices: dict[int, Choice] = {}
        for row in _rows(self.folder / "choices.jsonl"):
            if row["choice"] is None:
                self.choices.pop(row["pair"], None)
            else:
                self.choices[row["pair"]] = row["choice"]
        self._replies: dict[str, Done] = {}

    # ---- pairs ---------------------------------------------------------------------------------------------------

    def wanted(self) -> Say | None:
        """What to ask for the next pair that is not there yet; None when all are."""
        index = len(self.pairs)
        if index >= len(self.prompts):
            return None
        self._replies = {}
        settings = self.settings
        return Say(
            turn=index,
            conversations={side: self.prompts[index] for side in (TUNED, COMPARED)},
            temperature=settings.temperature,
            top_p=settings.top_p,
            max_new_tokens=settings.max_tokens,
            seed=(settings.seed * 1_000_003 + index) % 2**31,
        )

    def replied(self, done: Done) -> bool:
        """Take a reply; True when with it a pair is whole (and kept)."""
        if done.turn != len(self.pairs) or done.ending == "stopped":
            return False
        self._replies[done.side] = done
        if len(self._replies) < 2:
            return False
        replies = {side: one.text for side, one in self._replies.items()}
        pair = Pair(self.prompts[done.turn], replies, all(one.ending == "end" for one in self._replies.values()))
        self.pairs.append(pair)
        self._append("pairs.jsonl", asdict(pair))
        return True

    # ---- judging -------------------------------------------------------------------------------------------------

    def open(self) -> int | None:
        """The first pair that is to be judged; None when there is none (yet). Equal replies need no judge."""
        return next((i for i, pair in enumerate(self.pairs) if i not in self.choices and not pair.same), None)

    @property
    def finished(self) -> bool:
        return len(self.pairs) == len(self.prompts) and self.open() is None

    def sides(self, index: int) -> tuple[str, str]:
        """Which stage is on the left and which on the right; drawn from the seed."""
        swapped = random.Random(f"sides {self.settings.seed} {index}").random() < 0.5
        return (COMPARED, TUNED) if swapped else (TUNED, COMPARED)

    def shown(self, index: int) -> tuple[str, str]:
        left, right = self.sides(index)
        return self.pairs[index].replies[left], self.pairs[index].replies[right]

    def choose(self, index: int, choice: Choice) -> None:
        self.choices[index] = choice
        self._append("choices.jsonl", {"pair": index, "choice": choice, "left": self.sides(index)[0]})
        self._keep_preferences()

    def undo(self) -> int | None:
        """Take the last choice back; which pair it was of."""
        if not self.choices:
            return None
        index = list(self.choices)[-1]
        del self.choices[index]
        self._append("choices.jsonl", {"pair": index, "choice": None, "left": self.sides(index)[0]})
        self._keep_preferences()
        return index

    def preferred(self, index: int) -> str | None:
        """The side that was chosen; None for a tie, both bad, or nothing."""
        left, right = self.sides(index)
        return {"left": left, "right": right}.get(self.choices.get(index, ""))

    def tally(self) -> Tally:
        chosen = [self.preferred(index) for index in self.choices]
        words = list(self.choices.values())
        same = sum(pair.same for pair in self.pairs)
        return Tally(chosen.count(TUNED), chosen.count(COMPARED), words.count("tie"), words.count("bad"), same)

    # ---- what it gives -------------------------------------------------------------------------------------------

    @property
    def preferences(self) -> Path:
        """The decided pairs as ``prompt``, ``chosen``, ``rejected``: DPO, ORPO and CPO train on them."""
        return self.folder / "preferences.jsonl"

    def _keep_preferences(self) -> None:
        lines = []
        for index in sorted(self.choices):
            side, pair = self.preferred(index), self.pairs[index]
            if side is None:
                continue
            other = COMPARED if side == TUNED else TUNED
            row = {"prompt": pair.prompt, "chosen": pair.replies[side], "rejected": pair.replies[other]}
            lines.append(json.dumps(row, ensure_ascii=False) + "\n")
        write_atomically(self.preferences, "".join(lines))

    def result(self) -> dict[str, Any]:
        tally = self.tally()
        low, high = tally.interval
        return {
            "run": self.run.id, "stage": self.stage, "against": self.against, "prompts": len(self.prompts),
            **asdict(tally), "share": tally.share, "low": low, "high": high, "finished": self.finished,
            "preferences": str(self.preferences) if self.preferences.is_file() else None,
        }  # fmt: skip

    def _append(self, name: str, row: dict[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def prompts_from(run: RunDirectory, where: str, stage: str, wanted: int, seed: int) -> list[list[Message]]:
    """``wanted`` different prompts: of a file, of the run's held-out data (``heldout``) or general ones (``general``).
    Raises InputError."""
    if wanted < 1:
        raise InputError([Problem("blind", None, "-n", f"`{wanted}`", "at least 1")])
    if where == "heldout":
        files = _held_out(run, stage)
    elif where == "general":
        recipe = load_recipe(str(run.recipe)).recipe
        name = "lab/general-heldout.jsonl" if is_lab(recipe.model) else "builtin/general.jsonl"
        files = [resolve_source(name, run.path, "blind", "--prompts")]
    else:
        files = [resolve_source(where, Path.cwd(), "blind", "--prompts")]
    found: dict[str, list[Message]] = {}
    for file in files:
        for row in _normal(file, FORMS, None, True):
            asked = _asked(row)
            if asked:
                found[json.dumps(asked, sort_keys=True)] = asked
    if not found:
        raise InputError([Problem(str(files[0]), None, "--prompts", "no prompt", "rows with a prompt")])
    keys = sorted(found)
    random.Random(f"prompts {seed}").shuffle(keys)
    return [found[key] for key in keys[:wanted]]


def _asked(row: Any) -> list[Message]:
    """The turns up to and with the last question."""
    messages = [dict(message) for message in (row.messages if isinstance(row, Conversation) else row.prompt)]
    while messages and messages[-1]["role"] != "user":
        messages.pop()
    return messages


def _held_out(run: RunDirectory, stage: str) -> list[Path]:
    """Of that stage, else of the stages before it."""
    methods = methods_of(run)
    last = int(stage) - 1 if stage.isdigit() else 0
    for index in range(last, -1, -1):
        folder = run.data_folder(index, methods[index])
        found = [path for pattern in HELD_OUT for path in sorted(folder.glob(pattern))]
        if found:
            return found
    accepted = "`general`, or a file with prompts"
    raise InputError([Problem(run.id, None, "--prompts", "no held-out data in this run", accepted)])


def _rows(path: Path) -> list[dict[str, Any]]:
    """Whole lines; one that a kill tore off is passed over."""
    if not path.is_file():
        return []
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found
