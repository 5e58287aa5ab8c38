"""Every jail that this machine has, each run for real."""

from __future__ import annotations

import pytest

from engine.verify.sandbox.jails import candidates
from engine.verify.sandbox.probe import leak

REASONS = {jail.name: leak(jail()) for jail in candidates()}
JAILS = {jail.name: jail for jail in candidates() if REASONS[jail.name] is None}


@pytest.fixture(params=[jail.name for jail in candidates()])
def jail(request):
    if request.param not in JAILS:
        pytest.skip(f"{request.param}: {REASONS[request.param]}")
    return JAILS[request.param]()
