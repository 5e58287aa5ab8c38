"""Shared by all tests: one home for runs per test, no network, one thread."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest

LONG = (
    "tests/kill/", "tests/forecast/test_trace", "tests/tui/test_wizard", "tests/chat/test_process", "tests/runs/test_",
    "tests/tui/test_screens", "tests/tui/test_data", "tests/backends/", "tests/lab/", "tests/hardware/", "tests/tui/",
    "tests/stages/", "tests/test_imports",
)  # fmt: skip


def pytest_configure(config):
    """The tests are the CPU's, also on a machine with a GPU; those of tests/gpu see it when they are asked for by name."""
    if not any("tests/gpu" in word for word in config.args):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""


def pytest_collection_modifyitems(items):
    """The longest files first, so that no worker is left with one of them while the others are done."""
    items.sort(key=lambda item: next((n for n, start in enumerate(LONG) if item.nodeid.startswith(start)), len(LONG)))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """FINETUNE_TUI_HOME of this test alone: no test sees another's runs, or the user's."""
    folder = tmp_path / "home"
    monkeypatch.setenv("FINETUNE_TUI_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def warm_process():
    """Where ``Warm`` runs are forked (tests/warm.py)."""
    from tests.warm import WarmProcess

    process = WarmProcess()
    yield process
    process.close()


from tests.runs.fakes import fake_run, until  # noqa: E402, F401 - fixtures for all
