"""The step that a trace takes: the forwards, loss, backward and optimizer step of each method, in the order of its trainer."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from engine.backends.pytorch.meter import Meter
from engine.backends.pytorch.traced_model import CHECKPOINTING, REFERENCE_ADAPTER, Traced
from engine.backends.pytorch.traced_optimizer import optimizer_of
from engine.forecast.recording import BEGIN, Recording

PAIRS_WITH_REFERENCE = ("dpo", "cpo")
GAUGES = {"sft": (4, 256), "orpo": (8, 256), "grpo": (8, 512), "dpo": (None, 256)}
"""Method -> (rows, positions) of the live KL gauge, as the modules of that name have them; None: all rows."""


class Step:
    """A training step of one method on a loaded model. ``run`` takes two and marks the second, which counts."""

    def __init__(self, traced: Traced) -> None:
        self.settings, self.plain, self.lora, self.dtype = traced.settings, traced.plain, traced.lora, traced.dtype
        self.model, self.reference = traced.model, traced.reference
        self.reference_hidden: list[torch.Tensor] = []

    def run(self, meter: Meter, recording: Recording) -> None:
        """Two steps, of which the second counts (the first makes the optimizer's state)."""
        optimizer = optimizer_of(self.model, self.settings["optimizer"], trainer=not self.plain)
        batch, length = self.settings["batch_size"], self.settings["length"]
        sequences = batch * (2 if self.settings["method"] in ("dpo", "orpo", "cpo") else 1)
        shape = (1, sequences * length) if self.settings["padding_free"] else (sequences, length)
        tokens = torch.empty(shape, dtype=torch.long)
        for _ in range(2):
            with self._apart(sequences):
                self._step(optimizer, tokens, meter, recording)

    def _step(self, optimizer: Any, tokens: torch.Tensor, meter: Meter, recording: Recording) -> None:
        optimizer.zero_grad(set_to_none=True)
        recording.mark(BEGIN)
        for _ in range(min(2, self.settings["accumulation"])):
            meter.thread = "forward"
            held, loss = self._loss(tokens)
            if not self.plain:  # its trainer's function has returned
                held = None
            recording.mark("forward")
            meter.thread = "backward"
            loss.backward()
            if not self.plain:
                loss = None
            recording.mark("backward")
        optimizer.step()
        recording.mark("optimizer")
        del held

    def _apart(self, rows: int) -> Any:
        """Where the rows lie end to end, each of so many attends to itself."""
        if not self.settings["padding_free"]:
            return contextlib.nullcontext()
        from engine.backends.pytorch.end_to_end import rows_apart

        return rows_apart(self.model, [place * self.settings["length"] for place in range(rows + 1)])

    def _loss(self, tokens: torch.Tensor) -> tuple[Any, torch.Tensor]:
        """``(what the loop holds on to, loss)``."""
        if self.plain:
            out = self.model(input_ids=tokens, labels=tokens)
            return out, out.loss
        method = self.settings["method"]
        mask = torch.ones_like(tokens) if self.settings["padded"] else None
        with self._autocast(), _captured(self) as hidden:
            out = self.model(input_ids=tokens, attention_mask=mask, labels=tokens, use_cache=False, fused_lm_head=True)
            if method in PAIRS_WITH_REFERENCE and self.settings["reference"] != "precomputed":
                reference = self._reference_logprobs(tokens, mask)
            else:
                reference = torch.zeros(out.log_probs.shape)
            hidden.extend(self.reference_hidden)
            self.reference_hidden = []
            if method == "cpo":
                loss = self._preference_loss(out, reference)
                return hidden, loss + self._penalty(tokens, mask, hidden)
            self._gauge(tokens, mask, len(hidden))
            if method == "sft":
                return hidden, out.loss
            if method == "grpo":
                return hidden, self._clipped_loss(out)
            return hidden, self._preference_loss(out, reference)

    def _preference_loss(self, out: Any, reference: torch.Tensor) -> torch.Tensor:
        chosen, rejected = (out.log_probs - reference).sum(1).chunk(2)
        return -torch.nn.functional.logsigmoid(0.1 * (chosen - rejected)).mean() + 0.0 * out.loss

    def _clipped_loss(self, out: Any) -> torch.Tensor:
        """PPO's objective with one advantage a row."""
        ratio = torch.exp(out.log_probs - out.log_probs.detach())
        advantages = torch.empty((ratio.shape[0], 1))
        return -torch.min(ratio * advantages, torch.clamp(ratio, 0.8, 1.2) * advantages).mean()

    def _penalty(self, tokens: torch.Tensor, mask: Any, hidden: list[torch.Tensor]) -> torch.Tensor:
        """CPO's divergence on the pairs and on anchors beside them, which go through the model on their own."""
        from engine.backends.pytorch.divergence import captured_hidden_states, token_divergence
        from engine.backends.pytorch.heads import penalty_positions

        policy, reference = hidden[:2] if len(hidden) > 1 else (hidden[0], hidden[0].detach())
        sides = [(policy, reference.detach())]
        if self.settings["anchor_share"]:
            count = max(1, round(self.settings["batch_size"] * self.settings["anchor_share"]))
            rows, rows_mask = tokens[:count], None if mask is None else mask[:count]
            with captured_hidden_states(self.model, with_graph=True) as anchors:
                self.model(input_ids=rows, attention_mask=rows_mask, use_cache=False, logits_to_keep=1)
            sides.append((anchors[0], self._reference_rows(rows, rows_mask)))
        divergences = []
        positions = penalty_positions(self.model, tokens.numel()) // len(sides)
        for policy, reference in sides:
            budget = _thinned(policy.shape[0] * (policy.shape[1] - 1), positions)
            places = [torch.zeros(budget, dtype=torch.long) for _ in range(2)]
            chosen, other = (states[:, :-1][places[0], places[1]] for states in (policy, reference))
            divergences.append(token_divergence(self.model, chosen, other.detach(), self.reference))
        return torch.cat(divergences).mean()

    @torch.no_grad()
    def _reference_rows(self, tokens: torch.Tensor, mask: Any) -> torch.Tensor:
        """The last hidden states of the stage's start for a few rows, while the step's activations wait."""
        from engine.backends.pytorch.divergence import captured_hidden_states

        model = self.reference if self.reference is not None else self.model
        context: Any = contextlib.nullcontext() if self.reference is not None else self._reference_adapter()
        with context, captured_hidden_states(model) as hidden:
            model(input_ids=tokens, attention_mask=mask, use_cache=False, logits_to_keep=1)
        return hidden[0]

    def _gauge(self, tokens: torch.Tensor, mask: Any, forwards: int) -> None:
        """The live KL of a few positions, in fp32 tiles of both models' logits; most methods ask the start for it."""
        from engine.backends.pytorch.divergence import token_divergence

        rows, positions = GAUGES[self.settings["method"]]
        if rows is None:
            if forwards < 2:  # the reference was computed beforehand
                return
        elif self.lora or self.reference is not None:
            if self.settings["padding_free"]:
                with self._apart(min(rows, self.settings["batch_size"])):
                    self._reference_rows(tokens[:, : rows * self.settings["length"]], mask)
            else:
                self._reference_rows(tokens[:rows], None if mask is None else mask[:rows])
        else:
            return
        scored = self.settings["length"] - 1
        if self.settings["method"] == "grpo":
            scored = min(scored, self.settings["max_new_tokens"])  # completions alone
        sequences = self.settings["batch_size"] if self.settings["padding_free"] else tokens.shape[0]
        count = _thinned(min(rows or sequences, sequences) * scored, positions)
        width = self.model.get_output_embeddings().weight.shape[1]
        policy, reference = (torch.empty((count, width), dtype=self.dtype) for _ in range(2))
        token_divergence(self.model, policy, reference, self.reference)

    def _reference_logprobs(self, tokens: torch.Tensor, mask: Any) -> torch.Tensor:
        nothing: Any = contextlib.nullcontext()
        with torch.no_grad():
            if self.reference is not None:
                model, context = self.reference, nothing
            else:
                model, context = self.model, self._reference_adapter()
            with context, _checkpointing_off(self.model):
                return model(
                    input_ids=tokens, attention_mask=mask, labels=tokens, use_cache=False, fused_lm_head=True
                ).log_probs

    @contextlib.contextmanager
    def _reference_adapter(self) -> Iterator[None]:
        if self.settings["reference"] == "adapter":
            self.model.set_adapter(REFERENCE_ADAPTER)
            try:
                yield
            finally:
                self.model.set_adapter("default")
        else:
            with self.model.disable_adapter():
                yield

    def _autocast(self) -> Any:
        """The Trainer's mixed precision: bf16 on GPUs that have it."""
        if self.dtype == torch.float32 or not self.settings["autocast"]:
            return contextlib.nullcontext()
        return torch.autocast("cpu", dtype=self.dtype)


@contextlib.contextmanager
def _captured(step: Step) -> Iterator[list[torch.Tensor]]:
    """The live KL gauge of the stages holds the last hidden states of the forward, and of the reference's."""
    method = step.settings["method"]
    if method in PAIRS_WITH_REFERENCE or step.lora or step.reference is not None:
        from engine.backends.pytorch.divergence import captured_hidden_states

        with contextlib.ExitStack() as stack:
            hidden = stack.enter_context(captured_hidden_states(step.model, with_graph=method == "cpo"))
            if step.reference is not None and method in PAIRS_WITH_REFERENCE:
                step.reference_hidden = stack.enter_context(captured_hidden_states(step.reference))
            yield hidden
    else:
        yield []


@contextlib.contextmanager
def _checkpointing_off(model: Any) -> Iterator[None]:
    from trl.models.utils import disable_gradient_checkpointing

    with disable_gradient_checkpointing(model, CHECKPOINTING):
        yield


def _thinned(positions: int, at_most: int) -> int:
    """How many positions a fixed stride leaves (``engine.backends.pytorch.divergence.predicting_positions``)."""
    return -(-positions // -(-positions // at_most))
