"""Uploading: only when asked, what is sent, and the hub's refusals in words. The hub itself is played at its client."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from engine.export import hub
from recipes.errors import InputError
from tui.cli import main


class PlayedHub:
    sent: list[tuple]

    def __init__(self, refuses=None, at="whoami"):
        self.sent, self.refuses, self.at = [], refuses, at

    def __call__(self):
        return self

    def _maybe(self, where):
        if self.refuses is not None and self.at == where:
            raise self.refuses

    def whoami(self):
        self._maybe("whoami")
        return {"name": "me"}

    def create_repo(self, repo, **options):
        self._maybe("create_repo")
        self.sent.append(("create", repo, options))
        return f"https://huggingface.co/{repo}"

    def upload_folder(self, repo_id, folder_path, **options):
        from pathlib import Path

        self.sent.append(("upload", repo_id, sorted(path.name for path in Path(folder_path).iterdir())))


def refusal(code):
    response = SimpleNamespace(status_code=code, headers={}, request=None)
    return HfHubHTTPError(f"{code}", response=response)


def test_an_upload_has_the_export_and_its_card(run, in_process, monkeypatch, capsys):
    played = PlayedHub()
    monkeypatch.setattr("huggingface_hub.HfApi", played)
    assert main(["export", run.id, "--to", "hub", "--repo", "me/small", "--stage", "1"]) == 0
    create, upload = played.sent
    assert create[:2] == ("create", "me/small") and create[2]["private"] is True
    assert upload[1] == "me/small" and {"README.md", "adapter_model.safetensors", "adapter_config.json"} <= set(
        upload[2]
    )
    assert "private at https://huggingface.co/me/small" in capsys.readouterr().out


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
