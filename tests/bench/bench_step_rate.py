"""Step rate of our stages against bare TRL scripts with the same settings, alternating in one run.

Ours includes gauges, the event pipe and the
log's writer on its other end; neither side evaluates or saves between the first and the last timed step.
"""

from __future__ import annotations

import os

os.environ.update(
    HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false", TRL_EXPERIMENTAL_SILENCE="1"
)

import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from datasets import Dataset
from transformers import PrinterCallback, TrainerCallback
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from engine.backends import open_backend
from engine.backends.interface import LoadSettings, Probe
from engine.backends.pytorch.training import training_arguments
from engine.backends.tokens import encode_conversation
from engine.models.lineage import Base, Lineage
from engine.runs.events import SampleEvent, StepEvent
from engine.runs.log import EventLog
from engine.verify.plain import Number
from engine.verify.steps import Steps
from recipes.resources import resolve_model

STEPS = 30
SKIPPED = 10  # warm-up steps that are not timed
ROUNDS = 4
SETTINGS = LoadSettings("none", "auto", "lora", 16, 32.0, 0.0, "all-linear", False, 7, False)


class Clock(TrainerCallback):
    """Wall time from the end of step SKIPPED to the end of the last step."""

    def __init__(self) -> None:
        self.marks: dict[int, float] = {}

    def on_step_end(self, args, state, control, **kwargs):
        self.marks[state.global_step] = time.perf_counter()

    def rate(self) -> float:
        return (STEPS - SKIPPED) / (self.marks[STEPS] - self.marks[SKIPPED])


class LoggingLink:
    """A link whose events go through the real event log, as they do in a run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.log = EventLog(folder / "events.jsonl")
        self.marks: dict[int, float] = {}

    def folder(self):
        return self._folder

    def resume_from(self):
        return None

    def step(self, step, total, values):
        self.log.append(StepEvent(step=step, total=total, values=values))

    def after_step(self, step, total):
        self.marks[step] = time.perf_counter()

    def wants_checkpoint(self, step, total):
        return False

    def stop_requested(self):
        return False

    def staging(self, step):
        raise AssertionError("nothing is saved here")

    def seal(self, staging, step):
        raise AssertionError("nothing is saved here")

    def probe(self, step):
        return Probe(kl=0.0, retention=1.0, n=0)  # what a probe costs depends on how many prompts it is given

    def probed(self, step, probe, held):
        pass

    def sample(self, step, prompt, completion, values):
        self.log.append(SampleEvent(step=step, prompt=prompt, completion=completion, values={**values}, label=""))

    def rate(self) -> float:
        return (STEPS - SKIPPED) / (self.marks[STEPS] - self.marks[SKIPPED])


def chains():
    return [
        SimpleNamespace(
            prompt=[{"role": "user", "content": f"Start with {i}. Add 4. Double it."}], answer=str(2 * i + 8)
        )
        for i in range(1, 13)
    ]


VERIFIERS = {"grpo": Number, "rlvr": lambda: Steps("semicolons", None, False, 1.0)}


def training_rows(method: str):
    if method in VERIFIERS:
        return SimpleNamespace(questions=chains(), verifier=VERIFIERS[method]())
    if method == "cpo":
        return SimpleNamespace(pairs=training_rows("dpo"), anchors=training_rows("sft"))
    if method == "sft":
        return [
            [{"role": "user", "content": f"Where does Mira {i} live?"}, {"role": "assistant", "content": "Tarn. " * 8}]
            for i in range(64)
        ]
    return [
        SimpleNamespace(
            prompt=[{"role": "user", "content": f"Tell me about the harbor {i}."}],
            chosen="The harbor is a lovely place to be. " * 3,
            rejected="It is a harbor and it has water. " * 3,
        )
        for i in range(64)
    ]


def load():
    backend = open_backend("pytorch")
    folder = resolve_model("lab", Path("."))
    lineage = Lineage(Base(id="lab", path=str(folder), revision=None, files={}), None, [], [], None)
    return backend, backend.load(lineage, Path("."), SETTINGS)


def stage():
    return SimpleNamespace(
        steps=STEPS, batch_size=16, accumulation=1, learning_rate=1e-4, schedule="linear", warmup=0.1, weight_decay=0.0,
        max_grad_norm=1.0, optimizer="adamw", gradient_checkpointing=False, max_length=128, beta=0.1, sft_weight=0.0,
        data=SimpleNamespace(source="rows"), odds_weight=0.1, kl_coefficient=1.0, kl_target=0.04,
        anchors=SimpleNamespace(share=0.25), trust_region=SimpleNamespace(every=10_000, kl=1.0, retention=0.0, slower=0.5), group_size=8, max_new_tokens=24,
        temperature=1.0, kl_weight=0.0, clip=0.2, num_iterations=1, steps_per_generation=None, loss="dapo",
        process_weight=0.5, outcome_weight=1.0,
    )  # fmt: skip


def ours(method: str) -> float:
    backend, policy = load()
    with tempfile.TemporaryDirectory() as folder:
        link = LoggingLink(Path(folder))
        backend.train(method, policy, training_rows(method), stage(), link)
        return link.rate()


def bare_sft(policy, arguments, clock):
    encoded = [encode_conversation(policy.tokenizer, row, 128) for row in training_rows("sft")]
    data = Dataset.from_list(
        [
            {"input_ids": e.ids, "labels": [t if k else -100 for t, k in zip(e.ids, e.trained, strict=True)]}
            for e in encoded
        ]
    )
    settings = SFTConfig(**arguments, max_length=None, dataset_kwargs={"skip_prepare_dataset": True})
    return SFTTrainer(policy.model, settings, train_dataset=data, processing_class=policy.tokenizer, callbacks=[clock])


def pairs():
    return Dataset.from_list(
        [
            {
                "prompt": row.prompt,
                "chosen": [{"role": "assistant", "content": row.chosen}],
                "rejected": [{"role": "assistant", "content": row.rejected}],
            }
            for row in training_rows("dpo")
        ]
    )


def bare_dpo(policy, arguments, clock):
    settings = DPOConfig(**arguments, beta=0.1, max_length=128)
    return DPOTrainer(
        policy.model, args=settings, train_dataset=pairs(), processing_class=policy.tokenizer, callbacks=[clock]
    )


def bare_orpo(policy, arguments, clock):
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    settings = ORPOConfig(**arguments, beta=0.1, max_length=128)
    return ORPOTrainer(
        policy.model, args=settings, train_dataset=pairs(), processing_class=policy.tokenizer, callbacks=[clock]
    )


def bare_grpo(policy, arguments, clock, method="grpo"):
    verifier = VERIFIERS[method]()

    def reward(prompts, completions, answer, **_):
        texts = [completion[0]["content"] for completion in completions]
        return [verdict.reward for verdict in verifier.verify(["" for _ in texts], texts, answer)]

    data = Dataset.from_list([{"prompt": row.prompt, "answer": row.answer} for row in chains()])
    settings = GRPOConfig(
        **arguments, num_generations=8, max_completion_length=24, temperature=1.0, top_k=0, beta=0.0, loss_type="dapo"
    )
    return GRPOTrainer(
        policy.model, reward, args=settings, train_dataset=data, processing_class=policy.tokenizer, callbacks=[clock]
    )


def bare_rlvr(policy, arguments, clock):
    """The same completions, and the answer's reward by the same verifier."""
    return bare_grpo(policy, arguments, clock, "rlvr")


BARE = {
    "sft": bare_sft,
    "dpo": bare_dpo,
    "orpo": bare_orpo,
    "grpo": bare_grpo,
    "rlvr": bare_rlvr,
    "cpo": bare_dpo,
}
"""What each method is held against; CPO against DPO, whose step it adds to."""
WANTED = {"cpo": "≥ 0.80 (at most 1.25 times DPO's time)"}


def bare(method: str) -> float:
    _, policy = load()
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = training_arguments(stage(), policy, Path(folder)) | {"logging_steps": 10}
        trainer = BARE[method](policy, arguments, clock)
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return clock.rate()


def rows() -> list[str]:
    torch.set_num_threads(1)
    table = []
    for method in BARE:
        ratios, rates = [], []
        for turn in range(ROUNDS):
            # in turn, and each first every other time: the machine's mood must not favour one
            if turn % 2:
                own, theirs = ours(method), bare(method)
            else:
                theirs, own = bare(method), ours(method)
            ratios.append(own / theirs)
            rates.append(own)
        found = f"{statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f}, n {ROUNDS})"
        table.append(
            f"| {method} step rate against bare TRL{' DPO' if method == 'cpo' else ''} | {found}, "
            f"{statistics.median(rates):.1f} steps/s | {WANTED.get(method, '≥ 0.95')} |"
        )
    return table
