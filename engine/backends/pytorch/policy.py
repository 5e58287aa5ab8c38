"""A loaded PyTorch policy: generation, teacher-forced scores and exact divergence, for whichever weights are asked."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import GenerationConfig, PreTrainedTokenizerBase

from engine.backends.interface import Completion, Conversation, Divergence, LoadSettings, Score, Which
from engine.backends.pytorch.device import seeded
from engine.backends.pytorch.interventions import Interventions
from engine.backends.pytorch.tempered import tempered
from engine.backends.tokens import encode_completion, encode_prompt

REFERENCE_ADAPTER = "ref"
"""TRL's name for the frozen copy of the adapter that a preference stage starts from."""

GENERATION_BATCH = 64
LOGIT_BUDGET = 2**25
"""Most logits that one scoring batch may hold at once (128 MiB in fp32): bounds evaluation memory at any vocabulary."""

Progress = Callable[[int, int], None] | None


class TorchPolicy:
    """See engine.backends.interface.Policy. ``model`` is a PeftModel, or a plain model in full fine-tuning."""

    def __init__(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        device: torch.device,
        settings: LoadSettings,
        *,
        adapter_at_start: bool,
        reference: torch.nn.Module | None = None,
        interventions: Interventions | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.device = device
        self.settings = settings
        self.reference = reference
        self.interventions = interventions or Interventions()
        self._adapter_at_start = adapter_at_start

    # ---- whose weights -------------------------------------------------------------------------------------------

    def has(self, which: Which) -> bool:
        if which == "policy" or isinstance(self.model, PeftModel) or self._frozen:
            return True
        return which == "start" and self.reference is not None

    @property
    def _frozen(self) -> bool:
        """Nothing is trained: only interventions tell the policy, its start and the base apart."""
        return self.settings.training == "none"

    def freeze_start(self) -> None:
        """Keep a frozen copy of the adapter as it is now: the reference of this stage. Costs megabytes.

        Not needed when the stage begins without an adapter (the start is then the base itself) nor when TRL made one.
        """
        if not isinstance(self.model, PeftModel) or not self._adapter_at_start:
            return
        if REFERENCE_ADAPTER in self.model.peft_config:
            return
        self.model.add_adapter(REFERENCE_ADAPTER, self.model.peft_config["default"])
        for name, parameter in self.model.named_parameters():
            if ".default." in name:
                self.model.get_parameter(name.replace(".default.", f".{REFERENCE_ADAPTER}.")).data.copy_(parameter.data)
        self.model.set_adapter("default")

    def drop_needless_reference(self) -> None:
        """Without TRL's copy of an adapter that began as nothing: the base below is the same, costs no memory, and its
        forward is cheaper."""
        if not isinstance(self.model, PeftModel) or self._adapter_at_start:
            return
        if REFERENCE_ADAPTER in self.model.peft_config:
            self.model.delete_adapter(REFERENCE_ADAPTER)

    @contextlib.contextmanager
    def weights(self, which: Which) -> Iterator[Any]:
        """The model in eval mode with those weights active; training mode and adapter are put back afterwards."""
        model = self.model
        if which != "policy" and not isinstance(model, PeftModel) and not self._frozen:
            if which != "start" or self.reference is None:
                raise ValueError(f"full fine-tuning keeps no copy of the {which} weights in this stage")
            with _as_loaded(self.reference):
                yield self.reference
            return
        training = model.training
        model.eval()
        try:
            with torch.no_grad(), _as_loaded(model), self._adapter(which), self.interventions.of(which):
                yield model
        finally:
            model.train(training)

    @contextlib.contextmanager
    def _adapter(self, which: Which) -> Iterator[None]:
        if which == "policy" or (self._frozen and (which == "start" or not isinstance(self.model, PeftModel))):
            yield
        elif which == "start" and REFERENCE_ADAPTER in self.model.peft_config:
            trainable = {name for name, parameter in self.model.named_parameters() if parameter.requires_grad}
            self.model.set_adapter(REFERENCE_ADAPTER)
            try:
                yield
            finally:
                self.model.set_adapter("default")
                # set_adapter decides requires_grad by its own rules; what trained before must train again, alone.
                for name, parameter in self.model.named_parameters():
                    parameter.requires_grad_(name in trainable)
        elif which == "start" and self._adapter_at_start:
            raise RuntimeError("freeze_start() was not called before the adapter began to train")
        else:
            with self.model.disable_adapter():
                yield

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
        order = sorted(range(len(encoded)), key=lambda index: len(encoded[index]))  # like lengths pad little
        results: list[Completion | None] = [None] * len(encoded)
        config = self._generation_config(max_new_tokens, temperature)
        stops = set(config.eos_token_id if isinstance(config.eos_token_id, list) else [config.eos_token_id])
        done = 0
        with self.weights(of) as model, seeded(seed):
            for start in range(0, len(order), GENERATION_BATCH):
                batch = order[start : start + GENERATION_BATCH]
                ids, mask = self._pad_left([encoded[index] for index in batch])
                with self.interventions.batch():
                    produced = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
                for index, row in zip(batch, produced[:, ids.shape[1] :].tolist(), strict=True):
                    results[index] = self._completion(row, stops)
                done += len(batch)
                if progress:
                    progress(done, len(order))
        return [completion for completion in results if completion is not None]

    def _generation_config(self, max_new_tokens: int, temperature: float) -> GenerationConfig:
        own = self.model.generation_config
        stop = own.eos_token_id if own is not None and own.eos_token_id is not None else self.tokenizer.eos_token_id
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
        return GenerationConfig(
            max_new_tokens=max_new_tokens,
            eos_token_id=stop,
            pad_token_id=self.tokenizer.pad_token_id,
            **({"do_sample": False} | sampling),
        )

    def _completion(self, row: list[int], stops: set[int]) -> Completion:
        for position, token in enumerate(row):
            if token in stops:
                row = row[: position + 1]
                break
        finished = bool(row) and row[-1] in stops
        text = self.tokenizer.decode(row, skip_special_tokens=True)
        return Completion(text=str(text).strip(), tokens=tuple(row), finished=finished)

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
        results: list[Score | None] = [None] * len(pairs)
        done = 0
        with self.weights(of) as model:
            for batch in self._batches(pairs):
                logits, targets, lengths = self._logits(model, [pairs[index] for index in batch])
                logprobs = torch.log_softmax(logits.float(), dim=-1)
                chosen = logprobs.gather(-1, targets.unsqueeze(-1)).squeeze(-1).double().split(lengths)
                correct = (logits.argmax(-1) == targets).split(lengths)
                for index, given, right in zip(batch, chosen, correct, strict=True):
                    results[index] = Score(logprob=given.sum().item(), tokens=given.numel(), correct=int(right.sum()))
                done += len(batch)
                if progress:
                    progress(done, len(pairs))
        return [score for score in results if score is not None]

    def tempered_logprobs(
        self,
        prompts: Sequence[Conversation],
        completions: Sequence[Completion],
        temperatures: Sequence[float],
        *,
        progress: Progress = None,
    ) -> list[list[float]]:
        pairs = [
            (encode_prompt(self.tokenizer, prompt), list(completion.tokens))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        results: list[list[float]] = [[] for _ in pairs]
        done = 0
        with self.weights("policy") as model:
            for batch in self._batches(pairs):
                logits, targets, lengths = self._logits(model, [pairs[index] for index in batch])
                logprobs = tempered(logits, targets, temperatures).double()
                for index, given in zip(batch, logprobs.split(lengths, dim=-1), strict=True):
                    results[index] = given.sum(-1).tolist()
                done += len(batch)
                if progress:
                    progress(done, len(pairs))
        return results

    def divergence(
        self,
        prompts: Sequence[Conversation],
        completions: Sequence[Completion],
        *,
        to: Which,
        progress: Progress = None,
    ) -> list[Divergence]:
        pairs = [
            (encode_prompt(self.tokenizer, prompt), list(completion.tokens))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        results: list[Divergence | None] = [None] * len(pairs)
        done = 0
        for batch in self._batches(pairs):
            rows = [pairs[index] for index in batch]
            with self.weights("policy") as model:
                logits, _, lengths = self._logits(model, rows)
                policy = torch.log_softmax(logits.float(), dim=-1)
            with self.weights(to) as model:
                logits, _, _ = self._logits(model, rows)
                other = torch.log_softmax(logits.float(), dim=-1)
            per_token = (policy.exp() * (policy - other)).sum(-1)
            for index, values in zip(batch, per_token.split(lengths), strict=True):
                results[index] = Divergence(
                    total=values.double().sum().item(), tokens=values.numel(), each=tuple(values.tolist())
                )
            done += len(batch)
            if progress:
                progress(done, len(pairs))
        return [divergence for divergence in results if divergence is not None]

    def _batches(self, pairs: Sequence[tuple[list[int], list[int]]]) -> Iterator[list[int]]:
        """Indices in batches of like length whose logits over the completion stay within the budget."""
        vocabulary = self.model.config.get_text_config().vocab_size
        batch: list[int] = []
        longest = 0
        for index in sorted(range(len(pairs)), key=lambda item: sum(map(len, pairs[item]))):
            longest_with = max(longest, len(pairs[index][1]) + 1)
            if batch and (len(batch) + 1) * longest_with * vocabulary > LOGIT_BUDGET:
                yield batch
                batch, longest_with = [], len(pairs[index][1]) + 1
            batch.append(index)
            longest = longest_with
        if batch:
            yield batch

    def _logits(
        self, model: Any, rows: Sequence[tuple[list[int], list[int]]]
    ) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
        """Logits that predict the completions' tokens (M, V), those tokens (M,), and how many of them each row has.

        Rows are padded on the left so that all completions end together and the head runs on their positions only.
        """
        ids, mask = self._pad_left([prompt + completion for prompt, completion in rows])
        longest = max(len(completion) for _, completion in rows)
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        starts = torch.tensor([ids.shape[1] - len(completion) - 1 for _, completion in rows], device=ids.device)
        with self.interventions.batch(starts.clamp(min=0)):
            output = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                use_cache=False,
                logits_to_keep=longest + 1,
            )
        counted = torch.zeros((len(rows), longest), dtype=torch.bool, device=ids.device)
        for row, (_, completion) in enumerate(rows):
            counted[row, longest - len(completion) :] = True
        # Only what counts is kept: beside one long completion, most positions of the others are padding.
        return output.logits[:, -longest - 1 : -1][counted], ids[:, -longest:][counted], counted.sum(-1).tolist()

    def _pad_left(self, rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        longest = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in rows], device=self.device)
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in rows], device=self.device)
        return ids, mask

    # ---- out -----------------------------------------------------------------------------------------------------

    def load_trained(self, checkpoint: Path) -> None:
        """Take the trained weights of a checkpoint, without optimizer or random state: for evaluating or handing on."""
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        if isinstance(self.model, PeftModel):
            set_peft_model_state_dict(self.model, load_file(checkpoint / "adapter_model.safetensors"), "default")
            return
        names = ["model.safetensors"]
        index = checkpoint / "model.safetensors.index.json"
        if index.is_file():
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        for name in names:
            self.model.load_state_dict(load_file(checkpoint / name), strict=False)

    def save(self, folder: Path) -> None:
        """``folder/adapter`` (PEFT, loadable on the plain base) or ``folder/model``, each with the tokenizer."""
        if isinstance(self.model, PeftModel):
            target = folder / "adapter"
            self.model.save_pretrained(target, selected_adapters=["default"])
        else:
            target = folder / "model"
            self.model.save_pretrained(target)
        self.tokenizer.save_pretrained(target)


def perplexity(loss: float) -> float:
    """exp of a mean loss in nats per token; inf where it overflows, so that a collapse stays visible."""
    return math.exp(loss) if loss < 700 else math.inf


@contextlib.contextmanager
def _as_loaded(model: Any) -> Iterator[None]:
    """Without the mixed precision that accelerate puts around the forward of a model that trains on a GPU: what is measured
    must not depend on whether this process has trained, or was started again to measure."""
    plain = model.__dict__.get("_original_forward")
    if plain is None:
        yield
        return
    mixed = model.forward
    model.forward = plain
    try:
        yield
    finally:
        model.forward = mixed
