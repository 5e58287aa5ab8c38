"""Who may import whom, and what a command must not load."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.hardware.decoys import light

TRAINING = ["torch", "transformers", "trl", "peft", "datasets", "accelerate", "bitsandbytes", "mlx", "mlx_lm"]
ROOT = Path(__file__).resolve().parent.parent
PROBE = """
import sys
sys.argv = ["finetune-tui", *{words!r}]
from tui.cli import main
try:
    main()
except SystemExit:
    pass
print("LOADED", *(name for name in {names!r} if name in sys.modules), file=sys.stderr)
"""


def loaded(words, names, **environment):
    code = PROBE.format(words=words, names=names)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert "LOADED" in done.stderr, done.stderr
    return done.stderr.rsplit("LOADED", 1)[1].split()


def test_the_import_contracts_hold():
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(linter)], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0, done.stdout


def test_help_loads_next_to_nothing():
    names = ["textual", "rich", "pydantic", "yaml", "msgspec", "psutil", "asyncio", *TRAINING]
    assert loaded(["--help"], names) == []


COMMANDS = [
    ["runs"], ["show"], ["logs"], ["run", "no-such-recipe"], ["resume"], ["attach"], ["probe"], ["doctor"], ["methods"],
    ["compare", "one", "other"], ["choose", "--answers", "1"], ["check", "sft", "--quick"], ["export", "--to", "gguf"],
    ["chat"], ["blind"],
]  # fmt: skip


def test_no_command_loads_a_training_library(tmp_path):
    """One after another in one process. ``probe`` and ``doctor`` ask a child what works here, which need not be the real
    libraries."""
    code = f"""
import sys
from tui.cli import main
for words in {COMMANDS!r}:
    try:
        main(words)
    except SystemExit:
        pass
    print("AFTER", words[0], *(name for name in {[*TRAINING, "textual"]!r} if name in sys.modules), file=sys.stderr)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120,
        env={**os.environ, **light(tmp_path / "decoys")},
    )  # fmt: skip
    after = [line.split()[1:] for line in done.stderr.splitlines() if line.startswith("AFTER")]
    assert after == [words[:1] for words in COMMANDS], done.stderr


def test_starting_a_run_loads_no_training_library():
    assert (
        loaded(["run", "sft", "--detach", "--set", "stages.0.data.source=lab/nothing.jsonl"], [*TRAINING, "textual"])
        == []
    )


def test_the_supervisor_loads_no_training_library():
    code = f"import sys, engine.runs.supervisor, engine.report; print([n for n in {TRAINING!r} if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


def test_the_app_loads_no_training_library(tmp_path):
    """On the runs and on a run, with decoys of every training library that would say so."""
    for name in TRAINING:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')")
    code = """
import asyncio, sys
from tests.tui.recording import RUN_ID, recorded_run
recorded_run()
from tui.app import FinetuneApp
async def session():
    app = FinetuneApp()
    async with app.run_test(size=(80, 24)) as pilot:
        while app.screen.query_one("#runs").option_count == 0:
            await pilot.pause(0.05)
        home = app.screen
        await pilot.press("enter")
        while app.screen is home or not app.screen.is_active:
            await pilot.pause(0.05)
        for key in ("2", "3", "4", "5", "z", "tab", "escape", "question_mark", "escape", "c", "escape", "f2", "escape", "escape"):
            await pilot.pause(0.2)
            await pilot.press(key)
        await pilot.pause(0.2)
asyncio.run(session())
print("LOADED", *(name for name in %r if name in sys.modules))
""" % (TRAINING,)  # noqa: UP031 - braces are in the code
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"},
    )  # fmt: skip
    assert done.stdout.strip() == "LOADED", done.stdout + done.stderr


def test_a_stage_on_mlx_does_without_torch():
    pytest.importorskip("mlx_lm")
    code = (
        "import sys\nfrom engine.backends import open_backend\nopen_backend('mlx').alone(None, '', None)\n"
        "import engine.backends.mlx.rlvr, engine.backends.mlx.load\nassert 'torch' not in sys.modules\nimport torch"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.returncode == 0 and not done.stderr, done.stderr
