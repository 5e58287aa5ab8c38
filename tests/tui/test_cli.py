"""The commands as a user types them, against a real home: words, exit codes, JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.tui.recording import recorded_run
from tui.cli import main


def cli(*words, cwd=None, stdin=subprocess.DEVNULL):
    command = [sys.executable, "-P", "-m", "tui.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=cwd, stdin=stdin)


def test_an_empty_home_says_what_to_type():
    done = cli("runs")
    assert done.returncode == 0 and "finetune-tui demo" in done.stdout
    assert cli("runs", "--json").stdout.strip() == "[]"
    for word in ("show", "attach", "resume", "pause", "stop", "logs"):
        done = cli(word)
        assert done.returncode == 2 and "finetune-tui demo" in done.stderr, word


def test_unknown_words_get_the_nearest(home):
    done = cli("resum")
    assert done.returncode == 2 and "Did you mean `resume`?" in done.stderr
    done = cli("run", "base-alignmen")
    assert done.returncode == 2 and "Did you mean `base-alignment`?" in done.stderr
    done = cli("run", "sft", "--set", "stages.0.stepz=3", "--json")
    assert done.returncode == 2 and "Did you mean `steps`" in json.loads(done.stdout)["messages"][0]
    assert not (home / "runs").exists() or not list((home / "runs").iterdir())


BAD = {
    "missing model": ("model: ./nowhere", "data: {source: lab/domain.jsonl}", "which is no directory"),
    "empty data": ("model: lab-nano", "data: {source: empty.jsonl}", "no rows"),
    "undecodable line": ("model: lab-nano", "data: {source: broken.jsonl}", "line 2"),
    "wrong columns": ("model: lab-nano", "data: {source: columns.jsonl}", "Did you mean `prompt`"),
    "path outside": ("model: lab-nano", "data: {source: ../up.jsonl}", "leads out"),
    "a kernel for CUDA": (
        "model: lab-nano\nattention: flash_attention_2",
        "data: {source: lab/domain.jsonl}",
        "`attention: auto`",
    ),
    "model without weights": ("model: hollow", "data: {source: lab/domain.jsonl}", "safetensors"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_creates_nothing(case, tmp_path, home):
    model, data, said = BAD[case]
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "broken.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"prompt": \n')
    (tmp_path / "columns.jsonl").write_text('{"promt": "a", "completion": "b"}\n')
    (tmp_path / "hollow").mkdir()
    (tmp_path / "hollow" / "config.json").write_text("{}")
    (tmp_path / "r.yaml").write_text(f"name: x\n{model}\nstages:\n  - method: sft\n    {data}\n")
    done = cli("run", str(tmp_path / "r.yaml"))
    assert done.returncode == 2 and said in done.stderr, done.stderr
    assert not (home / "runs").exists() or not list((home / "runs").iterdir())


def test_every_command_has_help(capsys):
    from tui.cli import COMMANDS

    for name in COMMANDS:
        with pytest.raises(SystemExit) as ended:
            main([name, "--help"])
        assert ended.value.code == 0 and "--json" in capsys.readouterr().out
    assert main(["--version"]) == 0 and "finetune-tui 0." in capsys.readouterr().out


def test_a_run_on_paper(fake_run):
    """show, runs, logs and rm on a finished run (of fake stages: what they show is the log's)."""
    fake = fake_run()
    fake.supervise(wait=True)
    shown = json.loads(cli("show", "--json").stdout)
    assert {"id", "name", "status", "stages", "lineage"} <= set(shown)
    stage = shown["stages"][0]
    assert {"index", "method", "status", "steps_done", "steps_total", "metrics", "gates", "started", "ended"} <= set(
        stage
    )
    assert (shown["status"], stage["steps_done"], stage["metrics"]["loss"]["n"]) == ("done", 12, 12)
    assert shown["lineage"]["base"]["id"] == "lab-nano"
    assert fake.run.id in cli("runs").stdout and "gates passed" in cli("runs").stdout
    assert "1. sft: done, 12/12 steps" in cli("show", fake.run.id[:10]).stdout
    assert "attempt 1 from step 0" in cli("logs").stdout
    assert cli("attach").returncode == 0
    assert cli("rm", fake.run.id).returncode == 2  # nobody to ask
    assert cli("rm", fake.run.id, "--yes").returncode == 0
    assert not fake.run.path.exists() and "no runs yet" in cli("runs").stdout


def test_a_running_run_is_not_removed_and_not_resumed_twice(fake_run):
    fake = fake_run(hold=1)
    fake.supervise()
    fake.wait_step(1)
    done = cli("rm", fake.run.id, "--yes")
    assert done.returncode == 2 and "finetune-tui stop" in done.stderr
    done = cli("resume", fake.run.id)
    assert done.returncode == 2 and "is held by process" in done.stderr
    assert fake.run.path.exists()


def test_leaving_the_watcher_leaves_the_run(fake_run):
    import signal

    fake = fake_run(hold=1)
    process = fake.supervise()
    fake.wait_step(1)
    command = [sys.executable, "-P", "-m", "tui.cli", "attach", fake.run.id, "--headless"]
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
        watcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert fake.run.id in watcher.stdout.readline()
        watcher.send_signal(ending)
        rest, _ = watcher.communicate(timeout=20)
        assert ending != signal.SIGINT or "the run goes on" in rest
    fake.go()
    assert process.wait(60) == 0


def test_output_without_utf8_is_ascii(fake_run, tmp_path):
    fake = fake_run()
    fake.supervise(wait=True)
    environment = {**os.environ, "PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    command = [sys.executable, "-P", "-m", "tui.cli", "attach", fake.run.id]
    done = subprocess.run(command, capture_output=True, env=environment, timeout=60)
    assert done.returncode == 0, done.stderr
    done.stdout.decode("ascii")


# ---- compare, settings -----------------------------------------------------------------------------------------------------


def test_compare_prints_differences_and_gates_and_refuses_one_run(capsys):
    first = recorded_run(run_id="a-1")
    second = recorded_run(run_id="b-1")
    second.recipe.write_text(second.recipe.read_text().replace("beta: 0.1", "beta: 0.2"))
    assert main(["compare", "a-1", "b-1"]) == 0
    printed = capsys.readouterr().out
    assert "A  a-1  done" in printed and "B  b-1  done" in printed
    assert [line.split() for line in printed.splitlines() if "dpo.beta" in line] == [["2", "dpo.beta", "0.1", "0.2"]]
    assert any("dpo kl" in line and line.count("0.0445 n 400") == 2 for line in printed.splitlines())
    assert main(["compare", "a-1", "b-1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["recipe"] == {"2 dpo.beta": {"a-1": "0.1", "b-1": "0.2"}}
    assert next(row for row in told["gates"] if row["name"] == "kl")["runs"]["b-1"]["passed"] is True
    assert main(["compare", "a-1", "a-1"]) == 2
    assert "2 to 6 different runs" in capsys.readouterr().err and first.path.exists()


def test_the_settings_say_where_runs_are(tmp_path, monkeypatch, capsys, home):
    recorded_run(run_id="kept-elsewhere")
    monkeypatch.setenv("FINETUNE_TUI_CONFIG", str(tmp_path / "config"))
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "settings.toml").write_text(f'runs = "{home}"\nmousse = true\n')
    monkeypatch.delenv("FINETUNE_TUI_HOME")
    assert main(["runs"]) == 0
    said = capsys.readouterr()
    assert "kept-elsewhere" in said.out and "Did you mean `mouse`?" in said.err
    monkeypatch.setenv("FINETUNE_TUI_HOME", str(tmp_path / "another"))
    assert main(["runs"]) == 0
    assert "kept-elsewhere" not in capsys.readouterr().out, "the environment goes before the file"
