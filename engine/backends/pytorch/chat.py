"""Lineages loaded to be talked with: replies as streams of tokens, with dials that act from the next token on.

Lineages on the same base share its weights: each adds its own adapter, hooks for its edits and vectors, and a cache of
what it has read. Before every forward pass the model is made to be the voice that speaks, so several may take turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import AutoTokenizer, DynamicCache, PreTrainedTokenizerBase

from engine.backends.interface import Conversation, Dial, LoadSettings, Sampling, Token
from engine.backends.pytorch.device import pick_device
from engine.backends.pytorch.edits import EditSet
from engine.backends.pytorch.interventions import Interventions, attach
from engine.backends.pytorch.load import load_base
from engine.backends.pytorch.vectors import Vector, cosine
from engine.backends.tokens import encode_prompt, ensure_chat_template
from engine.models.lineage import Lineage
from recipes.errors import InputError, Problem, nearest_word, quoted

FARTHEST = 2.0
"""A vector's dial goes from minus this to this; at 1 it acts as strongly as its calibration meant."""


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


class TorchVoice:
    """See engine.backends.interface.Voice."""

    def __init__(self, shared: SharedModel, adapter: str | None, interventions: Interventions) -> None:
        self.shared, self.adapter, self.interventions = shared, adapter, interventions
        config = shared.model.config.get_text_config()
        self.length: int | None = getattr(config, "max_position_embeddings", None)
        self._turned = _named(interventions)
        shared.add(self)

    # ---- dials ---------------------------------------------------------------------------------------------------

    def dials(self) -> list[Dial]:
        return [
            Dial(name, "edit", one.strength, 0.0, 1.0)
            if isinstance(one, EditSet)
            else Dial(name, "vector", one.strength, -FARTHEST, FARTHEST)
            for name, one in self._turned.items()
        ]

    def dial(self, name: str, value: float) -> float:
        if name not in self._turned:
            accepted = quoted(self._turned) if self._turned else "none: this stage has neither edits nor vectors"
            near = nearest_word(name, self._turned)
            raise InputError([Problem("dial", None, None, f"`{name}`", accepted, near)])
        turned = next(one for one in self.dials() if one.name == name)
        self._turned[name].strength = min(turned.high, max(turned.low, value))
        return self._turned[name].strength

    def cosines(self) -> list[tuple[str, str, float]]:
        vectors = {name: one for name, one in self._turned.items() if isinstance(one, Vector)}
        return [
            (first, second, cosine(vectors[first].direction, vectors[second].direction))
            for first, second in combinations(vectors, 2)
        ]

    # ---- speaking ------------------------------------------------------------------------------------------------

    def count(self, conversation: Conversation) -> int:
        return len(encode_prompt(self.shared.tokenizer, conversation))

    def stream(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        against: TorchVoice | None = None,
        temperatures: Sequence[float] = (),
    ) -> Iterator[Token]:
        tokenizer = self.shared.tokenizer
        prompt = encode_prompt(tokenizer, conversation)
        readers = [self._reader(prompt)] + ([against._reader(prompt)] if against is not None else [])
        stops = self._stops()
        words = Words(tokenizer)
        draw = torch.Generator().manual_seed(sampling.seed)
        try:
            fed = prompt
            for _ in range(sampling.max_new_tokens):
                logits, *others = [reader.send(fed) for reader in readers]
                logprobs = torch.log_softmax(logits, dim=-1)
                token = pick(logits, sampling, draw)
                ends = token in stops
                yield Token(
                    id=token,
                    text="" if ends else words.add(token),
                    logprob=float(logprobs[token]),
                    kl=_divergence(logprobs, others[0]) if others else None,
                    tempered=tuple(float(torch.log_softmax(logits / t, dim=-1)[token]) for t in temperatures),
                    ends=ends,
                )
                if ends:
                    return
                fed = [token]
        finally:
            for reader in readers:
                reader.close()

    def _reader(self, prompt: list[int]) -> Any:
        """Started; send it tokens and it answers with the logits (V,) in float32 of the one after them."""
        reader = self._read()
        next(reader)
        return reader

    def _read(self) -> Any:
        cache = DynamicCache(config=self.shared.model.config)
        logits: torch.Tensor | None = None
        with self.interventions.batch():
            while True:
                tokens = yield logits
                ids = torch.tensor([tokens], device=self.shared.device)
                self.shared.become(self)
                with torch.no_grad():  # entered and left within one step: a suspended one would leak into others
                    output = self.shared.model(input_ids=ids, past_key_values=cache, use_cache=True, logits_to_keep=1)
                logits = output.logits[0, -1].float().cpu()

    def _stops(self) -> set[int]:
        own = self.shared.model.generation_config
        stop = own.eos_token_id if own is not None and own.eos_token_id is not None else None
        stop = self.shared.tokenizer.eos_token_id if stop is None else stop
        return set(stop if isinstance(stop, list) else [stop])


def pick(logits: torch.Tensor, sampling: Sampling, draw: torch.Generator) -> int:
    """The next token from logits (V,): greedy at temperature 0, else from the smallest set of tokens that has
    ``top_p`` of the probability (nucleus sampling, Holtzman et al. 2020)."""
    if sampling.temperature <= 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits / sampling.temperature, dim=-1)
    if sampling.top_p < 1:
        ordered, places = probabilities.sort(descending=True)
        kept = ordered.cumsum(-1) - ordered < sampling.top_p
        kept[0] = True
        return int(places[torch.multinomial(ordered * kept, 1, generator=draw)])
    return int(torch.multinomial(probabilities, 1, generator=draw))


def _divergence(logprobs: torch.Tensor, other: torch.Tensor) -> float:
    return float((logprobs.exp() * (logprobs - torch.log_softmax(other, dim=-1))).sum())


class Words:
    """Text of tokens as they come: what is not yet a whole character waits for the next token."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._tokens: list[int] = []
        self._from = self._shown = 0
        """Decoding starts a little before what was not shown yet: a word's space depends on what precedes it."""
        self._said = False

    def add(self, token: int) -> str:
        self._tokens.append(token)
        before = self._decode(self._tokens[self._from : self._shown])
        now = self._decode(self._tokens[self._from :])
        if now.endswith("\ufffd"):
            return ""
        self._from, self._shown = self._shown, len(self._tokens)
        text = now[len(before) :]
        text = text if self._said else text.lstrip()
        self._said = self._said or bool(text)
        return text

    def _decode(self, tokens: list[int]) -> str:
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True))


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


def _named(interventions: Interventions) -> dict[str, EditSet | Vector]:
    """What can be turned, by a name that occurs once."""
    found: dict[str, EditSet | Vector] = {}
    times: dict[str, int] = {}
    for one in interventions.all:
        parts = (
            [("abliteration", one)] if isinstance(one, EditSet) else [(vector.name, vector) for vector in one.vectors]
        )
        for name, part in parts:
            times[name] = times.get(name, 0) + 1
            found[name if times[name] == 1 else f"{name}-{times[name]}"] = part
    return found
