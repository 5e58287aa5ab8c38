"""Tests that run a user's code: left out where no sandbox works, for there the product refuses such code too."""

from __future__ import annotations

import pytest

from engine.verify.sandbox.jails import find_jail

JAIL, REASON = find_jail()
needs_sandbox = pytest.mark.skipif(JAIL is None, reason=f"no sandbox: {REASON}")
