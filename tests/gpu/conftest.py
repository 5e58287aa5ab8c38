"""Tests that only a GPU can run are skipped without one."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def cuda():
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA here")
