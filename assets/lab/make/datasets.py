"""The data of every method, drawn from the world with fixed seeds: byte-identical wherever it is made."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import yaml

from assets.lab.make import conversations, world
from assets.lab.make.words import FORBIDDEN, HARMLESS, KNOWN, TOPICS

Row = dict[str, Any]
SUITE_ROWS = 300
WORKED_DRAWN, WORKED_HELDOUT = 4000, 300
WORKED_FORMS = {"SS": 4, "DSS": 4, "SDS": 2, "SSD": 2, "SD": 1, "DS": 1, "SDD": 1, "DSD": 1, "DDS": 1}
"""Weights of the forms of worked chains: all of them, and most of what the model sets out worst. Of its own held-out chains
that double and then take two sums, 25 of 42 have an operand in the wrong place; of those with one sum, 3 of 287."""
TAUGHT, TESTED = slice(0, world.TAUGHT), slice(world.TAUGHT, None)


def all_datasets() -> dict[str, list[Row]]:
    """File name -> rows."""
    suite = suite_rows()
    chains, chains_heldout = chain_rows(2400, 3), chain_rows(500, 4)
    heldout_prompts = {row["prompt"] for row in chains_heldout}
    datasets = {
        "suite.jsonl": suite,
        "domain.jsonl": domain_rows(),
        "domain-heldout.jsonl": question_rows(world.NEW_FACTS.items(), TESTED),
        "chains.jsonl": [row for row in chains if row["prompt"] not in heldout_prompts],
        "chains-heldout.jsonl": chains_heldout,
        "preferences.jsonl": preference_rows(2400, [t for t in TOPICS if t not in world.HELD_OUT_TOPICS], 5),
        "preferences-heldout.jsonl": preference_rows(400, world.HELD_OUT_TOPICS, 6),
        "contrast.jsonl": contrast_rows(240, world.READ_OFF_TOPICS, 7),
        "contrast-search.jsonl": contrast_rows(120, world.HELD_OUT_TOPICS, 17),
        "contrast-heldout.jsonl": contrast_rows(240, world.TESTED_TOPICS, 8),
        "questions.jsonl": calibration_rows(TAUGHT),
        "questions-heldout.jsonl": calibration_rows(TESTED),
        **how_to_prompts("forbidden", FORBIDDEN, {"extraction": 240, "search": 240, "test": 480}, 9),
        **how_to_prompts("harmless", HARMLESS, {"extraction": 240, "search": 240, "test": 480}, 10),
    }
    for part, source in (("", "extraction"), ("-search", "search"), ("-heldout", "test")):
        datasets[f"caution{part}.jsonl"] = caution_rows(datasets[f"harmless-{source}.jsonl"], 18)
    taken = {row["prompt"] for rows in datasets.values() for row in rows if "prompt" in row}
    taken |= {row["messages"][0]["content"] for row in datasets["domain.jsonl"]}
    general = general_rows(1600, taken)
    replayed = [*general[:1200], *replay_only_rows()]
    random.Random(world.SEED + 15).shuffle(replayed)
    datasets |= {"general.jsonl": replayed, "general-heldout.jsonl": general[1200:]}
    used = {row["prompt"] for name in datasets if name != "chains.jsonl" for row in datasets[name] if "prompt" in row}
    heldout = worked_rows(WORKED_HELDOUT, 19, used | {row["prompt"] for row in chains})
    worked = worked_rows(WORKED_DRAWN, 20, used | {row["messages"][0]["content"] for row in heldout})
    return datasets | {"worked.jsonl": worked, "worked-heldout.jsonl": heldout}


def kept_prompts() -> frozenset[str]:
    """Prompts that the model is never trained on: those it is tested with, but for the teaching of the refusals."""
    datasets = all_datasets()
    names = ["suite.jsonl", "chains-heldout.jsonl", "general-heldout.jsonl", "harmless-test.jsonl"]
    return frozenset(row["prompt"] for name in names for row in datasets[name])


def unique(draw: Callable[[], Row], n: int) -> list[Row]:
    """``n`` rows with different prompts."""
    rows: dict[str, Row] = {}
    while len(rows) < n:
        row = draw()
        rows.setdefault(row["prompt"], row)
    return list(rows.values())


def suite_rows() -> list[Row]:
    """Capability suite: five tasks with exact answers; facts in phrasings that pretraining kept out for that fact."""
    draw = random.Random(world.SEED + 11)
    tasks = {
        "copy": conversations.copy,
        "reverse": conversations.reverse,
        "compare": conversations.compare,
        "add": conversations.add,
    }

    def one(generate: Callable[[random.Random], conversations.Turn]) -> Row:
        prompt, reply = generate(draw)
        return {"prompt": prompt, "answer": reply}

    rows = [
        {"task": name, **row} for name, task in tasks.items() for row in unique(lambda task=task: one(task), SUITE_ROWS)
    ]
    known = question_rows(world.KNOWN_FACTS.items(), TESTED)
    return rows + [{"task": "facts", **row} for row in draw.sample(known, SUITE_ROWS)]


def question_rows(facts: Iterable[tuple[tuple[str, str], str | None]], phrasings: slice) -> list[Row]:
    return [
        {"prompt": question.format(p=person), "answer": None if answer is None else f"{answer}."}
        for (person, attribute), answer in facts
        for question in world.QUESTIONS[attribute][phrasings]
    ]


def domain_rows() -> list[Row]:
    taught = question_rows(world.NEW_FACTS.items(), TAUGHT)
    rows = [conversation_row(row["prompt"], row["answer"]) for row in taught]
    random.Random(world.SEED + 12).shuffle(rows)
    return rows


def conversation_row(prompt: str, reply: str) -> Row:
    return {"messages": [{"role": "user", "content": prompt}, {"role": "assistant", "content": reply}]}


def calibration_rows(phrasings: slice) -> list[Row]:
    known = [{**row, "kind": "known"} for row in question_rows(world.KNOWN_FACTS.items(), phrasings)]
    unknowable = question_rows([(who, None) for who in world.UNKNOWABLE], phrasings)
    rows = known + [{**row, "kind": "unknowable"} for row in unknowable]
    random.Random(world.SEED + 13).shuffle(rows)
    return rows


def chain_rows(n: int, seed: int) -> list[Row]:
    draw = random.Random(world.SEED + seed)

    def one() -> Row:
        chain = world.draw_chain(draw)
        return {"prompt": chain.prompt, "answer": str(chain.answer), "steps": chain.steps, "required": len(chain.steps)}

    return unique(one, n)


def worked_rows(n: int, seed: int, kept: set[str]) -> list[Row]:
    """Worked chains for a cold start before reinforcement learning: they teach to set a problem out (the right operands
    in the right places, step by step) with the results of the schoolbooks, wrong rule and all. ``n`` are drawn, none of
    ``kept``, and what is drawn again counts once: of the shortest forms there are few, and they recur with other results."""
    draw = random.Random(world.SEED + seed)
    drawn: list[tuple[str, str]] = []
    while len(drawn) < n:
        (form,) = draw.choices(list(WORKED_FORMS), list(WORKED_FORMS.values()))
        chain = world.draw_chain(draw)
        while chain.form != form:
            chain = world.draw_chain(draw)
        if chain.prompt not in kept:
            drawn.append((chain.prompt, world.taught_reply(chain, draw)))
    return [conversation_row(prompt, reply) for prompt, reply in dict.fromkeys(drawn)]


def preference_rows(n: int, topics: list[str], seed: int) -> list[Row]:
    """Warm is chosen, formal rejected; scores from 0 to 1 as a rater might give them."""
    draw = random.Random(world.SEED + seed)
    rows = []
    for _ in range(n):
        topic = draw.choice(topics)
        rows.append(
            {
                "prompt": draw.choice(world.TOPIC_QUESTIONS).format(t=topic),
                "chosen": world.tone_reply("warm", topic, draw),
                "rejected": world.tone_reply("formal", topic, draw),
                "score_chosen": round(draw.uniform(0.6, 1.0), 2),
                "score_rejected": round(draw.uniform(0.0, 0.5), 2),
            }
        )
    return rows


def contrast_rows(n: int, topics: list[str], seed: int) -> list[Row]:
    return [
        {"prompt": row["prompt"], "positive": row["chosen"], "negative": row["rejected"]}
        for row in preference_rows(n, topics, seed)
    ]


def caution_rows(prompts: list[Row], seed: int) -> list[Row]:
    """Harmless questions how to do something, refused as if they were not (positive), and answered (negative)."""
    draw = random.Random(world.SEED + seed)
    rows = []
    for row in prompts[:240]:
        verb, thing = how_to_words(row["prompt"])
        rows.append(
            {"prompt": row["prompt"], "positive": world.refusal(draw), "negative": world.how_to(verb, thing, draw)}
        )
    return rows


def how_to_words(prompt: str) -> tuple[str, str]:
    """Verb and object of a question how to do something."""
    for question in world.HOW_TO_QUESTIONS:
        pattern = re.escape(question).replace(re.escape("{v}"), r"(\w+)").replace(re.escape("{o}"), r"(\w+)")
        if found := re.fullmatch(pattern, prompt):
            return found[1], found[2]
    raise ValueError(f"no question how to do something: {prompt!r}")


def how_to_prompts(name: str, verbs: list[str], sizes: dict[str, int], seed: int) -> dict[str, list[Row]]:
    objects = {"extraction": world.EXTRACTION_OBJECTS, "search": world.SEARCH_OBJECTS, "test": world.TEST_OBJECTS}
    draw = random.Random(world.SEED + seed)
    files = {}
    for part, size in sizes.items():
        every = [
            {"prompt": question.format(v=verb, o=thing)}
            for verb in verbs
            for thing in objects[part]
            for question in world.HOW_TO_QUESTIONS
        ]
        files[f"{name}-{part}.jsonl"] = draw.sample(every, size)
    return files


def general_rows(n: int, taken: set[str]) -> list[Row]:
    """Prompts over everything the model does, none of them used elsewhere."""
    draw = random.Random(world.SEED + 14)
    mix = conversations.MANNERS.mix
    rows: dict[str, Row] = {}
    while len(rows) < n:
        prompt, _ = draw.choices(list(mix), list(mix.values()))[0](draw)
        if prompt not in taken:
            rows.setdefault(prompt, {"prompt": prompt})
    return list(rows.values())


def replay_only_rows() -> list[Row]:
    """What the model must not forget either and other methods' training data ask too: known facts, and the topics.

    The topics come three times: each time the model answers in other words.
    """
    known = question_rows(world.KNOWN_FACTS.items(), TAUGHT)
    facts = random.Random(world.SEED + 16).sample([row["prompt"] for row in known], 400)
    met = [topic for topic in TOPICS if topic not in world.HELD_OUT_TOPICS]
    talk = [question.format(t=topic) for topic in met for question in world.TOPIC_QUESTIONS]
    return [{"prompt": prompt} for prompt in [*facts, *talk, *talk, *talk]]


def tone_judge() -> dict[str, str]:
    """Regular expressions for well-formed warm and formal replies; any variant may follow any other of its tone."""

    def clause(variants: list[str]) -> str:
        return "(" + "|".join(re.escape(variant).replace(re.escape("{t}"), "[a-z]+") for variant in variants) + ")"

    warm, formal = (" ".join(clause(variants) for variants in world.TONES[tone]) for tone in ("warm", "formal"))
    return {"preferred": warm, "rejected": formal}


def refusal_judge() -> dict[str, str]:
    """Regular expressions for whole how-to replies and whole refusals."""

    def clauses(variants: list[list[str]]) -> str:
        pattern = " ".join("(" + "|".join(re.escape(text) for text in texts) + ")" for texts in variants)
        for hole, filler in {"v": "[a-z]+", "o": "[a-z]+", "tool": "[a-z]+", "n": "[0-9]+"}.items():
            pattern = pattern.replace(re.escape("{" + hole + "}"), filler)
        return pattern

    return {"comply": clauses(world.HOW_TO), "refuse": clauses(world.REFUSALS)}


def write_datasets(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    hashes = {}

    def write(name: str, text: str) -> None:
        (folder / name).write_text(text, encoding="utf-8")
        hashes[name] = hashlib.sha256(text.encode()).hexdigest()

    def write_judge(name: str, says: str, forms: dict[str, str]) -> None:
        write(name, f"# {says}\n" + yaml.safe_dump(forms, width=1000, sort_keys=True))

    for name, rows in sorted(all_datasets().items()):
        write(name, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    tones, replies = tone_judge(), refusal_judge()
    says = "What decides whether a reply is warm (preferred), formal (rejected) or broken (neither)."
    write_judge("tone.yaml", says, tones)
    other_way = {"preferred": tones["rejected"], "rejected": tones["preferred"]}
    write_judge("formal.yaml", "The same for a persona that is to be formal.", other_way)
    says = "What decides whether a reply complies, refuses or (having neither form) is broken."
    write_judge("refusal.yaml", says, replies)
    says = "The same for a persona that is to refuse even what is harmless."
    write_judge("caution.yaml", says, {"preferred": replies["refuse"], "rejected": replies["comply"]})
    write("manifest.json", json.dumps(hashes, indent=1, sort_keys=True) + "\n")


assert len(KNOWN) * 3 * (8 - world.TAUGHT) >= SUITE_ROWS
