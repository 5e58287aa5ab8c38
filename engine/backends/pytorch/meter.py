"""Count the memory of a step on fake tensors as the CUDA caching allocator would: no data, no device, real operations."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.forecast.allocator import MIB, CachingAllocator
from engine.forecast.recording import Recording

CUBLAS_WORKSPACE = {9: 32 * MIB}
"""Bytes of a cuBLAS workspace by the major compute capability (``aten/src/ATen/cuda/CUDABlas``: 32 MiB on Hopper)."""
CUBLAS_WORKSPACE_ELSEWHERE = 4096 * 1024 * 2 + 16 * 1024 * 8
WHOLE_PRODUCTS = {"aten::_softmax_backward_data"}
"""Operations whose CUDA kernel is handed a temporary of its gradient's size (``SoftMax.cu``: tmp = grad * output)."""
MATMULS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}


class Meter(TorchDispatchMode):
    """Every storage that an operation returns is a request to the simulated allocator, until nobody holds it.

    PyTorch takes cuBLAS workspaces from the same allocator, one for each thread that multiplies: the first matrix
    product of the forward and of the backward each request one.
    """

    def __init__(self, allocator: CachingAllocator | Recording, compute_capability: int) -> None:
        super().__init__()
        self.allocator = allocator
        self._live: dict[int, weakref.ref[Any]] = {}
        self._workspaces: set[str] = set()
        self._workspace = CUBLAS_WORKSPACE.get(compute_capability // 10, CUBLAS_WORKSPACE_ELSEWHERE)
        self.thread = "forward"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.thread not in self._workspaces and func._schema.name in MATMULS:
            self._workspaces.add(self.thread)
            self.allocator.operation = "workspace"
            self.allocator.allocate(self._workspace)
        result = func(*args, **(kwargs or {}))
        self.allocator.operation = func._schema.name
        if isinstance(result, torch.Tensor):
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
        key = storage._cdata
        if key in self._live:
            return
        block: Any = self.allocator.allocate(storage.nbytes()) if storage.nbytes() else None

        def gone(_: Any) -> None:
            del self._live[key]
            if block is not None:
                self.allocator.free(block)

        self._live[key] = weakref.ref(storage, gone)
