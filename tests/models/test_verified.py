"""The files of a lineage are the ones that were written down, and a large one is not read twice for nothing."""

from __future__ import annotations

import hashlib
import json
import os

import pytest

from engine.models.lineage import Adapter, Base, Lineage
from engine.models.verified import KEPT, verify_lineages
from recipes.errors import InputError


@pytest.fixture
def lineage(tmp_path):
    base, adapter = tmp_path / "base", tmp_path / "stages" / "01-sft" / "output" / "adapter"
    for path, content in ((base / "model.safetensors", b"base"), (adapter / "adapter_model.safetensors", b"own")):
        path.parent.mkdir(parents=True)
        path.write_bytes(content)
    files = {"model.safetensors": hashlib.sha256(b"base").hexdigest()}
    own = Adapter("stages/01-sft/output/adapter", hashlib.sha256(b"own").hexdigest())
    return Lineage(Base("owner/model", str(base), None, files), own)


def read_by(lineage, folder):
    names = []
    verify_lineages([lineage, lineage], folder, names.append)
    return names


def test_every_file_is_read_once_and_again_when_it_changed(lineage, tmp_path):
    assert read_by(lineage, tmp_path) == ["model.safetensors", "adapter_model.safetensors"]
    assert read_by(lineage, tmp_path) == []
    weights = tmp_path / "base" / "model.safetensors"
    facts = os.stat(weights)
    weights.write_bytes(b"esab")
    os.utime(weights, ns=(facts.st_atime_ns, facts.st_mtime_ns))  # whoever sets the clock back is found by the inode's
    with pytest.raises(InputError, match="another file.*the base `owner/model` that the run started from"):
        read_by(lineage, tmp_path)
    with pytest.raises(InputError, match="another file"):  # and what is kept of it does not make it right
        read_by(lineage, tmp_path)
    weights.write_bytes(b"base")
    (tmp_path / KEPT).write_text("[not ours")
    assert read_by(lineage, tmp_path) == ["model.safetensors", "adapter_model.safetensors"]
    assert set(json.loads((tmp_path / KEPT).read_text())) == {
        str(weights),
        str(tmp_path / lineage.adapter.path / "adapter_model.safetensors"),
    }


def test_an_adapter_of_another_base_and_a_missing_file_are_named(lineage, tmp_path):
    path = tmp_path / lineage.adapter.path / "adapter_model.safetensors"
    path.write_bytes(b"another base's")
    with pytest.raises(InputError, match="adapter_model.*another file.*the adapter that the run trained on"):
        read_by(lineage, tmp_path)
    path.unlink()
    with pytest.raises(InputError, match="adapter_model.*no such file"):
        read_by(lineage, tmp_path)
