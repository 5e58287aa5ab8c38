"""Lineages loaded to be talked with: replies as streams of tokens, with dials that act from the next token on.

Lineages on the same base share its weights: each has its own adapter's arrays, hooks for its edits and vectors, and a
cache of what it has read. Before every forward pass the model is made to be the voice that speaks, so several may take
turns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from transformers import AutoTokenizer

from engine.backends.interface import LoadSettings
from engine.backends.mlx import adapters
from engine.backends.mlx.device import prepare
from engine.backends.mlx.generation import PREFILL
from engine.backends.mlx.interventions import Interventions, attach
from engine.backends.mlx.load import check_modules, load_base, sizes, stop_tokens
from engine.backends.mlx.network import Network, Weights
from engine.backends.tokens import ensure_chat_template
from engine.backends.voice import Reader, SpokenVoice
from engine.models.lineage import Lineage
from recipes.errors import InputError, Problem


class SharedModel:
    """One base with layers for the adapter of all its voices. At any time it is one voice."""

    def __init__(self, network: Network, tokenizer: Any, stops: set[int], length: int | None) -> None:
        self.network, self.tokenizer, self.stops, self.length = network, tokenizer, stops, length
        self._speaker: MLXVoice | None = None
        self._all: list[MLXVoice] = []

    def add(self, voice: MLXVoice) -> None:
        self._all.append(voice)

    def become(self, voice: MLXVoice) -> None:
        if self._speaker is voice:
            return
        self.network.use(voice.weights)
        for other in self._all:
            for one in other.interventions.all:
                one.active = other is voice
        self._speaker = voice


class MLXVoice(SpokenVoice):
    """See engine.backends.interface.Voice. ``weights``: its adapter's arrays; zeros in ``lora_b`` are the bare base."""

    def __init__(self, shared: SharedModel, weights: Weights, interventions: Interventions) -> None:
        super().__init__(shared.tokenizer, interventions.all, shared.stops, shared.length)
        self.shared, self.weights, self.interventions = shared, weights, interventions
        shared.add(self)

    def read(self) -> Reader:
        network = self.shared.network
        cache = make_prompt_cache(network.model)
        logits: np.ndarray = np.zeros(0)
        step = 0
        with self.interventions.batch():
            while True:
                tokens = yield logits
                ids = mx.array([tokens])
                self.shared.become(self)
                for start in range(0, len(tokens) - 1, PREFILL):
                    network.hidden(ids[:, start : min(start + PREFILL, len(tokens) - 1)], cache)
                    mx.eval([one.state for one in cache])
                self.interventions.predict(step)
                logits = np.array(network.logits(network.hidden(ids[:, -1:], cache)[0, -1]))
                step += 1


# ---- loading ---------------------------------------------------------------------------------------------------------


def load_voices(lineages: Mapping[str, Lineage], run_folder: Path, settings: LoadSettings) -> dict[str, MLXVoice]:
    """A voice for each lineage. Raises InputError when a file of theirs is not what they say it is."""
    prepare()
    shared: dict[tuple[Path, str], SharedModel] = {}
    voices: dict[str, MLXVoice] = {}
    # Those with an adapter come first: they decide which layers have one, and the bare base fits into any of them.
    for name, lineage in sorted(lineages.items(), key=lambda item: item[1].adapter is None):
        folder = Path(lineage.base.path)
        folder = folder if folder.is_absolute() else run_folder / folder
        path = None if lineage.adapter is None else run_folder / lineage.adapter.path
        if path is not None and not path.is_dir():
            raise InputError([Problem(str(path), None, None, "no such folder", "the stage's adapter")])
        key = (folder, "" if path is None else _form(path))
        if path is None:
            key = next((other for other in shared if other[0] == folder), key)
        if key not in shared:
            shared[key] = _load(folder, path, settings)
        network = shared[key].network
        weights = _bare(network) if path is None else adapters.from_peft(mx.load(str(path / adapters.TENSORS)))
        voices[name] = MLXVoice(shared[key], weights, attach(network, lineage, run_folder))
    return {name: voices[name] for name in lineages}


def _form(path: Path) -> str:
    """What must be alike for two adapters to fit into the same layers."""
    config = adapters.read_config(path)
    modules = adapters.modules_of(adapters.from_peft(mx.load(str(path / adapters.TENSORS))))
    return json.dumps([config["r"], adapters.scale_of(config), modules])


def _load(folder: Path, adapter: Path | None, settings: LoadSettings) -> SharedModel:
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
    ensure_chat_template(tokenizer)
    model, config = load_base(folder, settings)
    model.freeze()
    if adapter is not None:
        found = adapters.read_config(adapter)
        modules = adapters.modules_of(adapters.from_peft(mx.load(str(adapter / adapters.TENSORS))))
        check_modules(adapter, modules, model)
        adapters.add_adapter(model, modules, found["r"], adapters.scale_of(found), 0.0)
    model.eval()
    network = Network(model, *sizes(config))
    mx.eval(model.parameters())
    length = (config.get("text_config") or config).get("max_position_embeddings")
    return SharedModel(network, tokenizer, stop_tokens(config, tokenizer), length)


def _bare(network: Network) -> Weights:
    return {
        name: mx.zeros_like(value) if name.endswith("lora_b") else value for name, value in network.trained().items()
    }
