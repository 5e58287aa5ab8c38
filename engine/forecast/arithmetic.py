"""Tier 1: the memory of a stage from formulas, in microseconds and without any training library.

Each formula counts the tensors that PyTorch keeps, with N = sequences x length tokens, h hidden, i intermediate,
V vocabulary, s bytes of the hidden stream. The peak is the largest of four moments: the loss, the backward of one
layer's MLP, the backward of one layer's attention, the optimizer step. The constants count tensors (each says which);
none is fitted. The only measured ones are the allocator's slack and the CUDA context (``SLACK``, engine.forecast.hardware).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from engine.forecast.model import FUSED_EXPERTS, ModelFacts
from engine.forecast.settings import GROUPS, NO_TRAINING, Settings

MIB = 2**20
BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
CUBLAS = 2 * (4096 * 1024 * 2 + 16 * 1024 * 8)
"""Two cuBLAS workspaces (forward and backward thread), ``aten/src/ATen/cuda/CUDABlas``."""
CUBLAS_FIXED = 2 * 8 * 4096 * 1024
"""The same where sums have a fixed order, as in a stage's steps."""
HEAD_COPIES = 4
"""As ``engine.backends.pytorch.heads`` has it, which needs torch."""
TILE_TOKENS, TILE_VOCABULARY = 4096, 32768
"""Tile of TRL's fused head (``trl.kernels.chunked_logprob``)."""
KL_TOKENS = 256
"""Positions of the live KL gauge (``engine.backends.pytorch.dpo``)."""
SCORING_LOGITS = 2**25
"""Logits that an evaluation holds at once (``engine.backends.pytorch.policy.LOGIT_BUDGET``), in fp32 and log-softmax."""
GENERATION_BATCH = 64
"""Prompts generated at once (``engine.backends.pytorch.policy``)."""
SLACK = 1.09
"""Reserved over allocated: the median of the 25 rows without score matrices that were measured on a T4 (1.04-1.22)."""
SCORE_WASTE = 6
"""Bytes of reserved memory that an element of the eager kernel's score matrices wastes: one freed 16-bit block and one
fp32 block, neither of which the other's next request fits into."""
PARTS = (
    "weights", "reference", "adapter", "gradients", "optimizer", "activations", "logits", "kv_cache", "workspace",
)  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """Bytes on one device. ``parts`` add up to ``allocated``; ``moment`` names the peak."""

    allocated: float
    reserved: float
    parts: dict[str, float]
    moment: str
    notes: tuple[str, ...] = field(default=())


def memory(model: ModelFacts, settings: Settings) -> Memory:
    """The peak of a stage: of its training step, or of its generating and measuring where that is more."""
    if settings.backend == "mlx":
        from engine.forecast.arithmetic_mlx import mlx_memory  # it is made of the parts that are here

        return mlx_memory(model, settings)
    moments = {"generating": generating(model, settings)}
    if settings.trains:
        moments |= _training(model, settings)
    else:
        moments["measuring"] = measuring(model, settings)
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    parts = {name: moments[moment].get(name, 0.0) for name in PARTS}
    allocated = sum(parts.values())
    reserved = allocated * SLACK
    if settings.attention == "eager" and settings.trains:
        reserved += SCORE_WASTE * settings.sequences * model.heads * settings.length**2
    return Memory(allocated, reserved, parts, moment, tuple(notes(model, settings)))


def notes(model: ModelFacts, settings: Settings) -> list[str]:
    found = []
    if not model.certain:
        found.append(f"`{model.architecture}` is priced by the general decoder formulas: uncertain")
    if settings.quantization != "none" and model.architecture in FUSED_EXPERTS:
        found.append("the experts stay in 16 bit: transformers keeps them in one tensor, which is not quantized")
    if settings.optimizer.startswith("paged"):
        found.append("the optimizer's states may leave the GPU when it is full; they are not counted")
    return found


# ---- what stays ----------------------------------------------------------------------------------------------------------


def weight_bytes(model: ModelFacts, settings: Settings) -> float:
    """The base in the wanted precision. Embeddings, head, norms and fused experts are never quantized."""
    size = BYTES[settings.dtype]
    linears = model.layers * sum(linear.size for linear in model.linears())
    experts = model.layers * model.expert_parameters
    kept = model.small_parameters + model.embedding_parameters + model.vision
    if settings.quantization == "none":
        return (linears + experts + kept) * size
    if settings.quantization == "4bit":  # half a byte, and a scale for 64 of them: 4 bytes, or 1 plus 4 for 256 scales
        quantized = linears * (0.5 + (1 / 64 + 4 / 64 / 256 if settings.double_quant else 4 / 64))
    else:
        quantized = linears + 4 * model.layers * sum(linear.outputs for linear in model.linears())
    prepared = settings.loop == "plain" and settings.prepare_kbit
    return quantized + (experts + kept) * (4 if prepared else size)


def trainable(model: ModelFacts, settings: Settings) -> int:
    if settings.training == "full":
        return model.parameters
    return model.adapter_parameters(settings.lora_rank, settings.lora_targets)


def trainable_bytes(settings: Settings) -> int:
    """Bytes of a trained parameter: PEFT keeps adapters in fp32, TRL those of a quantized base in bf16."""
    if settings.training == "full":
        return BYTES[settings.dtype]
    if settings.loop == "stage" and settings.quantization != "none" and settings.dtype == "bf16":
        return 2
    return 4


def _resident(model: ModelFacts, settings: Settings) -> dict[str, float]:
    count, size = trainable(model, settings), trainable_bytes(settings)
    weights = weight_bytes(model, settings)
    adapter = count * size if settings.training == "lora" else 0
    second = 4 * count if settings.training == "lora" else 0  # TRL casts the adapter that trains, not its frozen copy
    reference = {"copy": weights, "adapter": second}.get(settings.reference, 0)
    quantized = 2 * count * (1 + 4 / 256)
    if settings.training == "full" and settings.loop == "stage":  # the Trainer keeps those of embeddings in fp32
        quantized += model.vocabulary * model.hidden * 2 * (4 - 1 - 4 / 256)
    states = {"adamw": 2 * count * size, "adamw-8bit": quantized, "sgd-momentum": count * size}
    return {
        "weights": weights,
        "adapter": adapter,
        "reference": reference,
        "optimizer": states.get(settings.optimizer, 0) if settings.trains else 0,
        "workspace": CUBLAS_FIXED if settings.loop == "stage" else CUBLAS,
    }


# ---- a training step -----------------------------------------------------------------------------------------------------


def _training(model: ModelFacts, settings: Settings) -> dict[str, dict[str, float]]:
    resident = _resident(model, settings)
    count, size = trainable(model, settings), trainable_bytes(settings)
    gradients = count * size
    layer = Layer(model, settings)
    tokens = layer.tokens
    stream = layer.stream
    if settings.gradient_checkpointing:
        kept = float(model.layers * tokens * model.hidden * stream)  # the input of each layer
        recomputed = layer.saved
        if settings.quantization == "8bit":
            kept += model.layers * layer.inputs_in_8bit
    else:
        kept = model.layers * layer.saved
        recomputed = 0.0
    kept += tokens * model.hidden * (4 if stream == 2 else 0)  # the last norm computes in fp32
    held, loss = _logits(model, settings, stream)
    if settings.method in ("dpo", "cpo") and settings.loop == "stage":
        # Both forwards' last hidden states, and two fp32 tiles for the live KL.
        kept += 2 * tokens * model.hidden * stream
        loss = max(loss, 2 * KL_TOKENS * min(TILE_VOCABULARY, model.vocabulary) * 4)
    accumulated = gradients if settings.accumulation > 1 else 0
    # The last layer's gradients are there when its backward begins; the first layer's when its own ends.
    in_layer = gradients if settings.training == "full" or settings.accumulation > 1 else gradients / model.layers
    if settings.training == "full" and settings.accumulation == 1:
        in_layer = gradients / model.layers + model.embedding_parameters * size
    if settings.training == "full" and model.tied:  # the head's and the embedding's share, before they are added
        both = model.vocabulary * model.hidden * size
    else:
        both = 0
    first = resident | {
        "gradients": float(gradients + both),
        "activations": kept / model.layers + recomputed,
        "logits": held,
    }
    head_gradient = 0.0
    if settings.training == "full" and settings.loop == "stage":
        head_gradient = model.vocabulary * model.hidden * (4 + size)  # accumulated in fp32, then in the weights' type
    return {
        "loss": resident | {"gradients": accumulated + head_gradient, "activations": kept, "logits": loss},
        "backward of a layer's MLP": resident
        | {"gradients": in_layer, "activations": kept + recomputed + layer.mlp_backward, "logits": held},
        "backward of a layer's attention": resident
        | {"gradients": in_layer, "activations": kept + recomputed + layer.attention_backward, "logits": held},
        "end of the backward": first
        | {"activations": first["activations"] + max(layer.mlp_backward, layer.attention_backward)},
        # AdamW over lists of tensors keeps the roots of all second moments at once.
        "optimizer step": resident
        | {
            "gradients": gradients + (count * size if settings.optimizer == "adamw" else 0),
            "logits": held,
        },
    }


def _logits(model: ModelFacts, settings: Settings, stream: int) -> tuple[float, float]:
    """Bytes of logits ``(held during the backward, at their own peak)``."""
    tokens = settings.sequences * settings.length
    if settings.loop == "plain":
        # Logits (held by the caller), log-softmax, its gradient and the loss's gradient; a 16-bit head adds its own.
        return tokens * model.vocabulary * stream, tokens * model.vocabulary * (stream + 12)
    if settings.method in GROUPS:  # completions alone are scored
        tokens = settings.sequences * min(settings.length, settings.max_new_tokens)
    size = BYTES[settings.dtype]
    tile = min(tokens, TILE_TOKENS) * TILE_VOCABULARY * size
    whole = HEAD_COPIES * tokens * model.vocabulary * size
    if size == 4 and whole <= tile:  # the logits are small: built at once (``engine.backends.pytorch.heads``)
        return 0.0, whole + tokens * model.hidden * size
    # A tile, the scored hidden states and their gradient in fp32; with fp32 scratch in the product's reference kernel.
    return 0.0, tile + tokens * model.hidden * (size + 4)


class Layer:
    """One decoder layer: what its forward saves for the backward, and what the backward adds on top of that."""

    def __init__(self, model: ModelFacts, settings: Settings) -> None:
        prepared = settings.loop == "plain" and settings.prepare_kbit and settings.quantization != "none"
        self.model, self.settings = model, settings
        self.tokens = settings.sequences * settings.length
        self.stream = 4 if prepared else BYTES[settings.dtype]
        self.half = self.stream == 2
        full = settings.training == "full"
        n, s, h = self.tokens, self.stream, model.hidden
        q, i = model.query_width, model.active_intermediate
        names = {linear.name for linear in model.reached(settings.lora_targets)} if not full else set()
        cast = 4 if self.half and not settings.autocast else s
        """LoRA's input: PEFT turns it into fp32, each layer its own copy; autocast turns that back into a copy in bf16.
        Around a quantized base under autocast it is left as it is."""
        shared = not self.half or (settings.autocast and settings.quantization != "none")

        def inputs(group: set[str], width: int) -> float:
            reached = len(names & group)
            if full:
                return n * width * s
            adapter = n * width * cast * (min(1, reached) if shared else reached)
            if settings.quantization != "8bit":
                return adapter
            return max(adapter, n * width * s) if shared else adapter + n * width * s  # MatMul8bitLt keeps its input

        norms = 2 * n * h * 4  # each norm keeps its input in fp32; with a 4-byte stream that is the stream itself
        if not self.half:
            norms = n * h * 4
        gemma = model.architecture.startswith("gemma")
        norms += (model.norms - 2) * n * h * (4 if self.half else 8)
        if full:  # a trained norm keeps what it multiplies with, Gemma's in fp32
            norms += model.norms * n * h * (4 if gemma else s)
        wide_keys = settings.attention == "eager" or settings.padded or settings.dtype == "fp16" or s == 4
        keys = q if wide_keys else model.key_width  # grouped keys are repeated where the kernel cannot group
        heads = settings.sequences * model.heads
        attention = n * (2 * q + 2 * keys) * s + heads * settings.length * 4
        if settings.padding_free:
            attention += n * q * s  # the rows' outputs, and all of them in one piece
        if settings.attention == "eager":
            scores = heads * settings.length**2
            attention += scores * (6 if self.half else 4) - n * q * s  # softmax in fp32 and again in 16 bit
        else:
            scores = 0
        if model.qk_norm:
            attention += n * (q + model.key_width) * 4
        adapters = inputs({"q_proj", "k_proj", "v_proj", "qkv_proj"}, h) + inputs(
            {"gate_proj", "up_proj", "gate_up_proj"}, h
        )
        if not shared or full:
            adapters += inputs({"o_proj"}, q)
        adapters += inputs({"down_proj"}, i) if not full else n * i * s
        pieces = 3 if model.gated else 2  # gate, its activation, up
        self.inputs_in_8bit = float(n * (2 * h + q + i) * s)
        """MatMul8bitLt keeps the inputs of all linears outside of what checkpointing drops."""
        self.saved = float(norms + attention + pieces * n * i * s + adapters + n * model.experts * 8)
        # The MLP's backward: gradients of the product, of the activation and of up; the residual's gradient.
        weight = max((linear.size for linear in model.linears()), default=0)
        unpacked = {"none": 0, "4bit": weight * (2 + (4 if s == 4 else 0)), "8bit": weight * 2}[settings.quantization]
        residual = n * h * s
        down_adapter = n * i * (4 + s) if "down_proj" in names and self.half and not shared else 0
        self.mlp_backward = float(residual + max(pieces * n * i * s, n * i * s + unpacked, down_adapter + n * i * s))
        # The attention's backward begins when the MLP's tensors are gone.
        gone = pieces * n * i * s + inputs({"gate_proj", "up_proj"}, h) + inputs({"down_proj"}, i)
        if settings.attention == "eager":
            own = scores * (4 + 2 + 4 if self.half else 12)  # gradient in fp32 and in the scores' type, their product
        else:
            own = n * (q + 2 * keys) * s + n * q * 4 + (n * q * s)
        self.attention_backward = float(2 * residual + own - min(gone, self.saved))


# ---- generating and measuring --------------------------------------------------------------------------------------------


def kv_bytes(model: ModelFacts, sequences: int, length: int, size: int = 2) -> float:
    """Keys and values of every layer for ``sequences`` of ``length`` tokens."""
    return 2.0 * model.layers * model.key_width * size * sequences * length


def generating(model: ModelFacts, settings: Settings, step: int = 1) -> dict[str, float]:
    """Sampling: the stage's own completions (GRPO, RLVR, anti-hallucination), or an evaluation's. ``step``: tokens by which
    the cache grows."""
    if settings.loop == "plain" and settings.method == "sft":
        return {}
    size = BYTES[settings.dtype]
    if settings.method in GROUPS:
        sequences = settings.batch_size * settings.accumulation  # one generation serves all micro-batches of a step
        length = settings.prompt_length + settings.max_new_tokens
    elif settings.evaluation_prompts or settings.method in (*NO_TRAINING, "anti_hallucination"):
        sequences = min(GENERATION_BATCH, settings.evaluation_prompts or GENERATION_BATCH)
        length = settings.prompt_length + settings.evaluation_tokens
    else:
        return {}
    resident = _resident(model, settings)
    cache = kv_bytes(model, sequences, -(-length // step) * step, size)
    return resident | {
        # Growing a cache by one token copies a layer of it; the prompt's pass holds a layer's tensors.
        "kv_cache": cache * (1 + 1 / model.layers),
        "activations": sequences * settings.prompt_length * (3 * model.active_intermediate + 4 * model.hidden) * size,
        "logits": sequences * model.vocabulary * (size + 4 + 4),
    }


def measuring(model: ModelFacts, settings: Settings) -> dict[str, float]:
    """Teacher-forced passes without gradients: hidden states of all layers, and a bounded block of logits."""
    size = BYTES[settings.dtype]
    length = min(settings.length, settings.prompt_length + settings.evaluation_tokens)
    rows = max(1, min(GENERATION_BATCH, SCORING_LOGITS // (length * model.vocabulary)))
    tokens = rows * length
    states = model.layers * tokens * model.hidden * size if settings.method != "calibration" else 0
    return _resident(model, settings) | {
        "activations": states + tokens * (3 * model.active_intermediate + 4 * model.hidden) * size,
        "logits": tokens * model.vocabulary * (size + 4 + 4),
    }
