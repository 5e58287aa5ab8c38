"""Will it fit, and how long: memory and time of every method before anything is downloaded or started.

``forecast`` is the library call. Tiers: ``arithmetic`` (formulas, below a millisecond) and ``trace`` (the training step
on fake tensors in a helper process, seconds, kept by content). The recipe's side of it is ``engine.forecast.plan``.
"""

from __future__ import annotations

from engine.forecast.call import forecast

__all__ = ["forecast"]
