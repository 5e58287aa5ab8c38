"""Programs beside us that some exports need, and how to get them."""

from __future__ import annotations

import importlib.util
import shutil
import sys

LLAMA_CPP = "llama.cpp (`brew install llama.cpp`, or https://github.com/ggml-org/llama.cpp/releases)"
OLLAMA = "Ollama (https://ollama.com/download)"


def llama_quantize() -> str | None:
    return shutil.which("llama-quantize")


def convert_hf() -> str | None:
    """llama.cpp's own converter, for the families that we do not write."""
    return shutil.which("convert_hf_to_gguf.py")


def ollama() -> str | None:
    return shutil.which("ollama")


def has_mlx() -> bool:
    return all(importlib.util.find_spec(name) is not None for name in ("mlx", "mlx_lm"))


def get_mlx() -> str:
    return "`pip install mlx-lm`" if sys.platform == "darwin" else "`pip install 'mlx[cpu]' mlx-lm`"
