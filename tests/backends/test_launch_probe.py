"""The launch probe measures the longest micro-batch and leaves nothing behind."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from engine.backends.pytorch.training import longest_rows

LONG = "The harbor is a lovely place. " * 6


@pytest.mark.parametrize("method", ["sft", "dpo"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_probed_run_is_the_run_without_it_to_the_bit(
    method, accumulation, backend, lineage, settings, stage, rows, link_type, tmp_path
):
    told = []

    class Probed(link_type):
        def measured_longest(self, *figures):
            told.append(figures)

    rows = list(rows[method])
    if method == "sft":
        rows[17] = [rows[17][0], {"role": "assistant", "content": LONG}]
    else:
        rows[17] = SimpleNamespace(prompt=rows[17].prompt, chosen=LONG, rejected="No.")
    weights, losses = [], []
    for index, link in enumerate((link_type(tmp_path / "plain"), Probed(tmp_path / "probed"))):
        policy = backend.load(lineage, tmp_path / str(index), settings(dropout=0.1))
        backend.train(method, policy, rows, stage(steps=5, accumulation=accumulation), link)
        weights.append({name: value for name, value in policy.model.named_parameters() if ".default." in name})
        losses.append(link.losses())
    assert losses[0] == losses[1] and len(losses[0]) == 5
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert len(told) == 1
    sequences, length, memory_mib, seconds = told[0]
    assert sequences == (4 if method == "sft" else 8) and length > 30 and memory_mib > 0 and seconds > 0


def test_the_longest_rows_come_first_and_ties_keep_their_order():
    from datasets import Dataset

    dataset = Dataset.from_list([{"ids": [0] * size, "mark": size} for size in (3, 9, 5, 9)])
    assert [row["mark"] for row in longest_rows(dataset, 3)] == [9, 9, 5]
    assert longest_rows(None, 2) == [] and longest_rows(Dataset.from_list([{"mark": 1}]), 2) == []
