"""The optimizers of a traced step: torch's own, and one that requests what bitsandbytes' would."""

from __future__ import annotations

from typing import Any

import torch

SMALLEST, SMALLEST_PAGED = 4096, 100_000
"""Elements from which on bitsandbytes keeps a parameter's state in 8 bits, and pages it."""


def optimizer_of(model: torch.nn.Module, kind: str, trainer: bool = False) -> Any:
    """``kind`` is the setting of that name (``engine.forecast.settings.Settings.optimizer``). ``trainer``: as transformers'
    Trainer makes it, which keeps the states of embeddings in fp32 (``Trainer.create_optimizer``)."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if kind == "adamw":
        return torch.optim.AdamW(parameters, foreach=True)  # the default on CUDA
    if kind.startswith("sgd"):
        momentum = 0.9 if kind == "sgd-momentum" else 0.0
        return torch.optim.SGD(parameters, lr=1e-4, momentum=momentum, foreach=True)
    embeddings = [module.weight for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    return QuantizedAdam(parameters, kind.startswith("paged"), embeddings if trainer else [])


class QuantizedAdam:
    """bitsandbytes' 8-bit Adam: two bytes of state for each parameter and a scale for 256 of them; in fp32 those of small
    parameters and of ``whole``.

    Its kernel updates in place. Paged states, which all but the smallest are, are not requested of the allocator; their
    scales are (``bitsandbytes.optim.optimizer.Optimizer2State.init_state``).
    """

    def __init__(self, parameters: list[torch.nn.Parameter], paged: bool, whole: list[torch.nn.Parameter]) -> None:
        self.parameters = parameters
        self.paged = paged
        self.whole = {id(parameter) for parameter in whole}
        self.state: list[torch.Tensor] = []

    def zero_grad(self, set_to_none: bool = True) -> None:
        for parameter in self.parameters:
            parameter.grad = None

    def step(self) -> None:
        if self.state:
            return
        for parameter in self.parameters:
            whole = parameter.numel() < SMALLEST or id(parameter) in self.whole
            for _ in range(2):
                if not self.paged or parameter.numel() < SMALLEST_PAGED:
                    self.state.append(torch.empty(parameter.shape, dtype=torch.float32 if whole else torch.uint8))
                if not whole:
                    self.state.append(torch.empty(-(-parameter.numel() // 256)))
