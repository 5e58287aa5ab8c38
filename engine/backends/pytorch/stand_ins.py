"""Stand-ins for CUDA kernels on fake tensors: they request the memory that the kernels request, and compute nothing."""

from __future__ import annotations

import contextlib
import importlib
import math
from collections.abc import Iterator
from typing import Any
from unittest import mock

import torch

BLOCK = 64
"""bitsandbytes' block size: one scale for as many 4-bit weights."""
NESTED_BLOCK = 256
"""Scales that share one scale of their own when the scales are quantized too."""


PROCESSORS = {75: 72, 80: 108, 86: 84, 89: 142, 90: 132, 100: 148, 120: 188}
"""Compute capability -> multiprocessors of the largest card that has it (the makers' data sheets)."""
PROCESSORS_ELSEWHERE = 132


class Dequantized(torch.autograd.Function):
    """``x @ W.T`` with a quantized W: the forward and the backward each unpack W whole, in x's precision."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: Any, kind: str) -> torch.Tensor:
        ctx.layer, ctx.kind, ctx.shape, ctx.dtype = layer, kind, x.shape, x.dtype
        if kind == "4bit":
            return torch.nn.functional.linear(x, layer.unpacked(x.dtype), layer.bias_in(x.dtype))
        flat = x.reshape(-1, x.shape[-1])
        half = flat.to(torch.float16)
        quantized = torch.empty(flat.shape, dtype=torch.int8)
        scales = torch.empty(flat.shape[0], dtype=torch.float32)
        sums = torch.empty((flat.shape[0], layer.out_features), dtype=torch.int32)
        result = torch.empty((flat.shape[0], layer.out_features), dtype=torch.float16)
        del half, quantized, scales, sums
        ctx.kept = flat  # MatMul8bitLt keeps its input for the backward
        return result.to(x.dtype).reshape(*x.shape[:-1], layer.out_features)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        grad = grads[0]
        if ctx.kind == "4bit":
            return torch.matmul(grad, ctx.layer.unpacked(grad.dtype)), None, None
        flat = grad.reshape(-1, grad.shape[-1]).contiguous()
        weight = ctx.layer.weight.to(ctx.dtype, copy=True)
        return torch.matmul(flat.to(ctx.dtype), weight).view(ctx.shape), None, None


def quantized_linear(layer: torch.nn.Linear, kind: str, compute: torch.dtype, nested: bool) -> torch.nn.Module:
    """The layer as bitsandbytes would hold it: an instance of its class, so that PEFT wraps it as it does there."""
    import bitsandbytes as bnb

    base: Any = bnb.nn.Linear4bit if kind == "4bit" else bnb.nn.Linear8bitLt

    class Quantized(base):  # type: ignore[misc]
        def __init__(self) -> None:
            torch.nn.Module.__init__(self)
            self.in_features, self.out_features = layer.in_features, layer.out_features
            self.compute_dtype = compute
            self.bias = layer.bias
            count = layer.weight.numel()
            if kind == "4bit":
                weight = torch.nn.Parameter(torch.empty(((count + 1) // 2, 1), dtype=torch.uint8), requires_grad=False)
                weight.compress_statistics, weight.quant_type = nested, "nf4"  # type: ignore[attr-defined]
                blocks = math.ceil(count / BLOCK)
                absmax = torch.empty(blocks, dtype=torch.uint8 if nested else torch.float32)
                self.scales = [absmax, torch.empty(16)]
                if nested:
                    self.scales += [torch.empty(math.ceil(blocks / NESTED_BLOCK)), torch.empty(256), torch.empty(1)]
            else:
                weight = torch.nn.Parameter(torch.empty(layer.weight.shape, dtype=torch.int8), requires_grad=False)
                self.scales = [torch.empty(layer.out_features)]
                self.state = bnb.MatmulLtState()
                self.state.has_fp16_weights, self.state.threshold = False, 6.0
                self.index = None
            self.weight = weight

        def unpacked(self, dtype: torch.dtype) -> torch.Tensor:
            if nested:  # the scales are unpacked first, and live as long as the unpacking
                scales = torch.empty(self.scales[0].numel())
                weight = torch.empty((self.out_features, self.in_features), dtype=compute)
                del scales
            else:
                weight = torch.empty((self.out_features, self.in_features), dtype=compute)
            return weight.to(dtype)

        def bias_in(self, dtype: torch.dtype) -> torch.Tensor | None:
            return None if self.bias is None else self.bias.to(dtype)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            given = x.dtype
            if kind == "4bit":
                x = x.to(self.compute_dtype)
            return Dequantized.apply(x, self, kind).to(given)

        def load(self) -> None:
            """Request the packed weight and its scales."""
            self._parameters["weight"] = _again(self.weight)
            self.scales = [torch.empty_like(scale) for scale in self.scales]

    return Quantized()


def _again(parameter: torch.nn.Parameter) -> torch.nn.Parameter:
    """The same parameter in storage requested now."""
    fresh = torch.nn.Parameter(torch.empty_like(parameter.data), requires_grad=parameter.requires_grad)
    fresh.__dict__.update(parameter.__dict__)
    return fresh


class FusedAttention(torch.autograd.Function):
    """FlashAttention 2 or the memory-efficient kernel: what each saves and the workspace its backward takes.

    From ``aten/src/ATen/native/transformers/cuda``: flash (``flash_attn/flash_api.cpp``) accumulates the gradient of
    the queries in fp32 and, with grouped keys, writes gradients for all heads before summing; the efficient kernel
    accumulates the queries' gradient in an fp32 workspace for 16-bit inputs, and for fp32 inputs computes
    delta = (grad * out).sum with a product of full size. ``blocks``: how many of the flash kernel's blocks of a head run
    at once where sums have a fixed order; each then accumulates the queries' gradient for itself, and the sum of all is one
    more. 0 where they have none. The efficient kernel then has one more of the queries' size in their own type. (Measured
    on an H100, four shapes, with and without grouped keys: exactly that.)
    """

    @staticmethod
    def forward(ctx: Any, query: Any, key: Any, value: Any, flash: bool, blocks: int) -> torch.Tensor:
        batch, heads, length, width = query.shape
        out = torch.empty((batch, length, heads, value.shape[-1]), dtype=query.dtype).transpose(1, 2)
        rows = length if flash else -(-length // 32) * 32
        ctx.save_for_backward(query, key, value, out, torch.empty((batch, heads, rows), dtype=torch.float32))
        ctx.flash, ctx.blocks = flash, blocks
        return out

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> Any:
        query, key, value, out, _ = ctx.saved_tensors
        grad = grads[0]
        batch, heads, length, width = query.shape
        groups = heads // key.shape[1]
        if ctx.flash:
            rounded = -(-length // 128) * 128
            kept = [
                torch.empty((batch, heads, rounded), dtype=torch.float32),
                *(
                    torch.empty((batch, rounded, heads, -(-width // 32) * 32), dtype=torch.float32)
                    for _ in range(1 + ctx.blocks)
                ),
            ]
            grad_query = torch.empty_like(query)
            grad_key, grad_value = torch.empty_like(key), torch.empty_like(value)
            if groups > 1:
                wide = [torch.empty((batch, key.shape[2], heads, width), dtype=key.dtype) for _ in range(2)]
                del wide
        else:
            grad = grad.transpose(1, 2).contiguous().transpose(1, 2)
            kept = []
            if query.dtype == torch.float32:
                delta = (grad * out).sum(-1)
            else:
                delta = torch.empty((batch, heads, length), dtype=torch.float32)
                kept.append(torch.empty((batch, heads, length, width), dtype=torch.float32))
            if ctx.blocks:
                kept.append(torch.empty_like(query))
            kept.append(delta)
            grad_query, grad_key, grad_value = map(torch.empty_like, (query, key, value))
        del kept
        return grad_query, grad_key, grad_value, None, None


def fused_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, attn_mask: Any = None, dropout_p: float = 0.0,
    is_causal: bool = False, scale: Any = None, enable_gqa: bool = False, *, compute_capability: int, fixed_order: bool,
) -> torch.Tensor:  # fmt: skip
    """``scaled_dot_product_attention`` as CUDA dispatches it: flash where it can, else the memory-efficient kernel."""
    if torch.is_autocast_enabled("cpu"):
        dtype = torch.get_autocast_dtype("cpu")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    half = query.dtype in (torch.float16, torch.bfloat16)
    flash = half and attn_mask is None and compute_capability >= 80 and query.shape[-1] <= 256
    groups = query.shape[-3] // key.shape[-3]
    if groups > 1 and not flash:
        key, value = key.repeat_interleave(groups, -3), value.repeat_interleave(groups, -3)
    if attn_mask is not None:
        attn_mask = attn_mask.to(query.dtype).contiguous()
    processors = PROCESSORS.get(compute_capability, PROCESSORS_ELSEWHERE)
    blocks = -(-processors // (query.shape[0] * query.shape[1])) if fixed_order else 0
    return FusedAttention.apply(query, key, value, flash, blocks)


def half_to_float_softmax(input: torch.Tensor, dim: int, *args: Any, dtype: Any = None, **kwargs: Any) -> torch.Tensor:
    """``softmax(half, dtype=float32)`` converts inside the kernel on CUDA, with no fp32 copy of the input."""
    if dtype == torch.float32 and input.dtype in (torch.float16, torch.bfloat16):
        return torch.ops.aten._softmax(input, dim, True)
    return torch.softmax(input, dim, dtype=dtype)


@contextlib.contextmanager
def cuda_kernels(compute_capability: int, fixed_order: bool = False) -> Iterator[None]:
    """While open, operations that have another form on CUDA than on the CPU take CUDA's. ``fixed_order``: those that sum in
    the same order each time (``engine.backends.pytorch.device.in_fixed_order``)."""
    import transformers.masking_utils as masking
    import trl.kernels.chunked_divergence as divergence
    import trl.kernels.chunked_logprob as logprob

    adam = importlib.import_module("torch.optim.adam")

    def attention(*args: Any, **kwargs: Any) -> torch.Tensor:
        return fused_attention(*args, **kwargs, compute_capability=compute_capability, fixed_order=fixed_order)

    autocast_enabled = torch.is_autocast_enabled

    def inplace_addmm(acc: torch.Tensor, a: torch.Tensor, b: torch.Tensor) -> None:
        """One kernel, no copies."""

    patches: list[tuple[Any, str, Any]] = [
        (torch.nn.functional, "scaled_dot_product_attention", attention),
        (torch.nn.functional, "softmax", half_to_float_softmax),
        # On fake tensors it cannot see that nothing is packed, and a mask would be made that no real step has.
        (masking, "find_packed_sequence_indices", lambda *args, **kwargs: None),
        (torch, "is_autocast_enabled", lambda device="cpu": autocast_enabled(device)),  # PEFT asks for the current one
        (adam, "_get_value", lambda value: 1.0),  # a fake step count has no value
        (logprob, "_forward_tile", lambda *args, **kwargs: None),
        (logprob, "_backward_tile", lambda *args, **kwargs: None),
        (logprob, "_addmm_fp32", inplace_addmm),
        (divergence, "_project", lambda *args, **kwargs: None),
        (divergence, "_stats_tile", lambda *args, **kwargs: None),
        (divergence, "_backward_tile", lambda *args, **kwargs: None),
        (divergence, "_addmm_fp32", inplace_addmm),
    ]
    with contextlib.ExitStack() as stack:
        for where, name, stand_in in patches:
            stack.enter_context(mock.patch.object(where, name, stand_in))
        yield
