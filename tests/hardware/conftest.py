"""What these tests ask is answered from recordings, whose GPUs are not hidden."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def nothing_hidden(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
