"""Data sets of the hub: which files are the rows, fetched from a hub on this machine that cuts, lies and refuses, by the
command as one types it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.data.hub import data_files_of, there
from engine.models.hub_files import RemoteFile, Repository
from recipes.errors import InputError
from recipes.resources import HubDataset, hub_dataset, resolve_source
from tests.models.hub import COMMIT, Hub

ROWS = [{"prompt": f"what is {n} plus {n}", "completion": f"it is {2 * n}, my friend {n}"} for n in range(150)]
TRAIN = "data/train-00000-of-00001.parquet"


def parquet(rows):
    import pyarrow
    import pyarrow.parquet

    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), sink)
    return sink.getvalue()


def json_lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    hub = Hub(
        {TRAIN: parquet(ROWS), "data/test-00000-of-00001.parquet": parquet(ROWS[:30]), "README.md": b"# rows"},
        large={TRAIN},
    )
    for name, value in {
        "HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "0", "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "FINETUNE_TUI_RETRY_SECONDS": "0.1,0.1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    yield hub
    hub.close()


def command(*words, **environment):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tui.cli", *words], env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


# ---- what a word means -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("owner/name", ("owner/name", None, None)),
        ("hf:owner/name", ("owner/name", None, None)),
        ("owner/name@v1.2", ("owner/name", "v1.2", None)),
        ("owner/name:data/test-*", ("owner/name", None, "data/test-*")),
        ("owner/na.me-1@main:one/*.parquet", ("owner/na.me-1", "main", "one/*.parquet")),
        ("folder/name", None),
        ("hf:folder/name", ("folder/name", None, None)),
        ("owner/rows.jsonl", None),
        ("lab/domain.jsonl", None),
        ("rows.jsonl", None),
        ("a/b/c", None),
        ("/owner/name", None),
        ("../name", None),
    ],
)
def test_a_word_is_a_data_set_only_where_it_can_be_nothing_else(word, meant, tmp_path):
    (tmp_path / "folder").mkdir()
    found = hub_dataset(word, tmp_path)
    assert (found and (found.repo, found.revision, found.files)) == meant


def files(*names):
    return [RemoteFile(name, 1, None, None) for name in names]


def chosen(word, *names):
    asked = HubDataset(word, *word.partition(":")[::2][:1], None, word.partition(":")[2] or None)
    return [file.name for file in data_files_of(asked, files(*names), Repository("owner/name", None, "dataset"))]


def test_the_training_split_is_taken_and_nothing_about_the_data():
    shards = ("data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet")
    everything = (*shards, "data/test-00000-of-00001.parquet", "README.md", "dataset_infos.json", ".gitattributes")
    assert chosen("owner/name", *everything) == list(shards)
    assert chosen("owner/name:data/test-*", *everything) == ["data/test-00000-of-00001.parquet"]
    assert chosen("owner/name", "rows.jsonl", "LICENSE.txt") == ["rows.jsonl"]
    assert chosen("owner/name", "notes.txt") == ["notes.txt"]
    assert chosen("owner/name:big", "big/a.csv", "small/a.csv") == ["big/a.csv"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("big/train.jsonl", "small/train.jsonl"), "`owner/name:big/train.jsonl`, `owner/name:small/train.jsonl`"),
        (("one/a-0-of-2.parquet", "one/a-1-of-2.parquet", "b.csv"), "`owner/name:one/a*.parquet`, `owner/name:b.csv`"),
        (("pytorch_model.bin", "config.yaml"), "pytorch_model.bin, config.yaml"),
        ((), "no files"),
    ],
)
def test_several_sets_of_rows_are_never_mixed_and_none_is_said(names, said):
    with pytest.raises(InputError) as error:
        chosen("owner/name", *names)
    assert said in str(error.value)


def test_a_file_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(InputError) as error:
        chosen("owner/name:data/tets.jsonl", "data/test.jsonl", "data/train.jsonl")
    assert "Did you mean `owner/name:data/test.jsonl`?" in str(error.value)


# ---- fetched -----------------------------------------------------------------------------------------------------------


def test_a_data_set_is_fetched_verified_looked_over_and_then_here_without_network(hub, tmp_path):
    hub.lies, hub.cuts = {TRAIN: 1}, {TRAIN: 1}
    code, out, error = command("data", "owner/name", "--heldout", "owner/name:data/test-*", "--json")
    found = json.loads(out)
    assert code == 2 and "30 of 30 held-out rows" in error, "they are among the training rows, and that is found"
    assert found["rows"] == 150 and found["reading"]["form"] == "conversation" and found["files"] == 1
    asked = HubDataset("owner/name", "owner/name")
    kept = json.loads((asked.folder / ".fetched.json").read_text())
    assert kept["commit"] == COMMIT and list(kept["sha256"]) == [TRAIN]
    assert resolve_source("owner/name", tmp_path) == asked.folder and there(asked)
    hub.close()
    code, out, _ = command("data", "owner/name", HF_HUB_OFFLINE="1")
    assert code == 0 and "150 rows" in out
    for blob in Path(os.environ["HF_HUB_CACHE"]).glob("datasets--*/blobs/*"):
        blob.unlink()  # somebody emptied the cache
    assert not there(asked)
    code, _, error = command("data", "owner/name", HF_HUB_OFFLINE="1")
    assert code == 2 and "HF_HUB_OFFLINE" in error and "not on this machine" in error


def test_a_run_fetches_what_its_recipe_names(hub, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "name: mine\nmodel: lab-nano\nstages:\n  - method: sft\n    data: {source: owner/name}\n    replay: {share: 0}\n"
    )
    code, out, _ = command("check", str(recipe), "--json", "--quick")
    assert not any(path.endswith(".parquet") for _, path, _ in hub.requests), "a forecast fetches nothing"
    code = subprocess.run(
        [sys.executable, "-c", "import sys; from engine.runs.create import create_run; from recipes.load import load_recipe; "
         "print(create_run(load_recipe(sys.argv[1])).prepared[0].rows)", str(recipe)],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert code.stdout.strip() == "135", code.stderr


@pytest.mark.parametrize(
    ("refusal", "said"), [((404, "RepoNotFound"), "does not know"), ((403, "GatedRepo"), "asks for its licence")]
)
def test_refusals_are_explained_with_the_page(refusal, said, hub):
    hub.refuse = refusal
    code, _, error = command("data", "owner/name")
    assert code == 2 and said in error and f"{hub.url}/datasets/owner/name" in error


def test_a_hub_that_cannot_be_reached_is_said(hub):
    hub.close()
    code, _, error = command("data", "owner/name")
    assert code == 2 and "could not give" in error and "Traceback" not in error
