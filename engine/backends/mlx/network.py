"""An mlx-lm model in two parts, backbone and head, and the weights that train, given by name."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten, tree_unflatten

from engine.backends.mlx.hooks import plain_type
from recipes.errors import InputError, Problem

BACKBONES = ("model", "transformer", "backbone")
Weights = dict[str, mx.array]
"""Arrays by their path in the model, such as ``model.layers.0.self_attn.q_proj.lora_a``."""


class Network:
    """``model`` is what mlx-lm loaded, ``vocabulary`` its number of logits, ``width`` that of its residual stream. Only
    what is not frozen in it trains."""

    def __init__(self, model: nn.Module, vocabulary: int, width: int) -> None:
        self.model = model
        self.vocabulary = vocabulary
        self.width = width
        self._causal = causal_model(model)
        self._place = next((name for name in BACKBONES if name in self._causal), None)
        if self._place is None:
            found = f"the architecture {type(model).__module__}"
            raise InputError([Problem("model", None, None, found, f"one with a {' or '.join(BACKBONES)} in mlx-lm")])
        self.backbone = self._causal[self._place]

    @property
    def layers(self) -> list[Any]:
        return self.model.layers

    # ---- forward -------------------------------------------------------------------------------------------------

    def hidden(self, ids: mx.array, cache: Any = None) -> mx.array:
        """Last hidden state (B, T, H) of token ids (B, T). Rows may be padded on the right without a mask: no token
        sees what comes after it."""
        return self.backbone(ids, cache) if cache is not None else self.backbone(ids)

    def logits(self, hidden: mx.array) -> mx.array:
        """Logits (..., V) in float32 of hidden states (..., H), by the model's own head.

        The architecture's own code runs with its backbone stepping aside, so that tied embeddings, scales and soft
        caps are as they are there.
        """
        rows = hidden.reshape(1, -1, hidden.shape[-1])
        self._causal[self._place] = _StepsAside(self.backbone)
        try:
            logits = self._causal(rows)
        finally:
            self._causal[self._place] = self.backbone
        return logits.reshape(*hidden.shape[:-1], -1).astype(mx.float32)

    # ---- weights -------------------------------------------------------------------------------------------------

    def trained(self) -> Weights:
        """The weights that train, as they are now. Arrays never change in place: what is returned is a snapshot."""
        return dict(tree_flatten(self.model.trainable_parameters()))

    def head_weights(self) -> Weights:
        """Those of them that the head may use: none with an adapter, which leaves it alone."""
        return {
            name: value
            for name, value in self.trained().items()
            if ".layers." not in name and not name.endswith(("lora_a", "lora_b"))
        }

    def use(self, weights: Weights) -> None:
        """Put those weights into the model."""
        self.model.update(tree_unflatten(list(weights.items())))

    @contextlib.contextmanager
    def checkpointed(self) -> Iterator[None]:
        """While open, each layer keeps only its input for the backward pass and computes the rest again.

        The layer's trained weights go in as explicit arguments: captured ones would be constants without a gradient.
        """
        plain = {kind: kind.__call__ for kind in {plain_type(layer) for layer in self.layers}}
        for kind, call in plain.items():
            kind.__call__ = _recomputed(call)
        try:
            yield
        finally:
            for kind, call in plain.items():
                kind.__call__ = call


def _recomputed(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A layer's call that keeps nothing but its input and weights for the backward pass."""

    def recomputed(layer: Any, *args: Any, **kwargs: Any) -> Any:
        def inner(weights: Any, *args: Any, **kwargs: Any) -> Any:
            layer.update(weights)
            return plain(layer, *args, **kwargs)

        weights = layer.trainable_parameters()
        output = mx.checkpoint(inner)(weights, *args, **kwargs)
        layer.update(weights)  # tracing left its placeholders in the layer
        return output

    return recomputed


def causal_model(model: nn.Module) -> Any:
    """The text model with its head, inside a model that also sees."""
    return model.language_model if "language_model" in model else model


class _StepsAside:
    """In the place of the backbone: hands on the hidden states it is given."""

    def __init__(self, backbone: nn.Module) -> None:
        self._backbone = backbone

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backbone, name)  # such as the embeddings that a tied head multiplies with

    def __call__(self, hidden: mx.array, *_args: Any, **_kwargs: Any) -> mx.array:
        return hidden
