"""Sums in a fixed order: asked for in a step alone, given up where the model cannot, and said.

Whether the bits are the same only a GPU can show: tests/gpu/test_same_bits.py.
"""

from __future__ import annotations

import os
from collections import defaultdict
from contextlib import ExitStack, contextmanager

import pytest
import torch

from engine.backends.pytorch.device import in_fixed_order, pick_device
from engine.backends.pytorch.sft import LinkedSFTTrainer
from tests.in_process import run_here
from tests.real_run import RECIPE

SHORT = RECIPE[: RECIPE.index("  - method: dpo")] + "on_gate_fail: warn\n"


@pytest.fixture
def as_on_cuda(monkeypatch):
    """What only looks whether there is a GPU finds one."""
    monkeypatch.setattr("engine.backends.pytorch.device.torch.cuda.is_available", lambda: True)


def test_a_fixed_order_is_asked_for_within_and_put_back(as_on_cuda):
    with in_fixed_order():
        assert (
            torch.are_deterministic_algorithms_enabled() and not torch.is_deterministic_algorithms_warn_only_enabled()
        )
        assert not torch.utils.deterministic.fill_uninitialized_memory
        with in_fixed_order(False):  # while a group is sampled
            assert not torch.are_deterministic_algorithms_enabled()
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()


def test_on_a_cpu_nothing_is_asked_for():
    with in_fixed_order():
        assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("before", [None, "0", "1"])
def test_flash_attention_is_told_the_order_where_transformers_asks(before, as_on_cuda, monkeypatch):
    """As the recipe says, whatever the variable was; and put back."""
    from transformers import modeling_flash_attention_utils as flash

    def told():
        takes = defaultdict(bool, deterministic=True)
        return flash._process_flash_attention_kwargs(4, 4, True, supports_mapping=takes)["deterministic"]

    monkeypatch.delenv("FLASH_ATTENTION_DETERMINISTIC", raising=False)
    if before is not None:
        monkeypatch.setenv("FLASH_ATTENTION_DETERMINISTIC", before)
    with in_fixed_order():
        assert told()
        with in_fixed_order(False):
            assert not told()
        assert told()
    with in_fixed_order(False):
        assert not told()
    assert os.environ.get("FLASH_ATTENTION_DETERMINISTIC") == before


@pytest.mark.parametrize("fixed", [True, False])
def test_flash_attention_is_told_in_every_step_of_the_process_that_trains(
    fixed, backend, lineage, settings, stage, rows, link_type, tmp_path, monkeypatch
):
    seen = []
    loss = LinkedSFTTrainer.compute_loss

    def watched(self, *args, **kwargs):
        seen.append(os.environ.get("FLASH_ATTENTION_DETERMINISTIC"))
        return loss(self, *args, **kwargs)

    @contextmanager
    def as_on_cuda(wanted):
        with ExitStack() as stack:
            with monkeypatch.context() as patched:  # the step itself runs on the CPU
                patched.setattr("torch.cuda.is_available", lambda: True)
                stack.enter_context(in_fixed_order(wanted))
            yield

    monkeypatch.delenv("FLASH_ATTENTION_DETERMINISTIC", raising=False)
    monkeypatch.setattr(LinkedSFTTrainer, "compute_loss", watched)
    monkeypatch.setattr("engine.backends.pytorch.training.in_fixed_order", as_on_cuda)
    policy = backend.load(lineage, tmp_path, settings(fixed_order=fixed))
    backend.train("sft", policy, rows["sft"], stage(steps=2), link_type(tmp_path / "run"))
    assert seen == ["1" if fixed else None] * 2 and "FLASH_ATTENTION_DETERMINISTIC" not in os.environ


def test_a_gpu_gets_the_workspace_that_a_fixed_order_needs(as_on_cuda, monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    pick_device()
    assert os.environ.pop("CUBLAS_WORKSPACE_CONFIG") == ":4096:8"


def test_a_model_that_cannot_sum_in_a_fixed_order_trains_all_the_same(tmp_path, monkeypatch, capfd):
    tried = []

    def step(self, model, inputs, *args, **kwargs):
        tried.append(self._fixed_order)
        if self._fixed_order:
            raise RuntimeError(
                "sum_backward_cuda does not have a deterministic implementation, but you set … . You can"
            )
        super(LinkedSFTTrainer, self)._probe_step(model, inputs, *args, **kwargs)

    monkeypatch.setattr(LinkedSFTTrainer, "_probe_step", step)
    (tmp_path / "short.yaml").write_text(SHORT)
    run = run_here(tmp_path / "short.yaml")
    state = run.state()
    assert tried == [True, False] and state.status == "done" and state.stages[0].steps_done == 16
    told = "a resume may end in other bits than an undisturbed run: sum_backward_cuda does not have a deterministic"
    assert told in capfd.readouterr().out


@pytest.mark.parametrize("fixed", [True, False])
def test_the_recipe_decides(fixed, tmp_path, monkeypatch, capfd):
    tried = []
    probe = LinkedSFTTrainer._probe_step

    def step(self, *args, **kwargs):
        tried.append(self._fixed_order)
        probe(self, *args, **kwargs)

    monkeypatch.setattr(LinkedSFTTrainer, "_probe_step", step)
    (tmp_path / "short.yaml").write_text(f"fixed_order: {str(fixed).lower()}\n{SHORT}")
    run_here(tmp_path / "short.yaml")
    assert tried == [fixed]
    assert ("all the same: here they have no other" in capfd.readouterr().out) is not fixed


def test_without_a_probe_the_error_names_the_way_out(
    backend, lineage, settings, stage, rows, link_type, tmp_path, monkeypatch
):
    def loss(self, *args, **kwargs):
        raise RuntimeError(
            "histc_cuda does not have a deterministic implementation, but you set …. You can turn it off"
        )

    monkeypatch.setattr(LinkedSFTTrainer, "compute_loss", loss)
    for fixed, said in (
        (True, r"histc_cuda does not have a deterministic implementation; `fixed_order: false`"),
        (False, "You can"),
    ):
        policy = backend.load(lineage, tmp_path, settings(fixed_order=fixed))
        with pytest.raises(RuntimeError, match=said):
            backend.train("sft", policy, rows["sft"], stage(), link_type(tmp_path / str(fixed)))


def test_another_error_of_the_first_step_is_not_taken_for_it(tmp_path, monkeypatch):
    def step(self, model, inputs, *args, **kwargs):
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(LinkedSFTTrainer, "_probe_step", step)
    (tmp_path / "short.yaml").write_text(SHORT)
    with pytest.raises(Exception, match="shapes cannot be multiplied"):
        run_here(tmp_path / "short.yaml")
