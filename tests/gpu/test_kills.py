"""What tests/kill shows on a CPU, on a GPU: killed runs of every method end in the same bits."""

from __future__ import annotations

import pytest

from tests.kill.conftest import uninterrupted, warm  # noqa: F401 - fixtures
from tests.kill.test_every_method import every_method, killed, test_every_method_survives_being_killed  # noqa: F401
from tests.kill.test_kill import test_killed_runs_end_in_the_same_bits  # noqa: F401

pytestmark = pytest.mark.usefixtures("cuda")
