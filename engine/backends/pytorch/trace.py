"""Trace a training step on fake tensors: ``python -P -m engine.backends.pytorch.trace`` < description > figures.

The model is built by transformers from its config, the adapter by PEFT, the head by TRL, the optimizer by torch; a
meter counts what they would request of the CUDA allocator. Nothing is downloaded and nothing is computed.

Standard input: JSON ``{"config": {…config.json…}, "settings": {…}, "compute_capability": 86}``; the settings are those
of ``engine.forecast.settings.Settings``. Standard output: one JSON line ``{"allocated_mib", "reserved_mib",
"weights_mib", "forward_mib", "backward_mib", "optimizer_mib", "operations", "seconds"}`` or ``{"error"}``.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from typing import Any
from unittest import mock

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
from torch._subclasses import FakeTensorMode

from engine.backends.pytorch.meter import Meter
from engine.backends.pytorch.stand_ins import cuda_kernels, quantized_linear
from engine.backends.sparing import leave_out
from engine.forecast.allocator import MIB, CachingAllocator

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
REFERENCE_ADAPTER = "ref"
PAIRS_WITH_REFERENCE = ("dpo", "cpo")
HEAD_OUTPUTS = {
    "sft": ("log_probs", "entropy", "is_top1"), "grpo": ("log_probs", "entropy"), "orpo": ("log_probs",),
    "dpo": ("log_probs", "entropy", "mean_logits", "is_top1"), "cpo": ("log_probs", "entropy", "mean_logits", "is_top1"),
}  # fmt: skip
"""Method -> what its trainer asks of the head (``LinkedTrainer.head_outputs``)."""
GAUGES = {"sft": (4, 256), "orpo": (8, 256), "grpo": (8, 512), "dpo": (None, 256)}
"""Method -> (rows, positions) of the live KL gauge, as the modules of that name have them; None: all rows."""


def main() -> int:
    description = json.load(sys.stdin)
    out = os.dup(1)
    os.dup2(2, 1)  # what libraries print on the way must not mix with the answer
    try:
        if description["settings"]["quantization"] == "none":
            leave_out()
        found = trace(description["config"], description["settings"], description.get("compute_capability", 80))
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}"[:500]}
    os.write(out, json.dumps(found).encode() + b"\n")
    return 0


def trace(config: dict[str, Any], settings: dict[str, Any], compute_capability: int) -> dict[str, Any]:
    """Peak memory of a step of ``settings`` on the model of ``config`` (config.json's content)."""
    began = time.perf_counter()
    warnings.filterwarnings("ignore")
    allocator = CachingAllocator()
    with FakeTensorMode(allow_non_fake_inputs=True), _fake_friendly(), cuda_kernels(compute_capability):
        step = Step(config, settings)
        meter = Meter(allocator, compute_capability)
        with meter:
            step.load(allocator)
            weights = allocator.allocated
            phases = step.run(meter)
    return {
        "allocated_mib": allocator.peak_allocated / MIB,
        "reserved_mib": allocator.peak_reserved / MIB,
        "weights_mib": weights / MIB,
        **{f"{phase}_mib": peak / MIB for phase, peak in phases.items()},
        "operations": meter.operations,
        "seconds": time.perf_counter() - began,
    }


class Step:
    """A training step of one method. ``load`` requests the weights, ``run`` takes two steps and measures the second."""

    def __init__(self, config: dict[str, Any], settings: dict[str, Any]) -> None:
        self.settings = settings
        self.plain = settings["loop"] == "plain"
        self.lora = settings["training"] == "lora"
        self.dtype = DTYPES[settings["dtype"]]
        self.model = self._base(config)
        self.vocabulary = self.model.config.get_text_config().vocab_size
        self.reference: torch.nn.Module | None = None
        self.reference_hidden: list[torch.Tensor] = []
        if settings["reference"] == "copy":
            self.reference = self._base(config).requires_grad_(False).eval()
        if self.lora:
            self._add_adapter()
        if not self.plain:
            self._add_head()
        if settings["gradient_checkpointing"]:
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=CHECKPOINTING)
            if self.lora:
                self.model.enable_input_require_grads()
        self.model.train()

    def _base(self, config: dict[str, Any]) -> Any:
        from transformers import AutoConfig, AutoModelForCausalLM

        config = {key: value for key, value in config.items() if key not in ("quantization_config", "auto_map")}
        made = AutoConfig.for_model(**config)
        made.use_cache = False
        attention = "eager" if self.settings["attention"] == "eager" else "sdpa"
        model = AutoModelForCausalLM.from_config(made, dtype=self.dtype, attn_implementation=attention)
        if self.settings["quantization"] != "none":
            kind = self.settings["quantization"]
            head = model.get_output_embeddings()
            for name, module in list(model.named_modules()):
                if isinstance(module, torch.nn.Linear) and module is not head:
                    parent = model.get_submodule(name.rpartition(".")[0])
                    nested = self.settings["double_quant"]
                    setattr(parent, name.rpartition(".")[2], quantized_linear(module, kind, self.dtype, nested))
            model.is_loaded_in_4bit, model.is_loaded_in_8bit = kind == "4bit", kind == "8bit"
            model.is_quantized = False
        return model

    def _add_adapter(self) -> None:
        from peft import LoraConfig, get_peft_model

        settings = self.settings
        for parameter in self.model.parameters():
            parameter.requires_grad_(False)
        targets = settings["lora_targets"]
        lora = LoraConfig(r=settings["lora_rank"], target_modules=targets, task_type="CAUSAL_LM")
        self.model = get_peft_model(self.model, lora)
        if settings["reference"] == "adapter":
            self.model.add_adapter(REFERENCE_ADAPTER, lora)
            self.model.set_adapter("default")

    def _add_head(self) -> None:
        from trl.trainer.utils import add_fused_lm_head

        from engine.backends.pytorch.heads import add_small_head

        method, scored = self.settings["method"], self.settings["length"] - 1
        wanted = HEAD_OUTPUTS.get(method, ("log_probs",))
        if method == "grpo":
            scored = min(scored, self.settings["max_new_tokens"])  # completions alone
        for model, outputs in ((self.model, wanted), (self.reference, ("log_probs",))):
            if model is not None:
                add_fused_lm_head(
                    model.get_base_model() if hasattr(model, "get_base_model") else model, outputs=outputs
                )
                add_small_head(model, outputs, scored=scored)

    # ---- memory --------------------------------------------------------------------------------------------------

    def load(self, allocator: CachingAllocator) -> None:
        """Request every parameter and buffer in the order and precision of loading, with the copies on the way."""
        quantized = self.settings["quantization"] != "none"
        if quantized:  # transformers warms the allocator up with one block of the model's size, and frees it
            total = sum(_bytes(parameter) for parameter in self.model.parameters() if not parameter.requires_grad)
            allocator.free(allocator.allocate(total))
        self._request(self.model, quantized)
        if self.reference is not None:
            self._request(self.reference, quantized)

    def _request(self, model: torch.nn.Module, quantized: bool) -> None:
        keep = self.plain and quantized and self.settings["prepare_kbit"]
        seen: dict[int, torch.nn.Parameter] = {}
        adapters: list[tuple[torch.nn.Module, str, torch.nn.Parameter]] = []
        upcast: list[torch.nn.Parameter] = []
        for module in model.modules():
            if hasattr(module, "scales"):
                half = torch.empty((module.out_features, module.in_features), dtype=self.dtype)
                module.load()
                del half
            for name, parameter in list(module._parameters.items()):
                if parameter is None or (hasattr(module, "scales") and name == "weight"):
                    continue
                if id(parameter) in seen:
                    module._parameters[name] = seen[id(parameter)]
                elif self.lora and (parameter.requires_grad or REFERENCE_ADAPTER in name):
                    adapters.append((module, name, parameter))
                else:
                    fresh = _like(parameter, parameter.dtype)
                    seen[id(parameter)] = module._parameters[name] = fresh
                    if keep:
                        upcast.append(fresh)
            for name, buffer in list(module._buffers.items()):
                if buffer is not None:
                    module._buffers[name] = torch.empty_like(buffer)
        for parameter in upcast:  # prepare_model_for_kbit_training
            parameter.data = parameter.data.to(torch.float32)
        if not self.plain and quantized and self.dtype == torch.bfloat16:
            dtype = torch.bfloat16  # TRL keeps QLoRA adapters in bf16
        else:
            dtype = torch.float32  # PEFT's autocast_adapter_dtype
        for module, name, parameter in adapters:
            module._parameters[name] = _like(parameter, dtype)

    # ---- steps ---------------------------------------------------------------------------------------------------

    def run(self, meter: Meter) -> dict[str, int]:
        """Two steps, the second measured (the first makes the optimizer's state). Peaks of its phases in bytes."""
        optimizer = self._optimizer()
        batch, length = self.settings["batch_size"], self.settings["length"]
        sequences = batch * (2 if self.settings["method"] in ("dpo", "orpo", "cpo") else 1)
        tokens = torch.empty((sequences, length), dtype=torch.long)
        phases: dict[str, int] = {}
        for _ in range(2):
            self._step(optimizer, tokens, meter, phases)
        return phases

    def _step(self, optimizer: Any, tokens: torch.Tensor, meter: Meter, phases: dict[str, int]) -> None:
        allocator = meter.allocator
        peaks = []

        def phase(name: str) -> None:
            phases[name] = allocator.peak_allocated
            peaks.append(allocator.peak_allocated)
            allocator.peak_allocated = allocator.allocated

        optimizer.zero_grad(set_to_none=True)
        allocator.peak_allocated = allocator.allocated
        for _ in range(min(2, self.settings["accumulation"])):
            meter.thread = "forward"
            held, loss = self._loss(tokens)
            phase("forward")
            meter.thread = "backward"
            loss.backward()
            if not self.plain:
                held = loss = None
            phase("backward")
        optimizer.step()
        phase("optimizer")
        allocator.peak_allocated = max(peaks)
        del held

    def _loss(self, tokens: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """``(what the loop holds on to, loss)``."""
        if self.plain:
            out = self.model(input_ids=tokens, labels=tokens)
            return out, out.loss
        method = self.settings["method"]
        mask = torch.ones_like(tokens) if self.settings["padded"] else None
        with self._autocast(), _captured(self) as hidden:
            out = self.model(input_ids=tokens, attention_mask=mask, labels=tokens, use_cache=False, fused_lm_head=True)
            if method in PAIRS_WITH_REFERENCE and self.settings["reference"] != "precomputed":
                reference = self._reference_logprobs(tokens, mask)
            else:
                reference = torch.zeros(out.log_probs.shape)
            hidden.extend(self.reference_hidden)
            self.reference_hidden = []
            if method == "cpo":
                loss = self._preference_loss(out, reference)
                return hidden, loss + self._penalty(tokens, mask, hidden)
            self._gauge(tokens, mask, len(hidden))
            if method == "sft":
                return hidden, out.loss
            if method == "grpo":
                return hidden, self._clipped_loss(out)
            return hidden, self._preference_loss(out, reference)

    def _preference_loss(self, out: Any, reference: torch.Tensor) -> torch.Tensor:
        chosen, rejected = (out.log_probs - reference).sum(1).chunk(2)
        return -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean() + 0.0 * out.loss

    def _clipped_loss(self, out: Any) -> torch.Tensor:
        """PPO's objective with one advantage a row."""
        ratio = torch.exp(out.log_probs - out.log_probs.detach())
        advantages = torch.empty((ratio.shape[0], 1))
        return -torch.min(ratio * advantages, torch.clamp(ratio, 0.8, 1.2) * advantages).mean()

    def _penalty(self, tokens: torch.Tensor, mask: Any, hidden: list[torch.Tensor]) -> torch.Tensor:
        """CPO's divergence on the pairs and on anchors beside them, which go through the model on their own."""
        from engine.backends.pytorch.divergence import captured_hidden_states, token_divergence
        from engine.backends.pytorch.heads import penalty_positions

        policy, reference = hidden[:2] if len(hidden) > 1 else (hidden[0], hidden[0].detach())
        sides = [(policy, reference.detach())]
        if self.settings["anchor_share"]:
            count = max(1, round(self.settings["batch_size"] * self.settings["anchor_share"]))
            rows, rows_mask = tokens[:count], None if mask is None else mask[:count]
            with captured_hidden_states(self.model, with_graph=True) as anchors:
                self.model(input_ids=rows, attention_mask=rows_mask, use_cache=False, logits_to_keep=1)
            sides.append((anchors[0], self._reference_rows(rows, rows_mask)))
        divergences = []
        positions = penalty_positions(self.model, tokens.numel()) // len(sides)
        for policy, reference in sides:
            budget = _thinned(policy.shape[0] * (policy.shape[1] - 1), positions)
            places = [torch.zeros(budget, dtype=torch.long) for _ in range(2)]
            chosen, other = (states[:, :-1][places[0], places[1]] for states in (policy, reference))
            divergences.append(token_divergence(self.model, chosen, other.detach(), self.reference))
        return torch.cat(divergences).mean()

    @torch.no_grad()
    def _reference_rows(self, tokens: torch.Tensor, mask: Any) -> torch.Tensor:
        """The last hidden states of the stage's start for a few rows, while the step's activations wait."""
        from engine.backends.pytorch.divergence import captured_hidden_states

        model = self.reference if self.reference is not None else self.model
        context: Any = contextlib.nullcontext() if self.reference is not None else self._reference_adapter()
        with context, captured_hidden_states(model) as hidden:
            model(input_ids=tokens, attention_mask=mask, use_cache=False, logits_to_keep=1)
        return hidden[0]

    def _gauge(self, tokens: torch.Tensor, mask: Any, forwards: int) -> None:
        """The live KL of a few positions, in fp32 tiles of both models' logits; most methods ask the start for it."""
        from engine.backends.pytorch.divergence import token_divergence

        rows, positions = GAUGES[self.settings["method"]]
        if rows is None:
            if forwards < 2:  # the reference was computed beforehand
                return
        elif self.lora or self.reference is not None:
            self._reference_rows(tokens[:rows], None if mask is None else mask[:rows])
        else:
            return
        scored = self.settings["length"] - 1
        if self.settings["method"] == "grpo":
            scored = min(scored, self.settings["max_new_tokens"])  # completions alone
        count = _thinned(min(rows or tokens.shape[0], tokens.shape[0]) * scored, positions)
        width = self.model.get_output_embeddings().weight.shape[1]
        policy, reference = (torch.empty((count, width), dtype=self.dtype) for _ in range(2))
        token_divergence(self.model, policy, reference, self.reference)

    def _reference_logprobs(self, tokens: torch.Tensor, mask: Any) -> torch.Tensor:
        nothing: Any = contextlib.nullcontext()
        with torch.no_grad():
            if self.reference is not None:
                model, context = self.reference, nothing
            else:
                model, context = self.model, self._reference_adapter()
            with context, _checkpointing_off(self.model):
                return model(
                    input_ids=tokens, attention_mask=mask, labels=tokens, use_cache=False, fused_lm_head=True
                ).log_probs

    @contextlib.contextmanager
    def _reference_adapter(self) -> Iterator[None]:
        if self.settings["reference"] == "adapter":
            self.model.set_adapter(REFERENCE_ADAPTER)
            try:
                yield
            finally:
                self.model.set_adapter("default")
        else:
            with self.model.disable_adapter():
                yield

    def _autocast(self) -> Any:
        """The Trainer's mixed precision: bf16 on GPUs that have it."""
        if self.dtype == torch.float32 or not self.settings["autocast"]:
            return contextlib.nullcontext()
        return torch.autocast("cpu", dtype=self.dtype)

    def _optimizer(self) -> Any:
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if self.settings["optimizer"] == "adamw":
            return torch.optim.AdamW(parameters, foreach=True)  # the default on CUDA
        if self.settings["optimizer"].startswith("sgd"):
            momentum = 0.9 if self.settings["optimizer"] == "sgd-momentum" else 0.0
            return torch.optim.SGD(parameters, lr=1e-4, momentum=momentum, foreach=True)
        return QuantizedAdam(parameters, paged=self.settings["optimizer"].startswith("paged"))


CHECKPOINTING = {"use_reentrant": False, "preserve_rng_state": False}


class QuantizedAdam:
    """bitsandbytes' 8-bit Adam: two bytes of state for each parameter and a scale for 256 of them; small ones in fp32.

    Its kernel updates in place. Paged states are not requested of the allocator.
    """

    def __init__(self, parameters: list[torch.nn.Parameter], paged: bool) -> None:
        self.parameters = parameters
        self.paged = paged
        self.state: list[torch.Tensor] = []

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        if self.state or self.paged:
            return
        for parameter in self.parameters:
            small = parameter.numel() < 4096
            for _ in range(2):
                self.state.append(torch.empty(parameter.shape, dtype=torch.float32 if small else torch.uint8))
                if not small:
                    self.state.append(torch.empty(-(-parameter.numel() // 256)))


@contextlib.contextmanager
def _captured(step: Step) -> Iterator[list[torch.Tensor]]:
    """The live KL gauge of the stages holds the last hidden states of the forward, and of the reference's."""
    method = step.settings["method"]
    if method in PAIRS_WITH_REFERENCE or step.lora or step.reference is not None:
        from engine.backends.pytorch.divergence import captured_hidden_states

        with contextlib.ExitStack() as stack:
            hidden = stack.enter_context(captured_hidden_states(step.model, with_graph=method == "cpo"))
            if step.reference is not None and method in PAIRS_WITH_REFERENCE:
                step.reference_hidden = stack.enter_context(captured_hidden_states(step.reference))
            yield hidden
    else:
        yield []


@contextlib.contextmanager
def _checkpointing_off(model: Any) -> Iterator[None]:
    from trl.models.utils import disable_gradient_checkpointing

    with disable_gradient_checkpointing(model, CHECKPOINTING):
        yield


@contextlib.contextmanager
def _fake_friendly() -> Iterator[None]:
    """What does not work on fake tensors and does not matter to them: moving modules and initialising weights."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(torch.nn.Module, "to", lambda self, *args, **kwargs: self))
        for name in ("kaiming_uniform_", "normal_", "zeros_", "trunc_normal_", "uniform_"):
            stack.enter_context(mock.patch.object(torch.nn.init, name, lambda tensor, *args, **kwargs: tensor))
        yield


def _thinned(positions: int, at_most: int) -> int:
    """How many positions a fixed stride leaves (``engine.backends.pytorch.divergence.predicting_positions``)."""
    return -(-positions // -(-positions // at_most))


def _like(parameter: torch.nn.Parameter, dtype: torch.dtype) -> torch.nn.Parameter:
    fresh = torch.empty(parameter.shape, dtype=dtype)
    return torch.nn.Parameter(fresh, requires_grad=parameter.requires_grad)


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


if __name__ == "__main__":
    sys.exit(main())
