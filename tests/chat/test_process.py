"""`finetune-tui chat` and `blind` on a real run, in pipes, with real processes and real signals."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import time

import pytest

from engine.chat.messages import TUNED, Done, Failed, Ready, Say, Spoken, Stop, Turn, Turned
from engine.chat.process import ChatProcess
from engine.chat.room import Room
from engine.chat.session import Session, take_up
from engine.chat.settings import Settings
from tests.chat.conftest import chat_processes
from tests.kill.conftest import COMMAND, Real
from tests.small_run import copied

HARBOR = "Tell me about the harbor."


def gone(run):
    deadline = time.monotonic() + 15
    while chat_processes(run) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not chat_processes(run)


def lines(done):
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def talked(tiny):
    """What a chat with lines of every kind said; it is kept in the small run."""
    said = f"{HARBOR}\n/dial warm 2\n/regenerate\n/dial warmt 1\n/oops\n/temperature hot\n"
    words = ("chat", tiny.run.id, "--compare", "base", "--gauge", "kl", "--temperature", "0", "--max-tokens", "8")
    return tiny.command(*words, "--json", input=said)


def test_lines_in_and_replies_out(tiny, talked):
    assert talked.returncode == 0, talked.stderr
    rows = lines(talked)
    replies = [row for row in rows if "side" in row]
    assert len(replies) == 4 and {row["stage"] for row in replies} == {"3", "base"}
    tuned = [row for row in replies if row["side"] == "tuned"]
    assert tuned[0]["dials"]["warm"] == 1.0 and tuned[1]["dials"]["warm"] == 2.0
    assert tuned[1]["kl"] != tuned[0]["kl"]
    base = [row["text"] for row in replies if row["side"] == "compared"]
    assert base[0] == base[1], "the dials are the tuned side's alone"
    errors = [row["error"] for row in rows if "error" in row]
    assert "Did you mean `warm`?" in errors[0] and "`/oops`" in errors[1] and "0 (greedy) to 5" in errors[2]
    assert gone(tiny.run)

    session = take_up(tiny.run)
    assert [one.prompt for one in session.exchanges] == [HARBOR] and session.exchanges[0].attempt == 1
    assert session.wanted["warm"] == 2.0 and session.settings.max_tokens == 8 and session.compare == "base"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("chat", "--stage", "9"), "`9`; accepted: `base`, `1`"),
        (("chat", "--stage", "sfd"), "Did you mean `sft`?"),
        (("chat", "--dial", "cold=1"), "`cold`; accepted: `abliteration`, `warm`"),
        (("chat", "--temperature", "-1"), "`-1`; accepted: a number from 0"),
        (("chat", "--continue", "19990101"), "no chat `19990101`"),
        (("blind", "--against", "3"), "stage 3 on both sides"),
        (("blind", "--prompts", "no-such.jsonl"), "no-such.jsonl"),
    ],
)
def test_bad_input_is_told_with_exit_code_2_and_starts_nothing(words, says, tiny):
    command, *rest = words
    done = tiny.command(command, tiny.run.id, *rest, input="hello\n")
    assert done.returncode == 2 and says in done.stderr, done.stderr
    assert not chat_processes(tiny.run)


def test_a_stage_without_output_and_a_foreign_vector_are_told(tiny, tmp_path):
    import shutil

    from engine.runs.directory import RunDirectory

    copy = tmp_path / "home" / "runs" / "copy"
    shutil.copytree(tiny.run.path, copy)
    environment = {**tiny.environment, "FINETUNE_TUI_HOME": str(tmp_path / "home")}

    def chat(*words):
        return subprocess.run(
            [*COMMAND, "chat", "copy", *words],
            env=environment,
            capture_output=True,
            text=True,
            input="x\n",
            timeout=120,
        )

    adapter = next((copy / "stages").glob("01-*/output/adapter/adapter_model.safetensors"))
    own = adapter.read_bytes()
    adapter.write_bytes(own[:-4] + b"flip")  # as an adapter of another base with the same shapes would be
    done = chat()
    assert done.returncode == 2 and "the adapter that the run trained on `lab-nano`" in done.stderr, done.stderr
    adapter.write_bytes(own)
    vector = next((copy / "stages").glob("03-*/output/warm.safetensors"))
    vector.write_bytes(vector.read_bytes()[:-4] + b"flip")
    done = chat()
    assert done.returncode == 2 and "a file that has changed" in done.stderr
    shutil.rmtree(vector.parent)
    done = chat("--stage", "steering")
    assert (
        done.returncode == 2
        and "stage 3 (steering), which has no output yet; accepted: `base`, `1`, `2`" in done.stderr
    )
    for output in (copy / "stages").glob("*/output"):
        shutil.rmtree(output)
    done = chat()
    assert done.returncode == 2 and "no stage that is finished" in done.stderr
    assert gone(RunDirectory(copy))


class Talk:
    """A chat process of the test's own, with its events in order."""

    def __init__(self, run, stage="3", compare=""):
        self.events = queue.Queue()
        self.process = ChatProcess(run, stage, compare, self.events.put)

    def until(self, kind, seconds=60):
        while True:
            event = self.events.get(timeout=seconds)
            if isinstance(event, kind):
                return event
            assert not isinstance(event, Failed), event

    def say(self, **changes):
        conversations = {TUNED: [{"role": "user", "content": HARBOR}]}
        asked = {"turn": 0, "temperature": 1.5, "top_p": 1.0, "max_new_tokens": 400, "seed": 1} | changes
        self.process.send(Say(conversations=conversations, **asked))


def test_stop_dial_and_a_new_question_act_while_it_speaks_and_a_kill_is_told(tiny):
    talk = Talk(tiny.run)
    try:
        ready = talk.until(Ready)
        assert [dial.name for dial in ready.dials] == ["abliteration", "warm"] and ready.kl
        talk.say()
        talk.until(Spoken)
        talk.process.send(Turn("warm", -9.0))
        turned = talk.until((Turned, Done))
        assert turned == Turned("warm", -2.0), "turned while it spoke, and kept in its range"
        talk.process.send(Stop())
        assert talk.until(Done).ending == "stopped"
        talk.say(turn=1)
        talk.until(Spoken)
        talk.say(turn=2, max_new_tokens=2)
        assert (first := talk.until(Done)).turn == 1 and first.ending == "stopped"
        second = talk.until(Done)
        assert second.turn == 2 and second.ending in ("length", "end") and second.tokens <= 2
        os.kill(talk.process.pid, signal.SIGKILL)
        failed = talk.events.get(timeout=20)
        assert isinstance(failed, Failed) and failed.fatal and "SIGKILL" in failed.text
    finally:
        talk.process.close()
    assert gone(tiny.run)


def test_too_little_memory_is_said_before_anything_is_loaded(tiny, monkeypatch, capsys):
    from tui.commands.chat import room_or_word

    room = Room(9000.0, 8000.0, "the GPU", ("other-run",))
    assert not room.fits and "8.8 GiB, 7.8 GiB are free on the GPU beside other-run" in str(room)
    assert Room(9000.0, 10000.0, "the GPU", ()).fits and not Room(9000.0, 10000.0, "the GPU", ("other-run",)).fits
    monkeypatch.setattr("tui.commands.chat.room_for", lambda *_: room)
    monkeypatch.setattr("sys.stdin", open(os.devnull))
    session = Session(tiny.run, "3", "", Settings())
    assert not room_or_word(tiny.run, session, anyway=False) and "--anyway" in capsys.readouterr().err
    assert room_or_word(tiny.run, session, anyway=True)


TRAINING = """\
name: beside
model: lab-nano
threads: 1
stages:
  - method: sft
    data: {source: lab/domain.jsonl, heldout: lab/domain-heldout.jsonl}
    steps: 5000
    batch_size: 2
    max_length: 64
    replay: {share: 0.0}
    evaluation: {max_new_tokens: 4, prompts: 4, suite_n: 1, samples: 0}
"""


class App:
    """``finetune-tui chat`` that stays, with its lines."""

    def __init__(self, environment, *words):
        self.process = subprocess.Popen(
            [*COMMAND, "chat", *words], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def say(self, *said):
        self.process.stdin.write("".join(f"{line}\n" for line in said))
        self.process.stdin.flush()

    def heard(self):
        return json.loads(self.process.stdout.readline())

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()
        self.process.stdin.close()


def test_beside_a_real_training_a_chat_is_taken_up_and_a_killed_app_leaves_no_model(
    tiny, talked, tmp_path, monkeypatch
):
    """Beside a training less memory is enough for a chat, and it is named."""
    from dataclasses import replace

    from engine.chat import room
    from engine.chat.places import find_place

    home = tmp_path / "beside"  # a home of its own: the other tests find the small run alone
    run = copied(tiny.run, home)
    monkeypatch.setenv("FINETUNE_TUI_HOME", str(home))
    sides, machine = [find_place(run, "3")], room.this_machine()
    alone = room.room_for(run, sides)
    beside = Real(home, TRAINING)
    beside.start()
    try:
        beside.wait(lambda state: state.stages and state.stages[0].steps_done >= 1)
        found = room.room_for(run, sides)
        assert alone.training == () and found.training == (beside.run.id,) and found.need_mib == alone.need_mib
        monkeypatch.setattr(room, "this_machine", lambda: replace(machine, available_mib=1.1 * alone.need_mib))
        tight = room.room_for(run, sides)
        assert not tight.fits and f"beside {beside.run.id}, which is at work and may grow" in str(tight)
        app = App(beside.environment, run.id, "--continue", "--anyway", "--json")
        try:
            app.say("And the cave?")
            both = {row["side"]: row for row in (app.heard(), app.heard())}
            assert all(row["turn"] == 1 and row["tokens"] <= 8 for row in both.values())
            assert both["tuned"]["dials"]["warm"] == 2.0 and both["compared"]["stage"] == "base"
            assert beside.status() == "running"
            (model,) = chat_processes(run)
            spent = model.cpu_times().user
            app.say("/max_tokens 400", "/temperature 1.5", HARBOR)
            deadline = time.monotonic() + 60
            while model.cpu_times().user < spent + 0.2:
                assert time.monotonic() < deadline, "it speaks"
                time.sleep(0.02)
            assert chat_processes(run)
        finally:
            app.kill()
        assert gone(run)
    finally:
        beside.command("stop", beside.run.id)
        beside.wait(lambda state: not beside.stages() and beside.supervisor() is None, 60)


def test_blind_choices_are_kept_taken_up_and_can_be_trained_on(tiny):
    words = ("blind", tiny.run.id, "--against", "base", "--prompts", "general", "-n", "6", "--temperature", "1.5")
    words = (*words, "--max-tokens", "12", "--json")
    first = lines(tiny.command(*words, input="1\n2\nu\nq\n"))
    assert first[-1]["tuned"] + first[-1]["compared"] == 1 and not first[-1]["finished"]
    done = tiny.command(*words, input="1\n" * 6)
    assert done.returncode == 0, done.stderr
    result = lines(done)[-1]
    assert result["finished"] and result["tuned"] + result["compared"] + result["same"] == 6
    assert result["low"] <= result["share"] <= result["high"]
    shown = [row for row in lines(done) if "pair" in row]
    rows = [json.loads(line) for line in open(result["preferences"])]
    assert len(rows) == result["tuned"] + result["compared"]
    assert {row["chosen"] for row in rows} >= {row["1"] for row in shown}, "the left ones were chosen"
    read = json.loads(tiny.command("data", result["preferences"], "--json").stdout)
    assert (
        read["form"]["form"] == "preference" if isinstance(read.get("form"), dict) else "preference" in json.dumps(read)
    )
    assert gone(tiny.run)
