"""What is gathered of a dataset row by row, and summed up and judged at the end."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from engine.data.duplicates import Near, Seen
from engine.data.formats import Conversation, Preference, Question
from engine.data.inspection import Inspection
from engine.data.lengths import KEPT, Sample, summarize
from engine.data.readings import AnyForm
from engine.data.turns import cut, example_of, key_of, longest_side, turns_of
from engine.data.worked import says_steps

LENGTH_BIAS = 0.75


@dataclass
class Tally:
    """What is gathered row by row and summed up at the end."""

    seen: Seen = field(default_factory=Seen)
    near: Near = field(default_factory=Near)
    lengths: Sample = field(default_factory=lambda: Sample(KEPT))
    texts: Sample | None = None
    """Conversations to tokenize; None without a tokenizer."""
    questions: Sample | None = None
    """Questions with an answer to try a verifier on; None without a verifier."""
    stepwise: bool = False
    """The verifier sees steps: it gets what the rows say of them."""
    longest: int = 0
    columns: Counter[str] = field(default_factory=Counter)
    first_duplicate: tuple[int, int] | None = None
    first_same: int | None = None
    score_sum: float = 0.0
    low: float = float("inf")
    high: float = float("-inf")
    longer: int = 0
    pairs: int = 0
    unfinished: int = 0
    broken: int = 0


def count(found: Inspection, tally: Tally, form: AnyForm, line: int, asked: Question | None = None) -> None:
    """``asked``: of a question with an answer the one that a method with steps gets."""
    turns = turns_of(form)
    text = "\n".join(turn["content"] for turn in turns)
    tally.lengths.add(len(text))
    tally.longest = max(tally.longest, len(text))
    if tally.texts is not None:
        tally.texts.add([cut(turn) for turn in longest_side(form)])
    tally.broken += "\ufffd" in text
    before = tally.seen.add(f"{type(form).__name__}\0{key_of(form)}", line)
    if before is not None:
        found.duplicates += 1
        tally.first_duplicate = tally.first_duplicate or (before, line)
    else:
        tally.near.add(text, line)
    if not found.example:
        found.example = example_of(form)
    if isinstance(form, Preference):
        _count_pair(found, tally, form, line, repeated=before is not None)
    elif isinstance(form, Conversation):
        tally.unfinished += form.messages[-1]["role"] != "assistant"
    elif isinstance(form, Question):
        found.unanswerable += form.answer is None
        if asked is not None:
            found.with_steps += before is None and says_steps(asked)
            if tally.questions is not None:
                kept = asked.answer if tally.stepwise else form.answer
                tally.questions.add((form.prompt[-1]["content"], kept))


def _count_pair(found: Inspection, tally: Tally, pair: Preference, line: int, repeated: bool) -> None:
    if pair.chosen.strip() == pair.rejected.strip():
        found.same_sides += not repeated
        tally.first_same = tally.first_same or line
        return
    tally.pairs += 1
    tally.longer += len(pair.chosen) > len(pair.rejected)
    if pair.score_chosen is not None and pair.score_rejected is not None:
        found.scored += 1
        tally.score_sum += pair.score_chosen - pair.score_rejected
        tally.low = min(tally.low, pair.score_chosen, pair.score_rejected)
        tally.high = max(tally.high, pair.score_chosen, pair.score_rejected)


def sum_up(found: Inspection, tally: Tally, limit: int) -> None:
    found.columns = dict(tally.columns.most_common(40))
    found.near_duplicates, found.near_compared = tally.near.pairs, tally.near.compared
    if tally.lengths.items:
        found.characters = summarize(
            "characters", tally.lengths.items, tally.lengths.seen, tally.longest, limit, False, False
        )
    say = found.warnings.append
    if found.bad_rows > len(found.problems):
        say(f"{found.bad_rows - len(found.problems)} more rows are wrong in such ways")
    if tally.first_duplicate:
        first, again = tally.first_duplicate
        where = f" (line {again}" + (f" repeats line {first})" if first else ")")
        say(f"{found.duplicates} of {found.rows} rows occur more than once and are used once{where}")
    if tally.near.example:
        first, again = tally.near.example
        say(
            f"{found.near_duplicates} of the first {found.near_compared} longer rows are nearly another one "
            f"(line {again} is nearly line {first}): they count for less than they seem"
        )
    if found.same_sides:
        say(
            f"{found.same_sides} pairs have the same text as chosen and rejected (line {tally.first_same}) and are left out"
        )
    if found.unanswerable:
        say(f"{found.unanswerable} questions have no answer (null): only calibration and anti-hallucination use those")
    if tally.unfinished:
        say(
            f"{tally.unfinished} conversations do not end with the assistant: what follows its last turn is not trained on"
        )
    if tally.broken:
        say(f"{tally.broken} rows hold the sign for undecodable text (U+FFFD): an earlier conversion lost letters")
    if tally.pairs:
        _judge_pairs(found, tally)
    if found.reading and found.reading.form == "prompt":
        say("prompts alone: no method trains on them; they can be the general data of SFT (`replay: {source: …}`)")


def _judge_pairs(found: Inspection, tally: Tally) -> None:
    found.chosen_longer = tally.longer / tally.pairs
    if found.scored:
        found.gap = tally.score_sum / found.scored / ((tally.high - tally.low) or 1.0)
        if found.gap < 0.15:
            found.warnings.append(f"the preference gap is {found.gap:.2f} (n {found.scored}); 0.15 or more is wanted")
    else:
        found.warnings.append("no scores: the preference gap is unknown (0.15 or more is wanted)")
    if not 1 - LENGTH_BIAS <= found.chosen_longer <= LENGTH_BIAS:
        longer = "chosen" if found.chosen_longer > 0.5 else "rejected"
        share = max(found.chosen_longer, 1 - found.chosen_longer)
        found.warnings.append(
            f"the {longer} side is the longer one in {share:.0%} of the pairs: length may be what is learnt"
        )


def judge_lengths(found: Inspection) -> None:
    lengths = found.tokens or found.characters
    if lengths and lengths.truncated > 0:
        about = "" if lengths.exact else "about "
        rest = "" if lengths.exact else ", at 4 characters a token; --model says exactly"
        found.warnings.append(
            f"{about}{lengths.truncated:.1%} of the rows are longer than {lengths.limit} tokens and are cut off{rest}"
        )
