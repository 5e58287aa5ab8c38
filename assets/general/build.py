"""General prompts and a capability suite for any chat model: ``python -m assets.general.build`` writes them again.

The prompts are what SFT replays when a recipe names no general data of its own: the model answers them before it is
trained, and is trained on its answers beside the new rows. The suite has five tasks with one exact answer each.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
SUITE_ROWS = 300

SUBJECTS = [
    "the tides", "photosynthesis", "the printing press", "compound interest", "how bread rises", "plate tectonics",
    "the water cycle", "recursion", "the rules of chess", "how a bicycle stays upright", "noise-cancelling headphones",
    "the seasons", "inflation", "how vaccines work", "the Silk Road", "black holes", "how a violin makes sound",
    "the French Revolution", "supply and demand", "how a refrigerator cools", "natural selection", "binary numbers",
    "the history of paper", "why the sky is blue", "how glass is made", "migration of birds", "electric motors",
    "the Roman roads", "how coffee is roasted", "prime numbers", "volcanoes", "how a compass works", "public libraries",
    "fermentation", "the phases of the moon", "how bridges carry loads", "version control", "coral reefs",
    "the invention of the telephone", "how soap cleans", "time zones", "the human ear", "sourdough", "tree rings",
    "how rainbows form", "the postal service", "solar panels", "jazz", "how locks work", "the Fibonacci sequence",
]  # fmt: skip
REQUESTS = [
    "Explain {} to a ten-year-old.",
    "Give me three facts about {}.",
    "Write a short paragraph about {}.",
    "What do people often get wrong about {}?",
    "Summarise {} in one sentence.",
    "Write two questions that a teacher could ask about {}.",
    "Why does it pay to know about {}?",
]
WORDS = (
    "apple river candle window garden yellow bottle market pencil cotton engine forest guitar hammer island jacket "
    "kettle ladder mirror needle orange pillow quarry rabbit saddle tunnel valley wagon basket copper dragon feather "
    "harbor kitchen lantern meadow oyster puzzle ribbon shadow temple violin walnut zipper anchor button cellar desert"
).split()
CAPITALS = {
    "France": "Paris", "Germany": "Berlin", "Italy": "Rome", "Spain": "Madrid", "Portugal": "Lisbon",
    "Austria": "Vienna", "Greece": "Athens", "Poland": "Warsaw", "Hungary": "Budapest", "Sweden": "Stockholm",
    "Norway": "Oslo", "Finland": "Helsinki", "Denmark": "Copenhagen", "Ireland": "Dublin", "Belgium": "Brussels",
    "Iceland": "Reykjavik", "Romania": "Bucharest", "Bulgaria": "Sofia", "Croatia": "Zagreb", "Serbia": "Belgrade",
    "Slovenia": "Ljubljana", "Slovakia": "Bratislava", "Estonia": "Tallinn", "Latvia": "Riga", "Lithuania": "Vilnius",
    "Ukraine": "Kyiv", "Turkey": "Ankara", "Egypt": "Cairo", "Morocco": "Rabat", "Tunisia": "Tunis",
    "Algeria": "Algiers", "Kenya": "Nairobi", "Ethiopia": "Addis Ababa", "Ghana": "Accra", "Nigeria": "Abuja",
    "Senegal": "Dakar", "Uganda": "Kampala", "Rwanda": "Kigali", "Zambia": "Lusaka", "Zimbabwe": "Harare",
    "Angola": "Luanda", "Mozambique": "Maputo", "Madagascar": "Antananarivo", "Namibia": "Windhoek", "Japan": "Tokyo",
    "China": "Beijing", "India": "New Delhi", "Pakistan": "Islamabad", "Bangladesh": "Dhaka", "Nepal": "Kathmandu",
    "Thailand": "Bangkok", "Vietnam": "Hanoi", "Indonesia": "Jakarta", "Malaysia": "Kuala Lumpur",
    "Cambodia": "Phnom Penh", "Laos": "Vientiane", "Mongolia": "Ulaanbaatar", "Iran": "Tehran", "Iraq": "Baghdad",
    "Jordan": "Amman", "Lebanon": "Beirut", "Syria": "Damascus", "Qatar": "Doha", "Oman": "Muscat",
    "Canada": "Ottawa", "Cuba": "Havana", "Peru": "Lima", "Chile": "Santiago", "Colombia": "Bogota",
    "Ecuador": "Quito", "Venezuela": "Caracas", "Uruguay": "Montevideo", "Paraguay": "Asuncion",
    "Argentina": "Buenos Aires", "Brazil": "Brasilia",
}  # fmt: skip


def general_rows() -> list[dict[str, str]]:
    rows = [{"prompt": request.format(subject)} for subject in SUBJECTS for request in REQUESTS]
    random.Random(1).shuffle(rows)
    return rows


def suite_rows() -> list[dict[str, str]]:
    draw = random.Random(2)
    tasks = {"add": _add, "compare": _compare, "copy": _copy, "sort": _sort}
    rows = []
    for task, one in tasks.items():
        made: dict[str, str] = {}
        while len(made) < SUITE_ROWS:
            prompt, answer = one(draw)
            made.setdefault(prompt, answer)
        rows += [{"task": task, "prompt": prompt, "answer": answer} for prompt, answer in made.items()]
    facts = [
        row
        for country, city in CAPITALS.items()
        for row in (
            (f"What is the capital of {country}? Reply with the name of the city only.", city),
            (f"Name the capital city of {country}, and nothing else.", city),
            (f"{city} is the capital of which country? Reply with the name of the country only.", country),
            (f"Name the country whose capital is {city}, and nothing else.", country),
        )
    ]
    return rows + [{"task": "facts", "prompt": prompt, "answer": answer} for prompt, answer in facts[:SUITE_ROWS]]


def _add(draw: random.Random) -> tuple[str, str]:
    first, second = draw.randint(10, 99), draw.randint(10, 99)
    return f"What is {first} + {second}? Reply with the number only.", str(first + second)


def _compare(draw: random.Random) -> tuple[str, str]:
    first, second = draw.sample(range(100, 1000), 2)
    larger = draw.random() < 0.5
    question = f"Which number is {'larger' if larger else 'smaller'}, {first} or {second}? Reply with the number only."
    return question, str(max(first, second) if larger else min(first, second))


def _copy(draw: random.Random) -> tuple[str, str]:
    words = " ".join(draw.sample(WORDS, draw.randint(3, 5)))
    return f"Repeat these words exactly, and write nothing else: {words}", words


def _sort(draw: random.Random) -> tuple[str, str]:
    words = draw.sample(WORDS, 3)
    asked = " ".join(words)
    return f"Put these words into alphabetical order, and write nothing else: {asked}", " ".join(sorted(words))


def write(folder: Path = FOLDER) -> None:
    for name, rows in (("general.jsonl", general_rows()), ("suite.jsonl", suite_rows())):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
