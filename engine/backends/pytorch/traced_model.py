"""What a trace is of: a model without data, prepared as the stages prepare it, and the memory that loading it requests."""

from __future__ import annotations

from typing import Any

import torch

from engine.backends.pytorch.stand_ins import quantized_linear
from engine.forecast.recording import Recording

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
REFERENCE_ADAPTER = "ref"
HEAD_OUTPUTS = {
    "sft": ("log_probs", "entropy", "is_top1"), "grpo": ("log_probs", "entropy"), "orpo": ("log_probs",),
    "dpo": ("log_probs", "entropy", "mean_logits", "is_top1"), "cpo": ("log_probs", "entropy", "mean_logits", "is_top1"),
}  # fmt: skip
"""Method -> what its trainer asks of the head (``LinkedTrainer.head_outputs``)."""
CHECKPOINTING = {"use_reentrant": False, "preserve_rng_state": False}


class Traced:
    """The model of a config as a stage's process would prepare it: quantized, with its adapter, its head, its reference.

    ``load`` requests its weights of the allocator.
    """

    def __init__(self, config: dict[str, Any], settings: dict[str, Any]) -> None:
        self.settings = settings
        self.plain = settings["loop"] == "plain"
        self.lora = settings["training"] == "lora"
        self.dtype = DTYPES[settings["dtype"]]
        self.model = self._base(config)
        self.reference: torch.nn.Module | None = None
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
        attention = "eager" if self.settings["attention"] == "eager" else None  # as loading picks it: sdpa where it can
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
        if self.settings["padding_free"]:  # one row of all
            scored = self.settings["batch_size"] * self.settings["length"] - 1
        for model, outputs in ((self.model, wanted), (self.reference, ("log_probs",))):
            if model is not None:
                inner = model.get_base_model() if hasattr(model, "get_base_model") else model
                add_fused_lm_head(inner, outputs=outputs)
                if method == "grpo":
                    _score_only(inner, scored)
                add_small_head(model, outputs, scored=scored)

    # ---- memory --------------------------------------------------------------------------------------------------

    def load(self, recording: Recording) -> None:
        """Request every parameter and buffer in the order and precision of loading, with the copies on the way."""
        quantized = self.settings["quantization"] != "none"
        if quantized:  # transformers warms the allocator up with one block of the model's size, and frees it
            total = sum(_bytes(parameter) for parameter in self.model.parameters() if not parameter.requires_grad)
            recording.warm_up(total)
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
            module._parameters[name] = _like(parameter, dtype if parameter.requires_grad else torch.float32)


def _score_only(model: Any, scored: int) -> None:
    """On CUDA TRL's head takes the labelled positions out before it multiplies; which they are fake tensors cannot say:
    the last ``scored`` of each row."""
    fused = model.forward

    def last(module: Any, args: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[:, -scored - 1 :]
        return output

    def forward(*args: Any, labels: Any = None, fused_lm_head: bool = False, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None:
            return fused(*args, labels=labels, fused_lm_head=fused_lm_head, **kwargs)
        handle = model.base_model.register_forward_hook(last)
        try:
            return fused(*args, labels=labels[:, -scored - 1 :], fused_lm_head=True, **kwargs)
        finally:
            handle.remove()

    model.forward = forward


def _like(parameter: torch.nn.Parameter, dtype: torch.dtype) -> torch.nn.Parameter:
    fresh = torch.empty(parameter.shape, dtype=dtype)
    return torch.nn.Parameter(fresh, requires_grad=parameter.requires_grad)


def _bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()
