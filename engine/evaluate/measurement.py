"""A measured figure: never without its n, and with its interval where it has one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from engine.evaluate.statistics import mean_interval, wilson


@dataclass(frozen=True)
class Measurement:
    """``value`` over ``n`` rows, tokens or points (``detail["unit"]`` says which), 95 % interval ``low`` to ``high``."""

    name: str
    value: float
    n: int
    low: float | None = None
    high: float | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        number = {"value": self.value, "low": self.low, "high": self.high}
        return {
            "name": self.name,
            "n": self.n,
            "detail": self.detail,
            **{key: _writable(value) for key, value in number.items()},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measurement:
        numbers = {key: None if data[key] is None else float(data[key]) for key in ("value", "low", "high")}
        value = numbers["value"]
        if value is None:
            raise ValueError(f"the measurement {data['name']!r} has no value")
        return cls(data["name"], value, data["n"], numbers["low"], numbers["high"], data["detail"])


def rate(name: str, successes: int, n: int, **detail: Any) -> Measurement:
    """A rate with its Wilson interval; the count of successes stays in the detail for later comparisons."""
    low, high = wilson(successes, n)
    value = successes / n if n else math.nan
    return Measurement(name, value, n, low, high, {"successes": successes, **detail})


def mean(name: str, values: list[float], **detail: Any) -> Measurement:
    """A mean over rows with its normal interval."""
    value, low, high = mean_interval(values)
    finite = math.isfinite(low) and math.isfinite(high)
    return Measurement(name, value, len(values), low if finite else None, high if finite else None, detail)


def _writable(value: float | None) -> float | str | None:
    """JSON has no NaN or infinity; ``float()`` reads these words back."""
    return value if value is None or math.isfinite(value) else str(value)
