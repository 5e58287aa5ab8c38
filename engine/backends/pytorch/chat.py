"""Lineages loaded to be talked with: replies as streams of tokens, with dials that act from the next token on.

Lineages on the same base share its weights: each adds its own adapter, hooks for its edits and vectors, and a cache of
what it has read. Before every forward pass the model is made to be the voice that speaks, so several may take turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoTokenizer, DynamicCache, PreTrainedTokenizerBase

from engine.backends.interface import LoadSettings
from engine.backends.pytorch.device import pick_device
from engine.backends.pytorch.interventions import Interventions, attach
from engine.backends.pytorch.load import load_base
from engine.backends.tokens import ensure_chat_template
from engine.backends.voice import Reader, SpokenVoice
from engine.models.lineage import Lineage
from recipes.errors import InputError, Problem


class SharedModel:
    """One base with the adapters of all its voices. At any time it is one voice, or (None) the bare base."""

    def __init__(self, model: Any, tokenizer: PreTrainedTokenizerBase, device: torch.device) -> None:
        self.model, self.tokenizer, self.device = model, tokenizer, device
        self._adapted = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
        self._adapter: str | None = ""
        self._speaker: object = self
        self._all: list[TorchVoice] = []

    def add(self, voice: TorchVoice) -> None:
        self._all.append(voice)

    def become(self, voice: TorchVoice) -> None:
        if self._speaker is voice:
            return
        if self._adapter != voice.adapter:
            for module in self._adapted:
                module.enable_adapters(voice.adapter is not None)
                if voice.adapter is not None:
                    module.set_adapter(voice.adapter)
            self._adapter = voice.adapter
        for other in self._all:
            for one in other.interventions.all:
                one.active = other is voice
        self._speaker = voice


class TorchVoice(SpokenVoice):
    """See engine.backends.interface.Voice."""

    def __init__(self, shared: SharedModel, adapter: str | None, interventions: Interventions) -> None:
        length = getattr(shared.model.config.get_text_config(), "max_position_embeddings", None)
        super().__init__(shared.tokenizer, interventions.all, _stops(shared), length)
        self.shared, self.adapter, self.interventions = shared, adapter, interventions
        shared.add(self)

    def read(self) -> Reader:
        cache = DynamicCache(config=self.shared.model.config)
        logits: np.ndarray = np.zeros(0)
        with self.interventions.batch():
            while True:
                tokens = yield logits
                ids = torch.tensor([tokens], device=self.shared.device)
                self.shared.become(self)
                with torch.no_grad():  # entered and left within one step: a suspended one would leak into others
                    output = self.shared.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                logits = output.logits[0, -1].float().cpu().numpy()


def _stops(shared: SharedModel) -> set[int]:
    own = shared.model.generation_config
    stop = own.eos_token_id if own is not None and own.eos_token_id is not None else None
    stop = shared.tokenizer.eos_token_id if stop is None else stop
    return set(stop if isinstance(stop, list) else [stop])


# ---- loading ---------------------------------------------------------------------------------------------------------


def load_voices(lineages: Mapping[str, Lineage], run_folder: Path, settings: LoadSettings) -> dict[str, TorchVoice]:
    """A voice for each lineage. Raises InputError when a file of theirs is not what they say it is."""
    device = pick_device()
    voices: dict[str, TorchVoice] = {}
    for folder in dict.fromkeys(_base(lineage, run_folder) for lineage in lineages.values()):
        own = {name: lineage for name, lineage in lineages.items() if _base(lineage, run_folder) == folder}
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=settings.trust_remote_code)
        ensure_chat_template(tokenizer)
        model: Any = load_base(folder, device, settings).requires_grad_(False).eval()
        adapters: dict[str, str] = {}
        for lineage in own.values():
            if lineage.adapter is not None and lineage.adapter.path not in adapters:
                path, name = run_folder / lineage.adapter.path, f"voice{len(adapters)}"
                if not path.is_dir():
                    raise InputError([Problem(str(path), None, None, "no such folder", "the stage's adapter")])
                if isinstance(model, PeftModel):
                    model.load_adapter(path, adapter_name=name, is_trainable=False)
                else:
                    model = PeftModel.from_pretrained(model, path, adapter_name=name, is_trainable=False)
                adapters[lineage.adapter.path] = name
        model.eval()
        shared = SharedModel(model, tokenizer, device)
        # Edits and vectors come after all adapters: their hooks belong on what a module gives with its adapter.
        for name, lineage in own.items():
            adapter = None if lineage.adapter is None else adapters[lineage.adapter.path]
            voices[name] = TorchVoice(shared, adapter, attach(model, lineage, run_folder))
    return voices


def _base(lineage: Lineage, run_folder: Path) -> Path:
    folder = Path(lineage.base.path)
    return folder if folder.is_absolute() else run_folder / folder
