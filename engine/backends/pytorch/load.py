"""Load a policy by its lineage: the base in the wanted precision, and the one adapter that is carried through."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel, set_seed

from engine.backends.initial_adapter import initial_lora_a
from engine.backends.interface import LoadSettings
from engine.backends.pytorch.attention import pick_attention
from engine.backends.pytorch.device import pick_device, pick_dtype
from engine.backends.pytorch.interventions import attach
from engine.backends.pytorch.policy import TorchPolicy
from engine.backends.tokens import ensure_chat_template
from engine.models.lineage import Lineage
from recipes.errors import InputError, Problem

ADAPTER = "default"
ATTENTION_PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj"]


def load_policy(lineage: Lineage, run_folder: Path, settings: LoadSettings) -> TorchPolicy:
    """The lineage's base plus its adapter (a new one with the recipe's rank if it has none), ready to train.

    Raises OSError when files are missing and ValueError when the base's architecture has no module of the wanted
    targets; both are bad input, told with the path.
    """
    device = pick_device()
    folder = Path(lineage.base.path)
    folder = folder if folder.is_absolute() else run_folder / folder
    refuse_mlx_weights(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    ensure_chat_template(tokenizer)
    base = load_base(folder, device, settings)
    base.config.pad_token_id = tokenizer.pad_token_id
    if settings.training == "full":
        reference = (
            load_base(folder, device, settings).requires_grad_(False).eval() if settings.needs_reference else None
        )
        if reference is not None:
            attach(reference, lineage, run_folder)
        edits = attach(base, lineage, run_folder)
        return TorchPolicy(
            base, tokenizer, device, settings, adapter_at_start=False, reference=reference, interventions=edits
        )
    set_seed(settings.seed)
    trains = settings.training != "none"
    if lineage.adapter is not None:
        # Without is_trainable the adapter loads frozen and training would do nothing.
        model = PeftModel.from_pretrained(base, run_folder / lineage.adapter.path, is_trainable=trains)
    else:
        model = new_adapter(base, settings) if trains else base.requires_grad_(False)
    edits = attach(model, lineage, run_folder)
    return TorchPolicy(
        model, tokenizer, device, settings, adapter_at_start=lineage.adapter is not None, interventions=edits
    )


def refuse_mlx_weights(folder: Path) -> None:
    """Raises InputError for weights that MLX quantized: transformers would load them as something else."""
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    own = config.get("quantization")
    if (
        isinstance(own, dict)
        and "group_size" in own
        and "quant_method" not in (config.get("quantization_config") or {})
    ):
        found = f"weights quantized by MLX ({own.get('bits')} bits, groups of {own['group_size']})"
        accepted = "the original model with `quantization: 4bit` (bitsandbytes quantizes on load), or `backend: mlx`"
        raise InputError([Problem(str(folder), None, "model", found, accepted)])


def new_adapter(base: PreTrainedModel, settings: LoadSettings) -> PeftModel:
    """A LoRA adapter that changes nothing yet; its A matrices are those of every backend (engine.backends)."""
    model = get_peft_model(base, lora_config(settings))
    suffix = f".lora_A.{ADAPTER}"
    for name, module in model.named_modules():
        if name.endswith(suffix):
            inner = name.removeprefix("base_model.model.").removesuffix(suffix)
            matrix = initial_lora_a(settings.seed, inner, module.out_features, module.in_features)
            module.weight.data.copy_(torch.from_numpy(matrix))
    return model


def lora_config(settings: LoadSettings) -> LoraConfig:
    targets = {"all-linear": "all-linear", "attention": ATTENTION_PROJECTIONS}.get(
        settings.targets if isinstance(settings.targets, str) else "", settings.targets
    )
    return LoraConfig(
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets,
        task_type="CAUSAL_LM",
    )


def load_base(folder: Path, device: torch.device, settings: LoadSettings) -> PreTrainedModel:
    """The base model alone. Only safetensors are read: pickled weights run code when they load."""
    dtype = pick_dtype(settings.dtype, device)
    attention = pick_attention(settings.attention, device.type, dtype).implementation
    given: dict[str, Any] = {
        "dtype": dtype,
        "quantization_config": quantization(settings.quantization, dtype),
        "device_map": {"": device} if settings.quantization != "none" else None,
        "trust_remote_code": settings.trust_remote_code,
        "use_safetensors": True,
        "local_files_only": True,
    }
    try:
        asked = {"attn_implementation": attention} if attention else {}
        model = AutoModelForCausalLM.from_pretrained(folder, **given, **asked)
    except (ImportError, ValueError) as error:  # said before any weight is read
        if attention is None:
            raise
        if settings.attention != "auto":
            found, accepted = f"`{attention}`, which this model does not take ({error})"[:400], "`attention: auto`"
            raise InputError([Problem(str(folder), None, "attention", found, accepted)]) from error
        model = AutoModelForCausalLM.from_pretrained(folder, **given)
    if settings.quantization == "none":
        model = model.to(device)  # type: ignore[arg-type]
    else:
        _keep_quantized_weights_intact(model)
    return model


def quantization(kind: str, dtype: torch.dtype) -> BitsAndBytesConfig | None:
    if kind == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True)
    if kind == "4bit":
        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_compute_dtype=dtype,
            bnb_4bit_use_double_quant=True,
        )
    return None


def _keep_quantized_weights_intact(model: torch.nn.Module) -> None:
    """On CPUs with AVX512-BF16 an evaluation repacks 4-bit weights in place and later gradients become zero."""
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
