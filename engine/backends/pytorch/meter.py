"""Count the memory of a step on fake tensors as the CUDA caching allocator would: no data, no device, real operations."""

from __future__ import annotations

import sys
import weakref
from functools import cache
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.forecast.allocator import MIB, CachingAllocator
from engine.forecast.recording import Recording

CUBLAS_WORKSPACE = {9: 32 * MIB}
"""Bytes of a cuBLAS workspace by the major compute capability (``aten/src/ATen/cuda/CUDABlas``: 32 MiB on Hopper)."""
CUBLAS_WORKSPACE_ELSEWHERE = 4096 * 1024 * 2 + 16 * 1024 * 8
CUBLAS_WORKSPACE_FIXED = 8 * 4096 * 1024
"""With ``CUBLAS_WORKSPACE_CONFIG=:4096:8``."""
WHOLE_PRODUCTS = {"aten::_softmax_backward_data"}
"""Operations whose CUDA kernel is handed a temporary of its gradient's size (``SoftMax.cu``: tmp = grad * output)."""
WRAPPERS = ("_fn", "inner")
"""Of torch, around each mode's call (``torch/_compile.py``)."""
MATMULS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}


class Meter(TorchDispatchMode):
    """Every storage that an operation returns is a request to the simulated allocator, until nobody holds it.

    PyTorch takes cuBLAS workspaces from the same allocator, one for each thread that multiplies: the first matrix
    product of the forward and of the backward each request one. ``fixed_order``: of the size that a fixed order of sums
    needs (``engine.backends.pytorch.device.in_fixed_order``).
    """

    def __init__(
        self, allocator: CachingAllocator | Recording, compute_capability: int, fixed_order: bool = False
    ) -> None:
        super().__init__()
        self.allocator = allocator
        self._live: dict[int, tuple[weakref.ref[Any], list[Any]]] = {}
        """Storage -> its reference and, in a list, its block."""
        self._workspaces: set[str] = set()
        elsewhere = CUBLAS_WORKSPACE_FIXED if fixed_order else CUBLAS_WORKSPACE_ELSEWHERE
        self._workspace = CUBLAS_WORKSPACE.get(compute_capability // 10, elsewhere)
        self._unshared = unshared_count()
        self.thread = "forward"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.thread not in self._workspaces and func._schema.name in MATMULS:
            self._workspaces.add(self.thread)
            self.allocator.operation = "workspace"
            self.allocator.allocate(self._workspace)
        in_place = self._is_accumulation(func, args)
        result = func(*args, **(kwargs or {}))
        self.allocator.operation = func._schema.name
        if in_place:
            self._take_over(args[0], result)
        elif isinstance(result, torch.Tensor):
            self.track(result)
        else:
            for leaf in tree_leaves(result):
                if isinstance(leaf, torch.Tensor):
                    self.track(leaf)
        if func._schema.name in WHOLE_PRODUCTS:
            block: Any = self.allocator.allocate(args[0].untyped_storage().nbytes())
            self.allocator.free(block)
        return result

    def track(self, tensor: torch.Tensor) -> None:
        """Count the tensor's storage unless it is counted already."""
        storage = tensor.untyped_storage()
        if storage._cdata not in self._live:
            self._keep(storage, self.allocator.allocate(storage.nbytes()) if storage.nbytes() else None)

    def _keep(self, storage: Any, block: Any) -> None:
        key, holder = storage._cdata, [block]

        def gone(_: Any) -> None:
            del self._live[key]
            if holder[0] is not None:
                self.allocator.free(holder[0])

        self._live[key] = weakref.ref(storage, gone), holder

    # ---- sums of gradients ---------------------------------------------------------------------------------------

    def _is_accumulation(self, func: Any, args: Any) -> bool:
        """Whether autograd's engine adds a second gradient of a tensor to the first, which it does in place where nobody
        else holds that one (``torch/csrc/autograd/input_buffer.cpp``), though not while a mode like this looks on."""
        if func is not torch.ops.aten.add.Tensor or not self._unshared or not called_by_engine():
            return False
        first, second = args
        return (
            isinstance(second, torch.Tensor)
            and first.shape == second.shape
            and first.dtype == second.dtype
            and first._use_count() <= self._unshared
            and torch.ops.aten.is_non_overlapping_and_dense(first)
        )

    def _take_over(self, first: torch.Tensor, result: torch.Tensor) -> None:
        """Give the block of ``first``, which is done with, to ``result``."""
        _, holder = self._live.get(first.untyped_storage()._cdata, (None, [None]))
        storage = result.untyped_storage()
        if holder[0] is None or storage.nbytes() != first.untyped_storage().nbytes():
            self.track(result)
            return
        self._keep(storage, holder[0])
        holder[0] = None


def called_by_engine() -> bool:
    """Whether the operation under way was called by autograd's engine itself, not by a function's own backward."""
    frame: Any = sys._getframe(1)
    while frame is not None and (frame.f_code.co_filename == __file__ or frame.f_code.co_name in WRAPPERS):
        frame = frame.f_back
    return frame is not None and frame.f_code.co_name == "_engine_run_backward"


@cache
def unshared_count() -> int:
    """What ``Tensor._use_count`` says, within a mode, of a gradient that the engine alone holds; 0 where torch cannot say."""
    found: list[int] = []
    if not hasattr(torch.Tensor, "_use_count"):
        return 0

    class Looking(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if func is torch.ops.aten.add.Tensor and called_by_engine():
                found.append(args[0]._use_count())
            return func(*args, **(kwargs or {}))

    with torch.enable_grad():
        start = torch.ones(2, requires_grad=True)
        end = (torch.sin(start) * torch.cos(start)).sum()
        with Looking():
            end.backward()
    return min(found, default=0)
