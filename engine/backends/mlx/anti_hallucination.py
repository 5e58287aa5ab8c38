"""Anti-hallucination trains as SFT does, on answers to the known and abstentions on the unknown (R-Tuning)."""

from engine.backends.mlx.sft import train

__all__ = ["train"]
