"""The trace against the real training step: the stage's own code on real tensors, counted by the same meter."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import pytest
import torch
import trl.trainer.utils
from transformers import AutoConfig, AutoModelForCausalLM
from trl import GRPOTrainer

from engine.backends import open_backend
from engine.backends.interface import LoadSettings, Probe
from engine.backends.pytorch import grpo, sft
from engine.backends.pytorch.meter import CUBLAS_WORKSPACE_FIXED, Meter
from engine.backends.pytorch.stand_ins import cuda_kernels
from engine.backends.pytorch.trace import ALIKE, trace
from engine.forecast import forecast
from engine.forecast.allocator import MIB, CachingAllocator
from engine.forecast.model import find_model, from_config
from engine.forecast.settings import read_settings
from engine.forecast.trace import Trace, cancel_running
from engine.forecast.tracer import TRACER, TimedOut
from engine.models.lineage import Base, Lineage
from engine.verify.interface import Verdict
from recipes.resources import resolve_model
from tests.bench.bench_forecast import measured_rows, trace_here

LENGTH, BATCH, RANK = 384, 2, 8
NEW_TOKENS, TEMPLATE = 64, 2
TINY = {
    "llama": {},
    "qwen2": {"num_key_value_heads": 1},
    "gemma3_text": {"head_dim": 32, "sliding_window": 512, "query_pre_attn_scalar": 32},
    "mistral": {"sliding_window": None},
    "qwen3": {"vocab_size": 131_072, "head_dim": 32},
}
"""Architecture -> what differs from the common tiny shape; the last has the vocabulary of the big ones."""


def tiny_model(architecture: str, folder: Path) -> Path:
    """Random weights of a tiny shape beside the lab model's tokenizer."""
    lab = resolve_model("lab-nano", folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copy(lab / name, folder)
    shape = {
        "hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "vocab_size": 1024, "max_position_embeddings": 512, "tie_word_embeddings": True,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    config = AutoConfig.for_model(architecture, **{**shape, **TINY[architecture]})
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


class Link:
    """A TrainingLink that neither evaluates nor saves."""

    def __init__(self, folder):
        self._folder = folder

    def folder(self):
        return self._folder

    def resume_from(self):
        return None

    def step(self, step, total, values):
        pass

    def after_step(self, step, total):
        pass

    def wants_checkpoint(self, step, total):
        return False

    def stop_requested(self):
        return False

    def sample(self, step, prompt, completion, values):
        pass

    def probe(self, step):
        return Probe(kl=0.0, retention=None, n=1)

    def probed(self, step, probe, held):
        pass


def rows_of(method: str):
    """Rows that fill the whole length."""
    long, user = "Tarn " * 400, {"role": "user", "content": "Hi"}
    talk = [user, {"role": "assistant", "content": long}]
    pairs = [SimpleNamespace(prompt=[user], chosen=long, rejected=long + "!") for _ in range(16)]
    if method == "sft":
        return [talk for _ in range(16)]
    if method == "cpo":
        return SimpleNamespace(pairs=pairs, anchors=[talk for _ in range(8)])
    if method in ("grpo", "rlvr"):
        asked = [{"role": "user", "content": "Tarn " * (LENGTH - NEW_TOKENS - TEMPLATE)}]
        questions = [SimpleNamespace(prompt=asked, answer="1") for _ in range(16)]
        return SimpleNamespace(questions=questions, verifier=Uneven())
    return pairs


class Uneven:
    """A verifier that finds every other completion right, so that no group is silent."""

    def verify(self, prompts, completions, answers):
        return [Verdict(float(place % 2)) for place in range(len(completions))]

    def steps(self, prompts, completions, answers):
        return [[SimpleNamespace(end=1, accepted=place % 2 == 0, required=True)] for place in range(len(completions))]


def really_allocated(
    method: str,
    folder: Path,
    run: Path,
    training: str,
    checkpointing: bool,
    length: int = LENGTH,
    padding_free: bool = False,
) -> float:
    """Peak MiB that the stage's own trainer requests on rows of full length: in the second step, as the first makes the
    optimizer's state."""
    settings = LoadSettings(
        quantization="none", dtype="fp32", training=training, rank=RANK, alpha=16.0, dropout=0.0, targets="all-linear",
        gradient_checkpointing=checkpointing, seed=0, needs_reference=method != "sft",
    )  # fmt: skip
    lineage = Lineage(Base(id="tiny", path=str(folder), revision=None, files={}), None, [], [], None)
    stage = SimpleNamespace(
        steps=2, batch_size=BATCH, accumulation=1, learning_rate=1e-3, schedule="linear", warmup=0.0, weight_decay=0.0,
        max_grad_norm=1.0, optimizer="adamw", gradient_checkpointing=checkpointing, max_length=length, beta=0.1,
        sft_weight=0.0, odds_weight=0.1, kl_coefficient=1.0, kl_target=0.03, group_size=2, max_new_tokens=NEW_TOKENS,
        temperature=1.0, kl_weight=0.0, clip=0.2, num_iterations=1, steps_per_generation=None, loss="dapo",
        anchors=SimpleNamespace(share=0.25), process_weight=0.5, outcome_weight=1.0,
        trust_region=SimpleNamespace(every=100, kl=1.0, retention=0.0, slower=0.5), padding_free=padding_free,
    )  # fmt: skip
    backend = open_backend("pytorch")
    policy = backend.load(lineage, run, settings)
    rows = rows_of(method)
    allocator = CachingAllocator()
    meter = Meter(allocator, 75, fixed_order=True)
    models = [policy.model] + ([policy.reference] if policy.reference is not None else [])
    for model in models:
        for tensor in (*model.parameters(), *model.buffers()):
            meter.track(tensor)
    with cuda_kernels(75, fixed_order=True), _foreach(), _written(), _compact(), meter:
        backend.train(method, policy, rows, stage, Link(run))
    return (allocator.peak_allocated - CUBLAS_WORKSPACE_FIXED) / MIB


def _foreach():
    """Optimizers work on lists of tensors, as they do on CUDA."""
    real = torch.optim.AdamW.__init__

    def made(self, *args, **kwargs):
        real(self, *args, **{**kwargs, "foreach": True})

    return mock.patch.object(torch.optim.AdamW, "__init__", made)


def _compact():
    """TRL's head takes the labelled positions out before it multiplies, as it does on CUDA."""
    return mock.patch.object(trl.trainer.utils, "_use_triton", lambda device: True)


def _written():
    """GRPO's completions as if sampled, all of full length: the stand-ins compute nothing that could be sampled from."""

    def complete(self, prompt_ids, *args, **kwargs):
        return [[5 + place % 7] * NEW_TOKENS for place in range(len(prompt_ids))], None

    return mock.patch.object(GRPOTrainer, "_generate_single_turn", complete)


def traced(method: str, folder: Path, training: str, checkpointing: bool, padding_free: bool = False) -> float:
    run = {
        "method": method, "loop": "stage", "training": training, "dtype": "fp32", "lora_rank": RANK, "batch_size": BATCH,
        "length": LENGTH, "max_new_tokens": NEW_TOKENS, "gradient_checkpointing": checkpointing, "autocast": False,
        "padding_free": padding_free,
    }  # fmt: skip
    description = Trace(find_model(str(folder)), read_settings(run), 75).description
    return trace(**description)["allocated_mib"] - 2 * CUBLAS_WORKSPACE_FIXED / MIB


CASES = [
    ("sft", "llama", "lora", False), ("sft", "gemma3_text", "full", False), ("dpo", "mistral", "lora", True),
    ("dpo", "qwen2", "full", False), ("orpo", "gemma3_text", "lora", True), ("cpo", "llama", "lora", False),
    ("grpo", "llama", "lora", False), ("rlvr", "llama", "lora", False), ("grpo", "qwen2", "full", False),
]  # fmt: skip
"""Every method, every architecture, LoRA and full; the slower and wider ones are in `make soak`."""
SOAKED = [
    ("sft", "qwen3", "lora", True), ("dpo", "qwen3", "lora", False), ("orpo", "qwen3", "full", False),
    ("orpo", "qwen3", "lora", True), ("cpo", "qwen2", "full", False), ("cpo", "qwen3", "lora", True),
    ("grpo", "qwen3", "lora", True),
]  # fmt: skip
MARKED = [*CASES, *(pytest.param(*case, marks=pytest.mark.soak) for case in SOAKED)]


@pytest.mark.parametrize("method,architecture,training,checkpointing", MARKED)
def test_the_traced_peak_is_the_real_steps(method, architecture, training, checkpointing, tmp_path, monkeypatch):
    monkeypatch.setattr(grpo, "KL_EVERY", 1)  # the second of its steps reads the gauge, as the eleventh does elsewhere
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_model(architecture, folder)
    real = really_allocated(method, folder, tmp_path, training, checkpointing)
    # every position is taken for scored, the few of the prompt too, which a head that is built whole leaves out
    within = 0.025 if (method, training) == ("cpo", "full") else 0.02
    assert traced(method, folder, training, checkpointing) == pytest.approx(real, rel=within)


@pytest.mark.parametrize("architecture", ["llama", "gemma3_text"])
def test_rows_end_to_end_need_what_is_said_of_them(architecture, tmp_path, monkeypatch):
    """The worst micro-batch, every row of full length. A layer's attention works on one row after the other."""
    monkeypatch.setattr(sft, "why_not", lambda *_: None)  # the stand-ins compute nothing that could be compared
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_model(architecture, folder)
    real = really_allocated("sft", folder, tmp_path, "lora", False, padding_free=True)
    assert traced("sft", folder, "lora", False, padding_free=True) == pytest.approx(real, rel=0.025)


def test_orpo_needs_no_more_than_dpo_where_the_vocabulary_is_large(tmp_path):
    """At 131 072 words, where unfused logits would be most of it; gauges, with their reference forward, included."""
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_model("qwen3", folder)
    length = 96
    orpo, dpo = (really_allocated(method, folder, tmp_path, "lora", False, length) for method in ("orpo", "dpo"))
    logits = 2 * BATCH * length * TINY["qwen3"]["vocab_size"] * 4 / MIB
    assert orpo <= dpo < logits


@pytest.mark.soak
def test_orpo_traced_needs_no_more_than_dpo_where_the_vocabulary_is_large(tmp_path):
    """Full fine-tuning, by the trace, whose figures the test above it holds to the real ones."""
    folder = tmp_path / "model"
    folder.mkdir()
    tiny_model("qwen3", folder)
    assert traced("orpo", folder, "full", False) <= traced("dpo", folder, "full", False)


LAYERED = [
    ("llama", {"method": "sft", "quantization": "4bit", "double_quant": True}),
    ("mistral", {"method": "dpo", "training": "full", "gradient_checkpointing": True}),
    ("qwen2", {"method": "sft", "quantization": "4bit", "double_quant": True}),
]
"""Every architecture of ``ALIKE``, and what differs in what a layer requests and in what the optimizer does."""
LAYERED_SOAKED = [
    ("llama", {"method": "cpo", "gradient_checkpointing": True, "quantization": "8bit"}),
    ("llama", {"method": "orpo", "training": "full", "optimizer": "sgd-momentum"}),
    ("mistral", {"loop": "plain", "attention": "eager", "dtype": "fp16", "gradient_checkpointing": True}),
    ("qwen2", {"method": "dpo", "reference": "adapter", "accumulation": 2}),
]


@pytest.mark.parametrize(
    "architecture,run", [*LAYERED, *(pytest.param(*one, marks=pytest.mark.soak) for one in LAYERED_SOAKED)]
)
def test_a_few_layers_stand_for_all_to_the_byte(architecture, run):
    """Traced whole, and from three and four of the layers: every figure is the same, and the number of requests."""
    config = {
        "model_type": architecture, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 6,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 512,
        "tie_word_embeddings": architecture != "mistral",
    }  # fmt: skip
    model = from_config(config, architecture)
    wanted = read_settings({"loop": "stage", "length": 64, "batch_size": 2, "padded": True, **run})
    description = Trace(model, wanted, 80).description
    whole, short = trace(**description, whole=True), trace(**description)
    traced_layers = short.pop("layers_traced")
    assert whole.pop("layers_traced") == [6]
    assert traced_layers == [3, 4] or (architecture, run) not in LAYERED  # else irregular, and traced whole
    assert short | {"seconds": 0} == whole | {"seconds": 0}
    assert {one for one, _ in LAYERED} == set(ALIKE)


def test_the_trace_meets_measured_rows(home):
    """One row of each attention and of each quantization on the smallest model; the benchmark has all of them."""
    kinds = {}
    for row in measured_rows():
        if "135M" in row["model_id"] and row["run"].get("seq_len") == 512:
            kinds[(row["run"]["attn_impl"], row["run"]["quantization"])] = row
    assert len(kinds) == 4
    kinds = {kind: row for kind, row in kinds.items() if (kind[0] == "sdpa") == (kind[1] != "none")}
    assert len(kinds) == 2
    for row in kinds.values():
        trace_here(row)
        found = forecast({"model": row["model_id"], "run": row["run"], "tier": "trace"})["memory"]
        measured = row["measured_mib"]
        assert found["tier"] == "trace"
        assert found["allocated_mib"] == pytest.approx(measured["peak_allocated_mib"], rel=0.02)
        assert found["low_mib"] <= measured["process_mib"] <= found["high_mib"] <= 1.2 * found["low_mib"]


def test_a_model_that_caps_its_attentions_scores_is_traced_as_it_is_loaded():
    """Gemma 2 loads with eager attention, whatever was asked for."""
    config = {
        "model_type": "gemma2", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "head_dim": 16,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512, "max_position_embeddings": 512,
        "query_pre_attn_scalar": 16,
    }  # fmt: skip
    wanted = read_settings({"loop": "stage", "length": 64, "batch_size": 2})
    assert trace(**Trace(from_config(config, "gemma2"), wanted, 80).description)["allocated_mib"] > 0


def test_a_fixed_order_of_sums_takes_memory_that_giving_it_up_spares():
    """One head: each block of keys has queries' gradients of its own until they are summed."""
    config = {
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1,
        "num_key_value_heads": 1, "vocab_size": 128, "max_position_embeddings": 4096,
    }  # fmt: skip
    found = {}
    for order in (True, False):
        wanted = read_settings({"loop": "stage", "length": 1024, "fixed_order": order})
        found[order] = trace(**Trace(from_config(config, "tiny"), wanted, 80).description)["allocated_mib"]
    assert found[False] < found[True]


def test_a_trace_is_kept_by_its_content_and_can_be_cancelled(home):
    model, settings = find_model("lab-nano"), read_settings({"loop": "stage", "length": 64})
    first = Trace(model, settings, 80)
    assert first.known() is None
    told = []

    def ask_of_two_stages():
        with TRACER.together():
            told.extend([first.result(), Trace(model, read_settings({"loop": "stage", "length": 63}), 80).result()])

    asking = threading.Thread(target=ask_of_two_stages)
    asking.start()
    time.sleep(0.5)
    cancel_running()
    asking.join(20)
    assert "ended" in told[0]["error"] and first.known() is None
    assert "let go" in told[1]["error"], "the next stage's is not asked any more"
    found = Trace(model, settings, 80).result()
    assert Trace(model, settings, 80).result() == found, "the second asks nobody"
    assert len(list((home / "forecasts").glob("*.json"))) == 1
    other = Trace(model, read_settings({"loop": "stage", "length": 65}), 80)
    assert other.known() is None


def test_an_architecture_that_cannot_be_traced_is_priced_by_arithmetic():
    config = {
        "model_type": "zebra",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "vocab_size": 100,
    }
    told = forecast({"model": config, "hardware": "t4", "tier": "trace"})
    assert told["memory"]["tier"] == "arithmetic"
    assert any("not traced" in note for note in told["notes"])
    json.dumps(told)


def test_one_helper_answers_again_and_again_as_a_new_one_would(monkeypatch):
    """Other settings, quantized and not, after its death; it ends when nobody asks any more, or an answer takes too long."""
    model = find_model("lab-nano")
    asked = [{"length": 64}, {"length": 64, "method": "dpo"}, {"length": 32, "quantization": "4bit"}]
    descriptions = [Trace(model, read_settings({"loop": "stage", **one}), 80).description for one in asked]
    tracer = TRACER  # its helper may be there since the test before

    def figures(found):
        assert found["allocated_mib"] > 0
        return {key: value for key, value in found.items() if key != "seconds"}

    wanted = [figures(trace(**description)) for description in descriptions]
    assert [figures(tracer.ask(description, 60)) for description in descriptions] == wanted
    helper = tracer._process
    assert figures(tracer.ask(descriptions[0], 60)) == wanted[0], "with bitsandbytes as without it"
    assert tracer._process is helper
    helper.kill()
    monkeypatch.setattr("engine.forecast.tracer.IDLE", 0.5)
    unknown = {**descriptions[1], "config": {"model_type": "zebra"}}
    assert "zebra" in tracer.ask(unknown, 60)["error"], "a new one answers"
    assert tracer._process is not helper and tracer._process.wait(30) == 0
    with pytest.raises(TimedOut):
        tracer.ask(descriptions[0], 0.01)
    assert tracer._process.poll() is not None
