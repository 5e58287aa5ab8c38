"""One file per method: its card and the type of its stage. Found by looking, never listed."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from recipes.methods.card import Card


@cache
def _modules() -> dict[str, Any]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name != "card")
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def cards() -> dict[str, Card]:
    """Method name -> card, all of them."""
    return {module.CARD.name: module.CARD for module in _modules().values()}


def stage_types() -> dict[str, type]:
    """Method name -> type of its stage in a recipe."""
    return {module.CARD.name: module.Stage for module in _modules().values()}
