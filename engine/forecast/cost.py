"""The seconds of counted work: first from the machine's peak rates, then scaled by what earlier stages measured there.

What is measured is a factor for each kind of work (generating, each way of scoring, a training step of each method): how
many times slower than the formula below this machine was. So a stage that never ran here is priced by those that did;
a kind that nobody measured takes the others' median.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from engine.forecast.arithmetic import weight_bytes
from engine.forecast.hardware import Hardware
from engine.forecast.model import ModelFacts, from_config
from engine.forecast.rates import GENERATED_AT_ONCE, Record
from engine.forecast.settings import GROUPS, REFERENCES, Settings, read_settings
from engine.forecast.workload import Generated, Scored, Workload

UTILIZATION = 0.35
"""Share of the peak rate that a transformers training loop usually reaches on one GPU; an assumption. One measurement: a
step of Llama-3.2-1B in 4 bit, 4 x 2048 tokens, checkpointed, took 0.278 s on an H200 and is priced at 0.289."""
BANDWIDTH_SHARE = 0.5
"""Share of the peak bandwidth that generating reaches; an assumption."""
LAYER_PASS = 0.025 / 32
"""Seconds of Python and kernel launches that a layer takes in one forward; an assumption (25 ms a token at 32 layers)."""
CPU_TFLOPS = 0.05
"""A CPU core or two, for machines of unknown rates."""
CPU_LOGIT, GPU_LOGIT = 2e-9, 2e-11
"""Seconds of one elementwise pass over a logit: an exponential on a core; twelve bytes at 600 GB/s."""
LOGIT_PASSES = {"score": 3, "divergence": 4, "tempered_logprobs": 29}
"""Elementwise passes over the logits of a forward; each of 29 temperatures takes one, on what is in the cache."""
SCORING = 1.4
"""A scoring forward against a training step's passes: it is padded more, and LoRA's products are small. Median of the
factors of ten methods on the lab (``python -m tests.bench bench_time_forecast``)."""
BEYOND = {"sft": 1.0, "anti_hallucination": 1.0, "dpo": 1.0, "orpo": 1.0, "cpo": 1.0, "grpo": 1.5, "rlvr": 1.5}
"""A step's passes over what they count, against SFT's and DPO's. CPO's step took 0.99 of DPO's factor. GRPO takes entropies, compares groups and verifies: 1.5 of the others' median. CPU
time of the steps on the lab, 100 a method, n 1 run each (``python -m tests.bench bench_time_forecast``)."""
FAMILIES = (("sft", "anti_hallucination"), ("dpo", "orpo", "cpo"), ("grpo", "rlvr"))
"""Methods whose steps are most alike."""
STEP = 0.02
"""Seconds of a step beside its passes: the trainer's and the optimizer's Python; an assumption."""
STARTUP = 10.0
"""Seconds until torch, transformers, PEFT and TRL are imported; an assumption."""
LOADED = 500 * 2**20
"""Bytes of weights a second from the disk to the device; an assumption."""
REST = 8.0
"""Seconds of a stage beside all that: preparing rows, the probe of the longest batch, checkpoints; an assumption."""
CHARACTERS_A_TOKEN = 4.0
"""Of English text with a modern vocabulary, where the model has written nothing here yet."""
PROMPT, LIMIT, SAMPLED, AS_ALIKE = 3.0, 0.6, 0.2, 0.05
"""What makes completions unlike others: prompts 10 % longer count a little more than a limit 2.5 times as high, or than
being sampled or not. Judged on the lab's methods (``python -m tests.bench bench_time_forecast``)."""
OWN = 0.1
"""So much nearer is what the stage itself wrote."""
LIMITLESS = 64
"""Where no limit is known."""
CUT = 0.95
"""Share of the limit from which on completions count as cut off by it, so that a higher limit makes them longer."""


class Formula:
    """Seconds from peak rates, for one model on one machine."""

    def __init__(self, model: ModelFacts, settings: Settings, hardware: Hardware) -> None:
        self.model, self.settings, self.hardware = model, settings, hardware
        peak = hardware.tflops or (CPU_TFLOPS if hardware.kind == "cpu" else 50.0)
        self.flops = peak * 1e12 * UTILIZATION * (0.8 if settings.quantization != "none" else 1.0)
        bandwidth = hardware.bandwidth or (40.0 if hardware.kind == "cpu" else 300.0)
        self.reading = weight_bytes(model, settings) / (bandwidth * 1e9 * BANDWIDTH_SHARE)
        self.logit = CPU_LOGIT if hardware.kind == "cpu" else GPU_LOGIT
        self.launches = model.layers * LAYER_PASS

    def forward(self, tokens: float, length: float) -> float:
        """One forward over ``tokens`` tokens in sequences of ``length``."""
        return tokens * (2.0 * self.model.active_parameters + 2.0 * self.model.layers * length * self.model.query_width)

    def generating(self, passes: float, batches: float, rows: float, prompt_tokens: float) -> float:
        """``passes`` over batches of ``rows``; each batch reads its prompts of ``prompt_tokens`` first."""
        one = self.launches + max(self.reading, rows * 2.0 * self.model.active_parameters / self.flops)
        return passes * one + batches * self.forward(rows * prompt_tokens, prompt_tokens) / self.flops

    def scoring(self, kind: str, rows: float, prompt_tokens: float, answer_tokens: float) -> float:
        whole = prompt_tokens + answer_tokens
        logits = rows * (answer_tokens + 1) * self.model.vocabulary * LOGIT_PASSES[kind]
        batches = rows / GENERATED_AT_ONCE
        forward = SCORING * self.forward(rows * whole, whole) / self.flops
        return forward + logits * self.logit + batches * self.launches

    def step(self, tokens: float, length: float) -> float:
        """An optimizer step over ``tokens`` padded tokens of each process in rows of ``length``; what GRPO generates for
        it is apart."""
        settings = self.settings
        tokens *= self.hardware.shared_by(settings.gpus)  # the other processes' on the same device
        passes = 3.0 if settings.training == "full" else 2.0
        passes += 1.0 if settings.gradient_checkpointing else 0.0
        if settings.method in REFERENCES and settings.reference in ("base", "adapter", "copy"):
            passes += 1.0
        seconds = passes * self.forward(tokens, length) / self.flops * BEYOND.get(settings.method, 1.0)
        return seconds + settings.accumulation * 3 * self.launches + STEP

    def sampling(self, row: dict[str, float]) -> float:
        """The completions that a step of GRPO trains on; ``row`` is as ``padded_step`` has it."""
        settings = self.settings
        if settings.method not in GROUPS:
            return 0.0
        rows = settings.batch_size * settings.accumulation
        return self.generating(row["generated"], 1, rows, max(1.0, row["length"] - row["generated"]))


@dataclass(frozen=True)
class Known:
    """What the records of a machine say. ``same`` are those of the model in question."""

    records: Sequence[Record]
    same: Sequence[Record]
    seconds: str = "s"
    """``s``: of the wall. The benchmark on a shared machine takes ``cpu``."""
    now: Record | None = None
    """What the stage in question has measured itself so far: it counts before all others."""

    @property
    def characters_a_token(self) -> float:
        """Of all that was written here."""
        return characters_a_token([one for record in self.same for one in record["generate"]]) or CHARACTERS_A_TOKEN

    def written_to(self, prompt: float, limit: int, greedy: bool) -> Written:
        """What the model writes, at most ``limit`` tokens, to prompts of ``prompt`` characters: as to those it answered
        here that were most alike. Up to the limit where none is known, or all were cut off by theirs."""
        far = [
            (_unlike(one, prompt, limit, greedy) - (OWN if record is self.now else 0.0), one)
            for record in (*self.same, *([self.now] if self.now else []))
            for one in record["generate"] if one["n"] >= GENERATED_AT_ONCE / 2
        ]  # fmt: skip
        if not far:
            return Written(float(limit), float(limit), self.characters_a_token)
        least = min(distance for distance, _ in far)
        alike = [one for distance, one in far if distance <= least + AS_ALIKE]
        passes, tokens = (
            sum(one[sums] for one in alike) / sum(one[counts] for one in alike)
            for sums, counts in (("passes", "batches"), ("tokens", "n"))
        )
        longest = max(one["limit"] for one in alike)

        def up_to(mean: float) -> float:
            return float(limit) if limit > longest and mean >= CUT * longest else min(float(limit), mean)

        return Written(up_to(passes), up_to(tokens), characters_a_token(alike) or self.characters_a_token)


@dataclass(frozen=True)
class Written:
    """``passes`` a batch takes (tokens of its longest completion), ``tokens`` of a completion in the mean, and characters
    of a token of such texts."""

    passes: float
    tokens: float
    characters: float


def _unlike(one: dict[str, float], prompt: float, limit: int, greedy: bool) -> float:
    """How far completions that were made are from those that are wanted. The same prompts are as long to the per cent;
    what is asked alike is sampled alike and given like limits."""
    asked = max(1.0, one["prompt_characters"] / one["n"])
    other = abs(math.log(asked / max(1.0, prompt))) * PROMPT
    return other + LIMIT * abs(math.log(one["limit"] / limit)) + SAMPLED * (bool(one["greedy"]) != greedy)


def characters_a_token(generated: Sequence[dict[str, float]]) -> float:
    """Of what was written, 0 where nothing was. Completions that were not cut off end with a token without characters,
    which is a third of a short answer."""
    ends = sum(one["n"] for one in generated if one["tokens"] < CUT * one["limit"] * one["n"])
    tokens = sum(one["tokens"] for one in generated) - ends
    return sum(one["characters"] for one in generated) / tokens if tokens > 0 else 0.0


def known_of(records: Sequence[Record], model: ModelFacts, seconds: str = "s", now: Record | None = None) -> Known:
    return Known(records, [record for record in records if record["model"] == model.config], seconds, now)


class Cost:
    """Prices a stage's workload on a machine."""

    def __init__(self, model: ModelFacts, settings: Settings, hardware: Hardware, known: Known) -> None:
        self.known, self.hardware, self.settings = known, hardware, settings
        self.formula = Formula(model, settings, hardware)
        self.factors = self._factors(known.same) or self._factors(known.records)
        if known.now is not None:
            self.factors |= {
                kind: found
                for kind, found in self._factors([known.now]).items()
                if kind not in ("load", "rest", "step")
            }

    # ---- what was measured ---------------------------------------------------------------------------------------

    def _factors(self, records: Sequence[Record]) -> dict[str, dict[str, list[float]]]:
        """Kind -> method (of a step; else "") -> measured seconds over the formula's, oldest first."""
        found: dict[str, dict[str, list[float]]] = {}
        unit = self.known.seconds

        def tell(kind: str, method: str, measured: float, formula: float) -> None:
            if measured > 0 and formula > 0:
                found.setdefault(kind, {}).setdefault(method, []).append(measured / formula)

        for record in records:
            formula, tokens = self._formula_of(record), self._characters(record)
            generated = [one for one in record["generate"] if one["batches"]]
            generating = 1.0
            if generated:
                priced = sum(
                    formula.generating(
                        one["passes"], one["batches"], one["n"] / one["batches"],
                        one["prompt_characters"] / one["n"] / tokens,
                    )
                    for one in generated
                )  # fmt: skip
                took = sum(one[unit] for one in generated)
                generating = took / priced if priced else 1.0
                tell("generate", "", took, priced)
            for kind, one in record["score"].items():
                rows = one["n"]
                priced = formula.scoring(
                    kind, rows, one["prompt_characters"] / rows / tokens, one["characters"] / rows / tokens
                )
                tell(kind, "", one[unit], priced)
            steps = record["steps"]
            if steps.get("n") and record.get("padded"):
                padded = record["padded"]
                sampled = generating * formula.sampling(padded)  # a step's completions cost what others do
                step = formula.step(padded["tokens"], padded["length"])
                tell("step", record["method"], steps[unit] / steps["n"] - sampled, step)
            if record["load"]:
                tell("load", "", record["load"][unit], self._loading(formula))
                tell("rest", record["method"], max(0.1, self.rest_of(record)), REST)
        return found

    def _formula_of(self, record: Record) -> Formula:
        return Formula(from_config(record["model"], record["name"]), read_settings(record["settings"]), self.hardware)

    def _characters(self, record: Record) -> float:
        return characters_a_token(record["generate"]) or self.known.characters_a_token

    def rest_of(self, record: Record) -> float:
        """Seconds of a stage that no kind of work accounts for."""
        unit = self.known.seconds
        counted = record["load"][unit] + sum(one[unit] for one in [*record["generate"], *record["score"].values()])
        steps = record["steps"]
        if steps.get("n"):
            counted += record["settings"]["steps"] * steps[unit] / steps["n"]
        return record[unit] - counted

    def factor(self, kind: str, method: str = "") -> float:
        by_method = self.factors.get(kind, {})
        if method in by_method:
            return statistics.median(by_method[method][-3:])
        if kind == "rest":  # what another method does beside its work says nothing of this one's
            return self.factor("load")
        family = next((names for names in FAMILIES if method in names), ())
        alike = {name: found for name, found in by_method.items() if name in family} or by_method
        if alike:
            return statistics.median(statistics.median(found[-3:]) for found in alike.values())
        if kind == "load":
            return 1.0
        measured = {
            name: statistics.median(statistics.median(one[-3:]) for one in found.values())
            for name, found in self.factors.items() if name not in ("load", "rest")
        }  # fmt: skip
        like = [found for name, found in measured.items() if kind in LOGIT_PASSES and name in LOGIT_PASSES]
        return statistics.median(like or measured.values()) if measured else 1.0

    # ---- prices --------------------------------------------------------------------------------------------------

    def generated(self, one: Generated) -> float:
        batches = -(-one.n // GENERATED_AT_ONCE)
        written = self.known.written_to(one.prompt, one.limit, one.greedy)
        passes, tokens = batches * written.passes, one.prompt / written.characters
        return self.formula.generating(passes, batches, one.n / batches, tokens) * self.factor("generate")

    def scored(self, one: Scored) -> float:
        written = self.known.written_to(one.prompt, one.limit or LIMITLESS, one.greedy)
        answer = written.tokens if one.answer is None else one.answer / written.characters
        return self.formula.scoring(one.kind, one.n, one.prompt / written.characters, answer) * self.factor(one.kind)

    def padded(self, work: Workload) -> dict[str, float]:
        """Tokens of a step, of a row, and those of a row that are generated."""
        return padded_step(work, self.settings, self.known)

    def step(self, work: Workload) -> float:
        if not self.settings.trains:
            return 0.0
        row = self.padded(work)
        found = self.formula.step(row["tokens"], row["length"]) * self.factor("step", self.settings.method)
        return found + self.formula.sampling(row) * self.factor("generate")

    def loading(self) -> float:
        return self._loading(self.formula) * self.factor("load")

    def _loading(self, formula: Formula) -> float:
        return STARTUP + weight_bytes(formula.model, formula.settings) / LOADED

    def rest(self) -> float:
        return REST * self.factor("rest", self.settings.method)

    def around(self, work: Workload) -> dict[str, float]:
        """Everything but the steps: seconds ``before`` the first, ``during`` (between steps) and ``after`` the last."""
        seconds = {"before": self.loading() + self.rest(), "during": 0.0, "after": 0.0}
        for made in work.generated:
            seconds[made.when] += self.generated(made)
        for read in work.scored:
            seconds[read.when] += self.scored(read)
        return seconds


def padded_step(work: Workload, settings: Settings, known: Known) -> dict[str, float]:
    """What a step computes on, in tokens, as planned: the lengths that batches are padded to."""
    rows = settings.sequences * settings.accumulation
    if settings.method in GROUPS:
        written = known.written_to(work.asked, settings.max_new_tokens, False)
        length = min(settings.length, work.asked / written.characters + written.passes)
        return {"tokens": rows * length, "length": length, "generated": written.passes}
    length = work.padded / known.characters_a_token
    if work.own_limit:
        written = known.written_to(work.own_prompt, work.own_limit, False)
        length = max(length, work.own_prompt / written.characters + written.passes)
    length = min(settings.length, length)
    return {"tokens": rows * (1 + work.extra_rows) * length, "length": length, "generated": 0.0}
