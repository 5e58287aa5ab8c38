"""Phase 0 against a hub on this machine that cuts, stalls, lies and refuses: the real process, the real downloader."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from engine.runs.child import Child
from engine.runs.directory import RunDirectory
from engine.runs.events import AlertEvent, PhaseEvent
from engine.runs.exitcodes import BAD_INPUT, DISK_FULL, DONE, FAILED, PAUSED
from recipes.resources import resolve_model
from tests.models.hub import COMMIT, Hub

WEIGHTS = "model.safetensors"


@pytest.fixture
def hub():
    nano = resolve_model("lab-nano", Path("."))
    files = {path.name: path.read_bytes() for path in nano.iterdir()}
    files |= {"README.md": b"# nano", "pytorch_model.bin": b"pickle", "original/model.safetensors": b"another copy"}
    hub = Hub(files, large={WEIGHTS, "tokenizer.json"})
    yield hub
    hub.close()


@pytest.fixture
def fetch(hub, tmp_path, monkeypatch):
    run = RunDirectory(tmp_path / "run")
    run.path.mkdir()
    recipe = "name: x\nmodel: owner/tiny\nstages:\n  - method: sft\n    data: {source: a.jsonl}\n"
    run.recipe.write_text(recipe)
    for name, value in {
        "HF_ENDPOINT": hub.url,
        "HF_HUB_CACHE": str(tmp_path / "cache"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "HF_TOKEN": "hf_secretsecretsecret",
        "FINETUNE_TUI_RETRY_SECONDS": "0.1,0.1",
    }.items():
        monkeypatch.setenv(name, value)

    def go(pause_at_start=False):
        command = [sys.executable, "-P", "-m", "engine.models.fetch", str(run.path)]
        child = Child(command, run.path, tmp_path / "fetch.log", 1, None, offline=False)
        if pause_at_start:
            child.send({"command": "pause"})
        events = []
        while child.running():
            events += child.receive(0.05)
        events += child.rest()
        output = (tmp_path / "fetch.log").read_text()
        assert "hf_secret" not in output and not any("hf_secret" in str(event) for event in events)
        return child.result().code, events, run

    return go


def alerts(events):
    return " ".join(event.text for event in events if isinstance(event, AlertEvent))


def check(run, hub):
    model = json.loads(run.model.read_text())
    assert model["revision"] == COMMIT and model["id"] == "owner/tiny"
    for name in model["files"]:
        assert (Path(model["path"]) / name).read_bytes() == hub.files[name]
    assert WEIGHTS in model["files"] and "config.json" in model["files"]
    assert not {"README.md", "pytorch_model.bin"} & set(model["files"])
    assert "hf_secret" not in run.model.read_text()


def test_a_model_is_fetched_verified_and_told(fetch, hub):
    code, events, run = fetch()
    assert code == DONE
    check(run, hub)
    phases = [event for event in events if isinstance(event, PhaseEvent)]
    assert phases[0].done == 0 and phases[-1].done == phases[-1].total > 800_000 and phases[-1].unit == "bytes"
    assert any(value == "Bearer hf_secretsecretsecret" for value in hub.authorizations)


def test_a_cut_transfer_goes_on_where_it_was(fetch, hub):
    hub.files[WEIGHTS] = bytes(range(256)) * 180_000  # the downloader writes in pieces of 10 MB: two whole ones arrive
    hub.cuts = {WEIGHTS: 2}
    code, events, run = fetch()
    assert code == DONE
    check(run, hub)
    ranges = [asked for command, path, asked in hub.requests if command == "GET" and path.endswith(WEIGHTS)]
    assert len(ranges) == 3 and ranges[0] is None and all(ranges[1:])  # half, then the rest of it, not from the start


def test_a_stall_times_out_and_goes_on(fetch, hub):
    hub.stalls = {WEIGHTS: 1}
    code, _, run = fetch()
    assert code == DONE
    check(run, hub)


def test_a_lie_about_the_contents_is_found_and_fetched_again(fetch, hub):
    hub.lies = {WEIGHTS: 1, "config.json": 1}
    code, events, run = fetch()
    assert code == DONE and "damaged" in alerts(events)
    check(run, hub)


def test_a_server_that_goes_on_lying_is_refused(fetch, hub):
    hub.lies = {WEIGHTS: 99}
    code, events, run = fetch()
    assert code == BAD_INPUT and "another sha256" in alerts(events) and not run.model.exists()
    hub.lies = {}
    assert fetch()[0] == DONE  # the damaged file was not kept
    check(run, hub)


@pytest.mark.parametrize(
    "refusal, said",
    [
        ((401, "RepoNotFound"), "log in"),
        ((403, "GatedRepo"), "accept"),
        ((401, "GatedRepo"), "accept"),
        ((404, "RepoNotFound"), "does not know"),
        ((403, ""), "refuses (403)"),
    ],
)
def test_refusals_are_explained_with_the_page(refusal, said, fetch, hub):
    hub.refuse = refusal
    code, events, run = fetch()
    text = alerts(events)
    assert code == BAD_INPUT and said in text and f"{hub.url}/owner/tiny" in text and "HF_TOKEN" in text
    assert not run.model.exists()


def test_pickled_weights_are_not_taken(fetch, hub):
    del hub.files[WEIGHTS]
    code, events, _ = fetch()
    assert code == BAD_INPUT and "pickled" in alerts(events) and "pytorch_model.bin" in alerts(events)


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(fetch, hub, monkeypatch):
    real = hub.listing
    hub.listing = lambda model: (
        real(model)
        | {  # a model of a petabyte
            "siblings": [
                {**entry, "size": 10**15} if entry["rfilename"] == WEIGHTS else entry
                for entry in real(model)["siblings"]
            ]
        }
    )
    code, events, _ = fetch()
    assert code == DISK_FULL and "GiB are free" in alerts(events)
    assert not any(path.endswith(WEIGHTS) for _, path, _ in hub.requests)


def test_a_hub_that_cannot_be_reached_is_given_up_with_the_reason(fetch, hub):
    hub.close()
    code, events, _ = fetch()
    assert code == FAILED and "trying again" in alerts(events) and "ConnectError" in alerts(events)


def test_a_pause_keeps_what_has_arrived(fetch, hub):
    code, _, run = fetch(pause_at_start=True)
    assert code in (PAUSED, DONE)  # a fast machine may have everything before the word arrives
    assert fetch()[0] == DONE
    check(run, hub)
    assert os.path.exists(run.model)
