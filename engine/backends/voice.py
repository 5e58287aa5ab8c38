"""What every backend's voices have in common: dials by name, and a reply token by token from logits on the host."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.backends.interface import Conversation, Dial, Sampling, Token
from engine.backends.tokens import encode_prompt
from engine.interventions.vectors import Vector, cosine
from recipes.errors import InputError, Problem, nearest_word, quoted

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

FARTHEST = 2.0
"""A vector's dial goes from minus this to this; at 1 it acts as strongly as its calibration meant."""
Reader = Generator[np.ndarray, list[int], None]
"""Started with ``next``; send it token ids and it answers with the logits (V,) in float32 of the one after them."""


class SpokenVoice(ABC):
    """See engine.backends.interface.Voice. ``acting`` are the lineage's sets of edits and of vectors, as the backend
    has hooked them on; a reply ends with one of ``stops``."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, acting: Sequence[Any], stops: set[int], length: int | None
    ) -> None:
        self.tokenizer, self.stops, self.length = tokenizer, stops, length
        self._turned = named(acting)

    @abstractmethod
    def read(self) -> Reader:
        """Reads one conversation under this voice's weights, with a cache of what it has read."""

    # ---- dials ---------------------------------------------------------------------------------------------------

    def dials(self) -> list[Dial]:
        return [
            Dial(name, "vector", one.strength, -FARTHEST, FARTHEST)
            if isinstance(one, Vector)
            else Dial(name, "edit", one.strength, 0.0, 1.0)
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
        return len(encode_prompt(self.tokenizer, conversation))

    def stream(
        self,
        conversation: Conversation,
        sampling: Sampling,
        *,
        against: Any = None,
        temperatures: Sequence[float] = (),
    ) -> Iterator[Token]:
        prompt = encode_prompt(self.tokenizer, conversation)
        readers = [voice.read() for voice in (self, against) if voice is not None]
        words = Words(self.tokenizer)
        draw = np.random.default_rng(sampling.seed)
        try:
            for reader in readers:
                next(reader)
            fed = prompt
            for _ in range(sampling.max_new_tokens):
                logits, *others = [reader.send(fed) for reader in readers]
                logprobs = log_softmax(logits)
                token = pick(logits, sampling, draw)
                ends = token in self.stops
                yield Token(
                    id=token,
                    text="" if ends else words.add(token),
                    logprob=float(logprobs[token]),
                    kl=_divergence(logprobs, log_softmax(others[0])) if others else None,
                    tempered=tuple(float(log_softmax(logits / t)[token]) for t in temperatures),
                    ends=ends,
                )
                if ends:
                    return
                fed = [token]
        finally:
            for reader in readers:
                reader.close()


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities (V,) of logits (V,)."""
    shifted = logits - logits.max()
    return shifted - np.log(np.exp(shifted).sum(dtype=np.float64)).astype(logits.dtype)


def pick(logits: np.ndarray, sampling: Sampling, draw: np.random.Generator) -> int:
    """The next token from logits (V,): greedy at temperature 0, else from the smallest set of tokens that has
    ``top_p`` of the probability (nucleus sampling, Holtzman et al. 2020)."""
    if sampling.temperature <= 0:
        return int(logits.argmax())
    probabilities = np.exp(log_softmax(logits / sampling.temperature)).astype(np.float64)
    places = np.arange(len(probabilities))
    if sampling.top_p < 1:
        places = np.argsort(-probabilities, kind="stable")
        probabilities = probabilities[places]
        kept = probabilities.cumsum() - probabilities < sampling.top_p
        kept[0] = True
        probabilities = probabilities * kept
    reached = probabilities.cumsum()
    return int(places[min(np.searchsorted(reached, draw.random() * reached[-1], side="right"), len(places) - 1)])


def _divergence(logprobs: np.ndarray, other: np.ndarray) -> float:
    return float((np.exp(logprobs, dtype=np.float64) * (logprobs.astype(np.float64) - other)).sum())


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


def named(acting: Sequence[Any]) -> dict[str, Any]:
    """What can be turned, by a name that occurs once: a set of edits as a whole, and each vector."""
    found: dict[str, Any] = {}
    times: dict[str, int] = {}
    for one in acting:
        parts = [(part.name, part) for part in one.vectors] if hasattr(one, "vectors") else [("abliteration", one)]
        for name, part in parts:
            times[name] = times.get(name, 0) + 1
            found[name if times[name] == 1 else f"{name}-{times[name]}"] = part
    return found
