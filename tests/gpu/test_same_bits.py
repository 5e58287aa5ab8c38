"""The same training twice on a GPU, on a real shape: the same bits, or a resumed run could not end in an undisturbed one's."""

from __future__ import annotations

import pytest

from tests.gpu.measure import in_a_process

SMALL, MIDDLE = "HuggingFaceTB/SmolLM2-135M", "meta-llama/Llama-3.2-1B"
PLAIN = {"training": "lora", "quantization": "none", "gradient_checkpointing": True, "batch_size": 4, "length": 512}
PLAIN |= {"steps": 8}
CASES = [
    {**PLAIN, "model": SMALL, "method": "sft"},
    {**PLAIN, "model": SMALL, "method": "sft", "padded": True, "training": "full"},
    {**PLAIN, "model": MIDDLE, "method": "sft", "padded": True, "quantization": "4bit", "length": 1024},
    {**PLAIN, "model": SMALL, "method": "dpo", "padded": True},
    pytest.param(
        {**PLAIN, "model": SMALL, "method": "grpo", "batch_size": 8, "group_size": 8, "max_new_tokens": 64},
        marks=pytest.mark.xfail(
            reason="two runs on an H200 differed: what it sampled, not how it summed", strict=False
        ),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['method']}-{case['training']}-{case['quantization']}")
def test_the_same_training_ends_in_the_same_bits(case, cuda):
    first, second = in_a_process(case), in_a_process(case)
    assert first["trained"] == second["trained"]
