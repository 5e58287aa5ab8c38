"""The optimizers of a traced step: torch's own, and one that requests what bitsandbytes' would."""

from __future__ import annotations

from typing import Any

import torch


def optimizer_of(model: torch.nn.Module, kind: str) -> Any:
    """``kind`` is the setting of that name (``engine.forecast.settings.Settings.optimizer``)."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if kind == "adamw":
        return torch.optim.AdamW(parameters, foreach=True)  # the default on CUDA
    if kind.startswith("sgd"):
        momentum = 0.9 if kind == "sgd-momentum" else 0.0
        return torch.optim.SGD(parameters, lr=1e-4, momentum=momentum, foreach=True)
    return QuantizedAdam(parameters, paged=kind.startswith("paged"))


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
