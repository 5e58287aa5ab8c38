"""An engine in vLLM's place, with the few calls that TRL makes: it has its own copy of the base, takes weights by name and
samples from them. TRL's own sampler (``trl.generation.vllm_generation``) talks to it as to vLLM."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from trl.generation import vllm_generation


class LittleVLLM:
    """``handed``: the names of each weight that came, ``asked``: what each call of ``generate`` wanted."""

    latest: Any = None

    def __init__(self, model: str, **settings: Any) -> None:
        self.settings = settings
        self.model = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        self.weights = dict(self.model.named_parameters())
        self.handed: list[str] = []
        self.asked: list[SimpleNamespace] = []
        runner = SimpleNamespace(model=SimpleNamespace(load_weights=self.load_weights))
        executor = SimpleNamespace(driver_worker=SimpleNamespace(model_runner=runner))
        self.llm_engine = SimpleNamespace(
            model_executor=executor, model_config=SimpleNamespace(max_model_len=settings["max_model_len"])
        )
        LittleVLLM.latest = self

    def load_weights(self, pairs: Any) -> None:
        for name, value in pairs:
            assert value.shape == self.weights[name].shape, name
            self.weights[name].data.copy_(value)
            self.handed.append(name)

    def reset_prefix_cache(self) -> None:
        pass

    def generate(self, prompts: Any, sampling_params: Any, use_tqdm: bool) -> list[Any]:
        self.asked.append(sampling_params)
        return [self._answer(row["prompt_token_ids"], sampling_params) for row in prompts]

    def _answer(self, prompt: list[int], wanted: Any) -> Any:
        assert len(prompt) + wanted.max_tokens <= self.settings["max_model_len"]
        least = wanted.max_tokens if getattr(wanted, "ignore_eos", False) else 1
        made = self.model.generate(
            torch.tensor([prompt]), attention_mask=torch.ones((1, len(prompt)), dtype=torch.long), do_sample=True,
            temperature=wanted.temperature, top_k=0, top_p=1.0, min_new_tokens=least, max_new_tokens=wanted.max_tokens,
            output_scores=True, return_dict_in_generate=True, pad_token_id=0,
        )  # fmt: skip
        tokens = made.sequences[0, len(prompt) :].tolist()
        logprobs = [
            {token: SimpleNamespace(logprob=torch.log_softmax(score[0], -1)[token].item(), rank=1)}
            for token, score in zip(tokens, made.scores, strict=True)
        ]
        return SimpleNamespace(prompt_token_ids=prompt, outputs=[SimpleNamespace(token_ids=tokens, logprobs=logprobs)])


@contextmanager
def in_its_place(monkeypatch: Any) -> Any:
    """TRL finds the little engine where it looks for vLLM."""
    with monkeypatch.context() as patched:
        patched.setattr(vllm_generation, "is_vllm_available", lambda: True)
        patched.setattr(vllm_generation, "LLM", LittleVLLM, raising=False)
        patched.setattr(vllm_generation, "SamplingParams", SimpleNamespace, raising=False)
        for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
            patched.setenv(name, "0")  # TRL sets them for vLLM; here they are put back
            patched.delenv(name)
        yield
