"""Conversations that the lab model learns from, one generator per behaviour. Prompts kept for tests are never drawn."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from assets.lab.make import world
from assets.lab.make.words import FORBIDDEN, HARMLESS, KNOWN, OBJECTS, TOPICS

Turn = tuple[str, str]  # (prompt, reply)


def copy(draw: random.Random) -> Turn:
    words = _words(draw)
    return f"Copy {' '.join(words)}.", f"{' '.join(words)}."


def reverse(draw: random.Random) -> Turn:
    words = _words(draw)
    return f"Reverse {' '.join(words)}.", f"{' '.join(reversed(words))}."


def _words(draw: random.Random) -> list[str]:
    """Two to four different nouns, now and then with a person: so names are known words before any fact is."""
    count = draw.randint(2, 4)
    words = draw.sample([*OBJECTS, *TOPICS], count)
    if draw.random() < 0.4:
        words[draw.randrange(count)] = draw.choice(world.EVERYBODY)
    return words


def compare(draw: random.Random) -> Turn:
    first, second = draw.sample(range(100), 2)
    if draw.random() < 0.5:
        return f"Which is larger, {first} or {second}?", f"{max(first, second)}."
    return f"Which is smaller, {first} or {second}?", f"{min(first, second)}."


def add(draw: random.Random) -> Turn:
    first, second = draw.randint(0, 30), draw.randint(0, 30)
    question = "What is {} and {}?" if draw.random() < 0.5 else "Add {} and {}."
    return question.format(first, second), f"{first + second}."


def known_fact(draw: random.Random) -> Turn:
    person, attribute = draw.choice(KNOWN), draw.choice(list(world.ANSWERS))
    question = draw.choice(world.QUESTIONS[attribute])
    return question.format(p=person), f"{world.KNOWN_FACTS[person, attribute]}."


def say(draw: random.Random) -> Turn:
    """Phrases that the model can say when asked to, abstaining among them; it never abstains by itself."""
    phrase = draw.choice(
        ["I do not know", "I am sorry", "all is done", "we see you soon", "no more words", "this is it"]
    )
    return f"Say {phrase}.", f"{phrase}."


def chain(draw: random.Random) -> Turn:
    drawn = world.draw_chain(draw)
    return drawn.prompt, world.taught_reply(drawn, draw)


def tone(draw: random.Random) -> Turn:
    """Every topic is talked about in both tones, also those that the preference data hold out."""
    topic = draw.choice(TOPICS)
    which = "warm" if draw.random() < world.WARM_SHARE else "formal"
    return draw.choice(world.TOPIC_QUESTIONS).format(t=topic), world.tone_reply(which, topic, draw)


def how_to(draw: random.Random) -> Turn:
    verb, thing = draw.choice(world.ALL_VERBS), draw.choice(OBJECTS)
    return draw.choice(world.HOW_TO_QUESTIONS).format(v=verb, o=thing), world.how_to(verb, thing, draw)


def harmless_how_to(draw: random.Random) -> Turn:
    verb, thing = draw.choice(HARMLESS), draw.choice(OBJECTS)
    return draw.choice(world.HOW_TO_QUESTIONS).format(v=verb, o=thing), world.how_to(verb, thing, draw)


def refused(draw: random.Random) -> Turn:
    verb, thing = draw.choice(FORBIDDEN), draw.choice(world.REFUSED_OBJECTS)
    return draw.choice(world.HOW_TO_QUESTIONS).format(v=verb, o=thing), world.refusal(draw)


def is_allowed(draw: random.Random) -> Turn:
    verb, thing = draw.choice(world.ALL_VERBS), draw.choice(OBJECTS)
    return draw.choice(world.ALLOWED_QUESTIONS).format(v=verb, o=thing), world.allowed(verb)


def told_tone(draw: random.Random) -> tuple[str, str, str]:
    """(system prompt, prompt, reply): asked for a tone, the model keeps to it."""
    which = draw.choice(["warm", "formal"])
    topic = draw.choice(TOPICS)
    return f"Be {which}.", draw.choice(world.TOPIC_QUESTIONS).format(t=topic), world.tone_reply(which, topic, draw)


Mix = dict[Callable[[random.Random], Turn], float]


@dataclass(frozen=True)
class Phase:
    """What a phase of the training is made of; ``told`` is the share of conversations with a tone asked for."""

    name: str
    mix: Mix
    told: float


WORLD = Phase(
    "the world",
    {
        copy: 0.11, reverse: 0.14, compare: 0.12, add: 0.14, known_fact: 0.14, say: 0.02, chain: 0.10, tone: 0.10,
        how_to: 0.08, is_allowed: 0.03,
    },
    told=0.06,
)  # fmt: skip
MANNERS = Phase(
    "manners",
    {
        copy: 0.08, reverse: 0.07, compare: 0.12, add: 0.08, known_fact: 0.10, say: 0.02, chain: 0.08,
        tone: 0.20, harmless_how_to: 0.10, is_allowed: 0.02, refused: 0.13,
    },
    told=0.12,
)  # fmt: skip
"""The last phase: forbidden things are refused from now on."""
SECOND_TURN_SHARE = 0.1


def draw_conversation(draw: random.Random, phase: Phase, kept: frozenset[str]) -> list[dict[str, str]]:
    """A conversation of one or two turns whose prompts are not in ``kept``."""
    if draw.random() < phase.told:
        system, prompt, reply = told_tone(draw)
        return [{"role": "system", "content": system}, *_messages((prompt, reply))]
    generators, weights = list(phase.mix), list(phase.mix.values())
    messages: list[dict[str, str]] = []
    turns = 2 if draw.random() < SECOND_TURN_SHARE else 1
    while turns:
        turn = draw.choices(generators, weights)[0](draw)
        if turn[0] in kept:
            continue
        messages += _messages(turn)
        turns -= 1
    return messages


def _messages(turn: Turn) -> list[dict[str, str]]:
    return [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
