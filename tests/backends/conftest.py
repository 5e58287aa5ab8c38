"""Policies on the small lab model, trained in this process without a supervisor."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.backends import open_backend
from engine.backends.interface import LoadSettings, Probe
from engine.models.lineage import Base, Lineage
from engine.verify.interface import StepVerdict, Verdict
from recipes.resources import resolve_model


class PlainLink:
    """A TrainingLink that keeps everything in lists and folders."""

    def __init__(self, folder, every=5, resume=None, stop_at=None, after_step=None):
        self._folder, self.every, self.resume, self.stop_at = Path(folder), every, resume, stop_at
        self._after_step = after_step
        self.steps = []
        self.probes = []
        self.samples = []
        self.outside = ()
        """Steps whose probe finds the policy outside its trust region."""

    def folder(self):
        return self._folder

    def resume_from(self):
        return self.resume

    def step(self, step, total, values):
        self.steps.append((step, values))

    def after_step(self, step, total):
        if self._after_step:
            self._after_step(step)

    def wants_checkpoint(self, step, total):
        return step % self.every == 0

    def stop_requested(self):
        return bool(self.steps) and self.steps[-1][0] == self.stop_at

    def staging(self, step):
        path = self._folder / f"staging-{step}"
        path.mkdir(parents=True)
        return path

    def seal(self, staging, step):
        staging.rename(self._folder / f"step-{step}")

    def sample(self, step, prompt, completion, values):
        self.samples.append((step, prompt, completion, values))

    def probe(self, step):
        return Probe(kl=1.0 if step in self.outside else 0.01, retention=1.0, n=4)

    def probed(self, step, probe, held):
        self.probes.append((step, held))

    def losses(self):
        return {step: values["loss"] for step, values in self.steps}


@pytest.fixture
def link_type():
    return PlainLink


@pytest.fixture
def backend():
    return open_backend("pytorch")


@pytest.fixture
def lineage():
    folder = resolve_model("lab-nano", Path("."))
    return Lineage(Base(id="lab-nano", path=str(folder), revision=None, files={}), None, [], [], None)


@pytest.fixture
def settings():
    def make(**changes):
        values = {
            "quantization": "none", "dtype": "auto", "training": "lora", "rank": 8, "alpha": 16.0, "dropout": 0.0,
            "targets": "all-linear", "gradient_checkpointing": False, "seed": 7, "needs_reference": False,
        }  # fmt: skip
        return LoadSettings(**(values | changes))

    return make


@pytest.fixture
def stage():
    def make(**changes):
        values = {
            "steps": 10, "batch_size": 4, "accumulation": 1, "learning_rate": 1e-3, "schedule": "linear", "warmup": 0.1,
            "weight_decay": 0.0, "max_grad_norm": 1.0, "optimizer": "adamw", "gradient_checkpointing": False,
            "max_length": 96, "beta": 0.1, "sft_weight": 0.0, "data": SimpleNamespace(source="rows"),
            "odds_weight": 0.1, "kl_coefficient": 1.0, "kl_target": 0.04, "anchors": SimpleNamespace(share=0.25),
            "trust_region": SimpleNamespace(every=3, kl=0.05, retention=0.95, slower=0.5),
        }  # fmt: skip
        return SimpleNamespace(**(values | changes))

    return make


CONVERSATIONS = [
    [{"role": "user", "content": f"Where does Mira {i} live?"}, {"role": "assistant", "content": f"Tarn {i % 3}."}]
    for i in range(24)
]
PREFERENCES = [
    SimpleNamespace(
        prompt=[{"role": "user", "content": f"Tell me about the harbor {i}."}],
        chosen=f"The harbor {i} is a lovely place.",
        rejected="It is a harbor.",
    )
    for i in range(24)
]


@pytest.fixture
def rows():
    both = SimpleNamespace(pairs=PREFERENCES, anchors=CONVERSATIONS)
    return {"sft": CONVERSATIONS, "dpo": PREFERENCES, "orpo": PREFERENCES, "cpo": both}


class Vowels:
    """A reward that an untrained model gets in part: the share of vowels, step by step."""

    name = "vowels"

    def verify(self, prompts, completions, answers):
        shares = [sum(letter in "aeiou" for letter in text) / max(1, len(text)) for text in completions]
        return [Verdict(share, {"vowels": share}) for share in shares]

    def steps(self, prompts, completions, answers):
        return [
            [StepVerdict(end, text[end - 1] in "aeiou") for end in range(4, len(text) + 1, 4)] for text in completions
        ]

    def required(self, prompt, answer):
        return None

    def close(self):
        pass


def questions(n):
    return [
        SimpleNamespace(prompt=[{"role": "user", "content": f"Start with {i}. Add 1."}], answer=str(i + 1))
        for i in range(n)
    ]


@pytest.fixture
def group_stage(stage):
    def make(**changes):
        values = {
            "batch_size": 8, "group_size": 4, "max_new_tokens": 12, "temperature": 1.0, "kl_weight": 0.0, "clip": 0.2,
            "num_iterations": 1, "steps_per_generation": None, "loss": "dapo", "process_weight": 0.5,
            "outcome_weight": 1.0,
        }  # fmt: skip
        return stage(**(values | changes))

    return make
