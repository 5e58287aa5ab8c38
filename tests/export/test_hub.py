"""Uploading: only when asked, what arrives at a hub on this machine, and the hub's refusals in words."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from engine.export import hub
from recipes.errors import InputError
from tests.export.upload_hub import UploadHub
from tui.cli import main


class PlayedHub:
    def __init__(self, refuses, at="whoami"):
        self.refuses, self.at = refuses, at

    def __call__(self):
        return self

    def _maybe(self, where):
        if self.at == where:
            raise self.refuses

    def whoami(self):
        self._maybe("whoami")
        return {"name": "me"}

    def create_repo(self, repo, **options):
        self._maybe("create_repo")


def refusal(code):
    response = SimpleNamespace(status_code=code, headers={}, request=None)
    return HfHubHTTPError(f"{code}", response=response)


@pytest.fixture
def uploads(monkeypatch):
    """huggingface_hub's own client, talking with a hub on this machine."""
    from huggingface_hub import constants

    hub = UploadHub()
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", hub.TOKEN)
    yield hub
    hub.close()


def test_what_arrives_at_the_hub_is_the_export_and_its_card(run, in_process, uploads, capsys):
    assert main(["export", run.id, "--to", "hub", "--repo", "me/small", "--stage", "1"]) == 0
    made = next(path for path in run.exports.iterdir() if not path.name.startswith("."))
    assert uploads.repos["me/small"]["visibility"] == "private" and uploads.messages == ["Upload by finetune-tui"]
    files = {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()}
    assert uploads.files == files and {"README.md", "adapter_model.safetensors", "adapter_config.json"} <= set(files)
    assert f"private at {uploads.url}/me/small" in capsys.readouterr().out
    card = uploads.files["README.md"].decode()
    assert "library_name: peft" in card and "| perplexity |" in card and "## Limits" in card
    assert uploads.TOKEN not in card + json.dumps({name: data.decode("latin-1") for name, data in files.items()})


def test_a_token_that_the_hub_does_not_know_sends_nothing(run, uploads, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    assert main(["export", run.id, "--to", "hub", "--repo", "me/small", "--stage", "1"]) == 2
    assert "does not know (401)" in capsys.readouterr().err and not uploads.repos and not run.exports.exists()


@pytest.mark.parametrize(
    "refuses, at, said",
    [
        (refusal(401), "whoami", "does not know .401.*hf auth login"),
        (refusal(403), "create_repo", "may not write to `me` .403"),
        (LocalTokenNotFoundError("none"), "whoami", "no token on this machine.*settings/tokens"),
        (ConnectionError("down"), "whoami", "no answer from the hub"),
    ],
)
def test_a_refusal_is_explained(refuses, at, said, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", PlayedHub(refuses, at))
    with pytest.raises(InputError, match=said):
        hub.ensure_allowed("me/small")
        hub.upload(tmp_path, "me/small")


def test_a_refusal_comes_before_anything_is_written(run, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.HfApi", PlayedHub(refusal(401)))
    assert main(["export", run.id, "--to", "hub", "--repo", "me/small"]) == 2
    assert main(["export", run.id, "--to", "hub"]) == 2 and "your-name/your-model" in capsys.readouterr().err
    assert main(["export", run.id, "--to", "hub", "--repo", "small"]) == 2
    assert not run.exports.exists()
