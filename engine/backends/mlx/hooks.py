"""Functions on what a module gives: MLX has none of its own.

The module becomes an instance of a class made from its own, which calls it and then the hooks in order. Its parameters,
their paths and ``isinstance`` stay what they were, so adapters, quantization and checkpoints do not notice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import mlx.nn as nn

After = Callable[[Any], Any]
"""Takes a module's output and returns what stands in its place."""

_HOOKED: dict[type, type] = {}


class Hook:
    """``after`` acts on the module's output until ``remove``."""

    def __init__(self, module: nn.Module, after: After) -> None:
        self._module, self._after = module, after
        if not hasattr(module, "_hooks"):
            object.__setattr__(module, "_hooks", [])  # a list that is set the ordinary way would count as parameters
        module._hooks.append(after)
        module.__class__ = _hooked(plain_type(module))

    def remove(self) -> None:
        """With its last hook gone the module is of its own class again."""
        self._module._hooks.remove(self._after)
        if not self._module._hooks:
            self._module.__class__ = plain_type(self._module)


def plain_type(module: nn.Module) -> type:
    """The module's class without hooks."""
    return getattr(type(module), "_plain", type(module))


def _hooked(kind: type) -> type:
    if kind not in _HOOKED:

        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            output = kind.__call__(self, *args, **kwargs)  # looked up anew: checkpointing may have replaced it
            for after in tuple(self._hooks):
                output = after(output)
            return output

        _HOOKED[kind] = type(kind.__name__, (kind,), {"__call__": call, "_plain": kind, "__module__": kind.__module__})
    return _HOOKED[kind]
