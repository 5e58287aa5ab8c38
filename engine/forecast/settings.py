"""How a stage is run, as far as memory and time depend on it: one plain, checked description for every tier."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from typing import Any

from recipes.errors import InputError, Problem, nearest_word, quoted

METHODS = (
    "sft", "dpo", "orpo", "grpo", "cpo", "rlvr", "abliteration", "steering", "calibration", "anti_hallucination",
)  # fmt: skip
PAIRS = ("dpo", "orpo", "cpo")
GROUPS = ("grpo", "rlvr")
NO_TRAINING = ("abliteration", "steering", "calibration")
REFERENCES = ("dpo", "cpo")
MEASURED = ("orpo", "grpo", "rlvr")
"""Methods that need no reference in each step: their gauges and gates compare with the stage's start, in full fine-tuning
a copy of it."""

OTHER_NAMES = {
    "seq_len": "length", "max_length": "length", "sequence_length": "length", "micro_batch": "batch_size",
    "micro_batch_size": "batch_size", "per_device_train_batch_size": "batch_size", "precision": "dtype",
    "compute_dtype": "dtype", "grad_checkpoint": "gradient_checkpointing", "checkpointing": "gradient_checkpointing",
    "attn_impl": "attention", "attn_implementation": "attention", "rank": "lora_rank", "lora_r": "lora_rank",
    "targets": "lora_targets", "gradient_accumulation_steps": "accumulation", "accumulation_steps": "accumulation",
    "num_generations": "group_size", "completion_length": "max_new_tokens", "max_completion_length": "max_new_tokens",
    "processes": "gpus", "num_gpus": "gpus", "optim": "optimizer", "quant": "quantization",
}  # fmt: skip
"""Names that other programs use -> ours."""
OTHER_WORDS: dict[str, dict[Any, str]] = {
    "quantization": {"nf4": "4bit", "int4": "4bit", "fp4": "4bit", "qlora": "4bit", "int8": "8bit", None: "none", "": "none"},
    "dtype": {"float16": "fp16", "half": "fp16", "bfloat16": "bf16", "float32": "fp32"},
    "attention": {"flash": "sdpa", "flash_attention_2": "sdpa", "efficient": "sdpa"},
    "optimizer": {
        "adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adam": "adamw", "adam8bit": "adamw-8bit",
        "adamw8bit": "adamw-8bit", "adamw_8bit": "adamw-8bit", "adamw_bnb_8bit": "adamw-8bit",
        "paged_adamw_8bit": "paged-adamw-8bit",
    },
    "lora_targets": {"all": "all-linear", "all_linear": "all-linear", "linear": "all-linear"},
    "method": {"anti-hallucination": "anti_hallucination"},
}  # fmt: skip
WORDS = {
    "method": METHODS,
    "backend": ("pytorch", "mlx"),
    "loop": ("plain", "stage"),
    "training": ("lora", "full"),
    "quantization": ("none", "8bit", "4bit"),
    "dtype": ("fp16", "bf16", "fp32"),
    "attention": ("sdpa", "eager"),
    "optimizer": ("adamw", "adamw-8bit", "paged-adamw-8bit", "sgd", "sgd-momentum"),
    "reference": ("none", "base", "adapter", "copy", "precomputed"),
}
NOT_SETTINGS = {
    "gpu_key", "gpu_name", "gpu", "kernel", "name", "model", "model_id", "seed", "warmup_steps", "measure_steps",
    "optimizer_dtype", "lora_alpha", "lora_dropout", "learning_rate",
}  # fmt: skip
"""What descriptions of other programs carry along and memory does not depend on."""


@dataclass(frozen=True)
class Settings:
    """Lengths and batches are per device; ``batch_size`` counts pairs where the method has pairs."""

    method: str = "sft"
    backend: str = "pytorch"
    loop: str = "plain"
    """``plain``: a transformers and PEFT loop, ``model(input_ids, labels=labels)``, which holds the whole logits.
    ``stage``: what this project's stages run (TRL's trainers, whose head is fused with the loss)."""
    training: str = "lora"
    quantization: str = "none"
    double_quant: bool = False
    prepare_kbit: bool = True
    """``plain`` only: PEFT's prepare_model_for_kbit_training, which turns what is not quantized into fp32."""
    dtype: str = "bf16"
    autocast: bool = False
    lora_rank: int = 16
    lora_targets: str | list[str] = "all-linear"
    gradient_checkpointing: bool = False
    attention: str = "sdpa"
    fixed_order: bool = True
    """``stage`` only: CUDA's sums in a fixed order, which takes some workspace more."""
    optimizer: str = "adamw"
    batch_size: int = 1
    accumulation: int = 1
    length: int = 1024
    padded: bool = False
    """Rows of different length in a batch: an attention mask goes along, which flash kernels do not take."""
    padding_free: bool = False
    """The rows of a micro-batch end to end, without a mask; each is attended to on its own."""
    group_size: int = 8
    max_new_tokens: int = 256
    prompt_length: int = 256
    reference: str = "none"
    """What the policy is compared with, by DPO's and CPO's loss or by the gauges: the base below the adapter, a frozen
    second adapter, a second model (copy), log-probabilities computed beforehand."""
    anchor_share: float = 0.25
    """CPO: general rows beside the pairs of a micro-batch, as a share of them; 0 for none."""
    gpus: int = 1
    steps: int = 200
    evaluation_prompts: int = 0
    evaluation_tokens: int = 128
    checkpoint_keep: int = 3

    @property
    def pairs(self) -> bool:
        return self.method in PAIRS

    @property
    def trains(self) -> bool:
        return self.method not in NO_TRAINING

    @property
    def sequences(self) -> int:
        """Rows of ``length`` tokens that go through the model at once in training."""
        return self.batch_size * (2 if self.pairs else 1)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def read_settings(given: dict[str, Any], where: str = "run") -> Settings:
    """Settings from a plain dict; other programs' names and words are understood. Raises InputError."""
    names = {field.name: field for field in fields(Settings)}
    values: dict[str, Any] = {}
    problems: list[Problem] = []
    for key, value in given.items():
        name = OTHER_NAMES.get(key, key)
        if name in NOT_SETTINGS:
            continue
        if name not in names:
            problems.append(
                Problem(where, None, key, f"an unknown setting `{key}`", quoted(names), nearest_word(key, names))
            )
            continue
        if isinstance(value, str | None) and name in OTHER_WORDS:
            value = OTHER_WORDS[name].get(value.lower() if isinstance(value, str) else value, value)
        values[name] = value
    if "lora_targets" in values and values["lora_targets"] is None:
        del values["lora_targets"]
    if "lora_rank" in values and values["lora_rank"] is None:  # how a full fine-tuning is often written
        del values["lora_rank"]
        values.setdefault("training", "full")
    if "loop" in values and values["loop"] == "stage":
        values.setdefault("double_quant", True)
        values.setdefault("prepare_kbit", False)
        values.setdefault("autocast", values.get("dtype", "bf16") == "bf16")
    method, training = values.get("method", "sft"), values.get("training", "lora")
    if method in REFERENCES and values.get("reference", "none") == "none":
        values["reference"] = "base" if training == "lora" else "copy"
    if method in MEASURED and training == "full" and values.get("loop") == "stage":
        values.setdefault("reference", "copy")
    problems += _wrong(values, names, where)
    if problems:
        raise InputError(problems)
    return Settings(**values)


def _wrong(values: dict[str, Any], names: Iterable[str], where: str) -> list[Problem]:
    problems = []
    for name, value in values.items():
        default = getattr(Settings, name)
        if name == "lora_targets":
            good = isinstance(value, str) or (
                isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
            )
            accepted = "`all-linear`, `attention` or a list of module names"
        elif name in WORDS:
            good, accepted = value in WORDS[name], quoted(WORDS[name])
        elif isinstance(default, float):
            good = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1
            accepted = "a share from 0 to below 1"
        elif isinstance(default, bool):
            good, accepted = isinstance(value, bool), "`true` or `false`"
        else:
            least = 0 if name.startswith("evaluation") else 1
            good = isinstance(value, int) and not isinstance(value, bool) and value >= least
            accepted = f"a whole number from {least}"
        if not good:
            near = nearest_word(str(value), WORDS[name]) if name in WORDS else None
            problems.append(Problem(where, None, name, f"`{value}`", accepted, near))
    if not problems and values.get("method") in GROUPS and values.get("group_size", 8) < 2:
        accepted = "at least 2: an advantage compares completions of the same prompt"
        problems.append(Problem(where, None, "group_size", "`1`", accepted))
    if not problems and values.get("training") == "full" and values.get("quantization", "none") != "none":
        accepted = "`none` for full fine-tuning (quantized weights have no gradient), or `training: lora`"
        problems.append(Problem(where, None, "quantization", f"`{values['quantization']}`", accepted))
    return problems


def from_stage(recipe: Any, stage: Any, *, inherited_adapter: bool, dtype: str, quantization: str) -> Settings:
    """The settings of a recipe's stage. Fields that a method's stage does not have take the defaults above."""
    adapter = getattr(stage, "adapter", None)
    method = stage.method.replace("-", "_")
    evaluation = getattr(stage, "evaluation", None)
    training = getattr(stage, "training", "lora")
    batch = getattr(stage, "batch_size", 8)
    reference = "adapter" if inherited_adapter and training == "lora" else "none"  # a frozen copy, for the gauges
    if method in MEASURED and training == "full":
        reference = "copy"
    if method in REFERENCES:
        reference = "copy" if training == "full" else "adapter" if inherited_adapter else "base"
        if getattr(stage, "precompute_reference", False) or getattr(stage, "precompute_ref_log_probs", False):
            reference = "precomputed"
    free = getattr(stage, "padding_free", False)
    given = {
        "loop": "stage",
        "backend": recipe.backend if recipe.backend != "auto" else "pytorch",
        "method": method,
        "training": training,
        "quantization": quantization if training == "lora" else "none",
        "dtype": dtype,
        "lora_rank": adapter.rank if adapter else 16,
        "lora_targets": adapter.targets if adapter else "all-linear",
        "gradient_checkpointing": getattr(stage, "gradient_checkpointing", False),
        "optimizer": getattr(stage, "optimizer", "adamw"),
        "batch_size": batch,
        "accumulation": getattr(stage, "accumulation", 1),
        "length": getattr(stage, "max_length", 1024),
        "attention": "eager" if recipe.attention == "eager" else "sdpa",
        "fixed_order": recipe.fixed_order,
        "padded": (batch > 1 and not free) or method in PAIRS,
        "padding_free": free,
        "group_size": getattr(stage, "group_size", None) or getattr(stage, "num_generations", None) or 8,
        "max_new_tokens": getattr(stage, "max_new_tokens", None) or getattr(evaluation, "max_new_tokens", None) or 256,
        "reference": reference,
        "anchor_share": getattr(getattr(stage, "anchors", None), "share", 0.0),
        "gpus": recipe.processes,
        "steps": getattr(stage, "steps", 200),
        "evaluation_prompts": getattr(evaluation, "prompts", 0) or 0,
        "evaluation_tokens": getattr(evaluation, "max_new_tokens", 128) or 128,
        "checkpoint_keep": getattr(getattr(stage, "checkpoint", None), "keep", 3),
    }
    return read_settings(given, recipe.name)
