"""A loaded MLX policy: generation, teacher-forced scores and exact divergence, for whichever weights are asked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from engine.backends.interface import Completion, Conversation, Divergence, LoadSettings, Score, Which
from engine.backends.mlx import adapters
from engine.backends.mlx.batches import Row, padded_ids, predicted
from engine.backends.mlx.device import check_memory
from engine.backends.mlx.generation import generate
from engine.backends.mlx.interventions import Interventions
from engine.backends.mlx.logprobs import divergence
from engine.backends.mlx.network import Network, Weights
from engine.backends.mlx.save import save_model
from engine.backends.tokens import encode_completion, encode_prompt

LOGIT_BUDGET = 2**25
"""Most logits that one scoring batch may hold at once (128 MiB in fp32): bounds evaluation memory at any vocabulary."""

Progress = Callable[[int, int], None] | None
Pair = tuple[list[int], list[int]]
"""Token ids of a prompt and of its completion."""


class MLXPolicy:
    """See engine.backends.interface.Policy."""

    def __init__(
        self,
        network: Network,
        tokenizer: Any,
        settings: LoadSettings,
        base: Path,
        stops: set[int],
        adapter: dict[str, Any] | None = None,
        interventions: Interventions | None = None,
    ) -> None:
        self.network = network
        self.tokenizer = tokenizer
        self.settings = settings
        self.base = base
        self.stops = stops
        self.adapter = adapter
        """PEFT's settings of the adapter; None without one."""
        self.interventions = interventions or Interventions()
        # Arrays never change in place: keeping the start costs nothing until the policy moves away from it.
        self.start: Weights = network.trained()

    # ---- whose weights -------------------------------------------------------------------------------------------

    def has(self, which: Which) -> bool:
        if which == "policy" or self.settings.training != "full":
            return True
        return which == "start" and self.settings.needs_reference

    def freeze_start(self) -> None:
        """Nothing to do: the start was kept when the policy was loaded."""

    def weights_of(self, which: Which) -> Weights:
        """The trained weights as they are now, as they were at the stage's start, or so that the base acts alone."""
        if which == "policy":
            return self.network.trained()
        if not self.has(which):
            raise ValueError(f"full fine-tuning keeps no copy of the {which} weights in this stage")
        if which == "start":
            return self.start
        return {name: mx.zeros_like(value) if name.endswith("lora_b") else value for name, value in self.start.items()}

    @contextlib.contextmanager
    def weights(self, which: Which) -> Iterator[Network]:
        """The network in eval mode with those weights and what acts on them; both are put back afterwards."""
        model = self.network.model
        training, now = model.training, self.network.trained()
        model.eval()
        self.network.use(self.weights_of(which))
        try:
            with self.interventions.of(which):
                yield self.network
        finally:
            self.network.use(now)
            model.train(training)

    # ---- generation ----------------------------------------------------------------------------------------------

    def generate(
        self,
        prompts: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float,
        seed: int,
        of: Which = "policy",
        progress: Progress = None,
    ) -> list[Completion]:
        encoded = [encode_prompt(self.tokenizer, prompt) for prompt in prompts]
        with self.weights(of) as network:
            rows = generate(
                network,
                encoded,
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed,
                stops=self.stops,
                progress=progress,
                interventions=self.interventions,
            )
        return [self._completion(row) for row in rows]

    def _completion(self, row: list[int]) -> Completion:
        text = self.tokenizer.decode(row, skip_special_tokens=True)
        return Completion(text=str(text).strip(), tokens=tuple(row), finished=bool(row) and row[-1] in self.stops)

    # ---- scores --------------------------------------------------------------------------------------------------

    def score(
        self,
        prompts: Sequence[Conversation],
        completions: Sequence[str],
        *,
        of: Which = "policy",
        progress: Progress = None,
    ) -> list[Score]:
        pairs = [
            encode_completion(self.tokenizer, prompt, completion)
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

        def measure(network: Network, hidden: mx.array, targets: mx.array) -> tuple[mx.array, mx.array]:
            logits = network.logits(hidden)
            return chosen_logprobs(logits, targets), logits.argmax(-1) == targets

        results: list[Score | None] = [None] * len(pairs)
        with self.weights(of) as network:
            for index, (logprobs, correct) in self._each(network, pairs, measure, progress):
                results[index] = Score(
                    logprob=float(logprobs.astype(np.float64).sum()), tokens=len(logprobs), correct=int(correct.sum())
                )
        return [score for score in results if score is not None]

    def tempered_logprobs(
        self,
        prompts: Sequence[Conversation],
        completions: Sequence[Completion],
        temperatures: Sequence[float],
        *,
        progress: Progress = None,
    ) -> list[list[float]]:
        pairs = self._given(prompts, completions)

        def measure(network: Network, hidden: mx.array, targets: mx.array) -> list[mx.array]:
            logits = network.logits(hidden)
            return [chosen_logprobs(logits / temperature, targets) for temperature in temperatures]

        results: list[list[float]] = [[] for _ in pairs]
        with self.weights("policy") as network:
            for index, values in self._each(network, pairs, measure, progress):
                results[index] = [float(value.astype(np.float64).sum()) for value in values]
        return results

    def divergence(
        self,
        prompts: Sequence[Conversation],
        completions: Sequence[Completion],
        *,
        to: Which,
        progress: Progress = None,
    ) -> list[Divergence]:
        pairs = self._given(prompts, completions)
        results: list[Divergence | None] = [None] * len(pairs)
        done = 0
        for batch in self._batches(pairs):
            rows = [pairs[index] for index in batch]
            found = []
            for which in ("policy", to):
                with self.weights(which) as network:
                    hidden, _, owner = self._predicting(network, rows)
                    found.append(network.logits(hidden))
                    mx.eval(found)
            each = np.array(divergence(*found))
            check_memory()
            for row, index in enumerate(batch):
                values = each[owner == row]
                results[index] = Divergence(
                    total=float(values.astype(np.float64).sum()), tokens=len(values), each=tuple(values.tolist())
                )
            done += len(batch)
            if progress:
                progress(done, len(pairs))
        return [divergence for divergence in results if divergence is not None]

    def _given(self, prompts: Sequence[Conversation], completions: Sequence[Completion]) -> list[Pair]:
        return [
            (encode_prompt(self.tokenizer, prompt), list(completion.tokens))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def _each(
        self, network: Network, pairs: Sequence[Pair], measure: Callable[..., Any], progress: Progress
    ) -> Iterator[tuple[int, Any]]:
        """``(index, figures)`` of every pair: what ``measure(network, hidden, targets)`` found, cut to its tokens."""
        done = 0
        for batch in self._batches(pairs):
            hidden, targets, owner = self._predicting(network, [pairs[index] for index in batch])
            found = measure(network, hidden, targets)
            mx.eval(found)
            check_memory()
            values = [np.array(value) for value in found]
            for row, index in enumerate(batch):
                yield index, [value[owner == row] for value in values]
            done += len(batch)
            if progress:
                progress(done, len(pairs))

    def _batches(self, pairs: Sequence[Pair]) -> Iterator[list[int]]:
        """Indices in batches of like length whose logits over the completion stay within the budget."""
        vocabulary = self.network.vocabulary
        batch: list[int] = []
        places = 0
        for index in sorted(range(len(pairs)), key=lambda item: sum(map(len, pairs[item]))):
            more = len(pairs[index][1])
            if batch and (places + more) * vocabulary > LOGIT_BUDGET:
                yield batch
                batch, places = [], 0
            batch.append(index)
            places += more
        if batch:
            yield batch

    def _predicting(self, network: Network, pairs: Sequence[Pair]) -> tuple[mx.array, mx.array, np.ndarray]:
        """Hidden states (M, H) that predict the completions' tokens, those tokens (M,), and the row of each."""
        rows = [Row([*prompt, *completion], [0] * len(prompt) + [1] * len(completion)) for prompt, completion in pairs]
        positions, targets, owner = predicted(rows)
        starts = mx.array(np.array([max(0, len(prompt) - 1) for prompt, _ in pairs], np.int32))
        with self.interventions.batch(starts):
            hidden = network.hidden(padded_ids([row.ids for row in rows]))
        return hidden.reshape(-1, hidden.shape[-1])[mx.array(positions)], mx.array(targets), owner

    # ---- out -----------------------------------------------------------------------------------------------------

    def load_trained(self, checkpoint: Path) -> None:
        """Take the trained weights of a checkpoint, without optimizer: for evaluating or handing on."""
        if self.adapter is not None:
            self.network.use(adapters.from_peft(mx.load(str(checkpoint / adapters.TENSORS))))
        else:
            self.network.use(mx.load(str(checkpoint / "model.safetensors")))
        mx.eval(self.network.trained())

    def save_trained(self, folder: Path) -> None:
        """The trained weights alone, into a checkpoint."""
        if self.adapter is not None:
            adapters.write_adapter(folder, self.network.trained(), self.adapter)
        else:
            mx.save_safetensors(str(folder / "model.safetensors"), self.network.trained())

    def save(self, folder: Path) -> None:
        """``folder/adapter`` (PEFT, loadable on the plain base) or ``folder/model``, each with the tokenizer."""
        if self.adapter is not None:
            target = folder / "adapter"
            adapters.write_adapter(target, self.network.trained(), self.adapter)
        else:
            target = folder / "model"
            save_model(target, self.base, self.network.trained())
        self.tokenizer.save_pretrained(target)


def chosen_logprobs(logits: mx.array, targets: mx.array) -> mx.array:
    """Log-probability (M,) of each target id under logits (M, V)."""
    return mx.take_along_axis(logits, targets[:, None], axis=-1).squeeze(-1) - mx.logsumexp(logits, axis=-1)
