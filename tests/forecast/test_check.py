"""``finetune-tui check`` as it is typed: words, exit codes, JSON, and the recipe that fits."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from engine.forecast.duration import BASES
from engine.forecast.hardware import find_hardware
from engine.forecast.plan import anywhere, make_fit, plan
from engine.stages import foretelling
from recipes.load import load_recipe
from tui.cli import main
from tui.commands import check
from tui.view import plan as planned_words

BIG = """
name: big
model: meta-llama/Llama-3.1-8B
stages:
  - method: {method}
    data: {{source: lab/preferences.jsonl}}
    training: {training}
    batch_size: {batch_size}
"""


def cli(*words):
    """The command in this process, which has imported what it needs."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(["check", *words])
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def typed(*words):
    """The command as it is typed, in a process of its own."""
    command = [sys.executable, "-P", "-m", "tui.cli", "check", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture
def recipe(tmp_path):
    def make(name="big.yaml", method="dpo", training="full", batch_size=8, **changes):
        text = BIG.format(method=method, training=training, batch_size=batch_size)
        for old, new in changes.items():
            text = text.replace(old, new)
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return make


def test_dpo_of_all_weights_of_an_8b_does_not_fit_a_3090_and_is_made_to(recipe, tmp_path):
    asked = recipe()
    done = typed(asked, "--hardware", "rtx-3090", "--quick")
    assert done.returncode == 4, done.stderr
    assert "DOES NOT FIT" in done.stdout and "reference" in done.stdout and "ORPO" in done.stdout
    for told in ("checkpoints", "exported merged", "merging needs", "for comparison, a 1B model in 4 bit"):
        assert told in done.stdout
    fitted = str(tmp_path / "fits.yaml")
    done = cli(asked, "--hardware", "rtx-3090", "--quick", "--make-fit", "-o", fitted)
    assert done.returncode == 0 and "FITS" in done.stdout
    again = cli(fitted, "--hardware", "rtx-3090", "--quick", "--json")
    told = json.loads(again.stdout)
    assert again.returncode == 0 and told["stages"][0]["verdict"] == "fits"
    before, after = load_recipe(asked).recipe.stages[0], load_recipe(fitted).recipe.stages[0]
    assert after.method == "dpo" and after.training == "lora"
    assert after.batch_size * after.accumulation == before.batch_size * before.accumulation


def test_json_has_what_is_promised(recipe):
    done = cli(recipe(), "--hardware", "rtx-3090", "--quick", "--json")
    stage = json.loads(done.stdout)["stages"][0]
    assert done.returncode == 4 and stage["verdict"] == "does not fit" and stage["remedies"]
    assert {"allocated_mib", "reserved_mib", "process_mib", "low_mib", "high_mib", "tier", "parts"} <= set(
        stage["memory"]
    )
    assert {"method", "memory", "time_s", "available_mib", "verdict", "remedies"} <= set(stage)
    assert stage["available_mib"] < 24 * 1024


def test_the_printed_recipe_of_make_fit_is_a_recipe(recipe, tmp_path):
    done = cli(recipe(), "--hardware", "rtx-3090", "--quick", "--make-fit")
    assert done.returncode == 0 and done.stdout.startswith("# changed")
    (tmp_path / "printed.yaml").write_text(done.stdout)
    assert cli(str(tmp_path / "printed.yaml"), "--hardware", "rtx-3090", "--quick").returncode == 0


def test_what_fits_is_left_as_it_is(recipe):
    loaded = load_recipe(recipe(training="lora", batch_size=1))
    fitted, changed = make_fit(loaded, find_hardware("h200"), trace=False)
    assert changed == [] and fitted.recipe == loaded.recipe


def test_no_change_is_enough_for_a_card_that_is_far_too_small(recipe):
    fitted, why = make_fit(load_recipe(recipe()), find_hardware("m1-8gb"), trace=False)
    assert fitted is None or plan(fitted, find_hardware("m1-8gb"), trace=False)["fits"]
    asked = recipe(**{"Llama-3.1-8B": "Llama-3.1-70B"})
    fitted, why = make_fit(load_recipe(asked), find_hardware("rtx-3060-12gb"), trace=False)
    assert fitted is None and "smaller model" in why[0]
    assert cli(asked, "--hardware", "rtx-3060-12gb", "--quick", "--make-fit").returncode == 4


@pytest.mark.parametrize("name", ["rtx-3060-12gb", "rtx-3090", "rtx-4090", "t4", "m2-ultra-64gb", "a100-40gb"])
@pytest.mark.parametrize("training,batch_size", [("full", 8), ("lora", 12)])
def test_made_to_fit_means_that_check_says_so(name, training, batch_size, recipe):
    loaded = load_recipe(recipe(training=training, batch_size=batch_size))
    hardware = find_hardware(name)
    fitted, changed = make_fit(loaded, hardware, trace=False)
    if fitted is None:
        assert plan(loaded, hardware, trace=False)["stages"][0]["verdict"] != "fits"
        return
    assert plan(fitted, hardware, trace=False)["stages"][0]["verdict"] == "fits", changed
    stage = fitted.recipe.stages[0]
    assert stage.batch_size * stage.accumulation == batch_size


def test_hardware_from_a_file(recipe, tmp_path):
    (tmp_path / "card.yaml").write_text("name: my card\nkind: cuda\nmemory_mib: 200000\navailable_mib: 190000\n")
    done = cli(recipe(training="lora", batch_size=1), "--hardware", str(tmp_path / "card.yaml"), "--quick", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["hardware"] == {"name": "my card", "kind": "cuda", "available_mib": 190000}
    (tmp_path / "card.yaml").write_text("name: my card\nkind: cudda\n")
    done = cli(recipe(), "--hardware", str(tmp_path / "card.yaml"), "--quick")
    assert done.returncode == 2 and "Did you mean `cuda`" in done.stderr and "memory_mib" in done.stderr


def test_bad_input_is_told_with_exit_code_2(recipe):
    done = typed(recipe(), "--hardware", "rtx-309")
    assert done.returncode == 2 and "rtx-3090" in done.stderr
    done = cli(recipe(**{"Llama-3.1-8B": "Lama-3.1-8B"}), "--hardware", "t4", "--quick")
    assert done.returncode == 2 and "Did you mean `meta-llama/Llama-3.1-8B" in done.stderr
    done = cli(recipe(), "--hardware", "t4", "--quick", "--set", "stages.0.max_length=200000")
    assert done.returncode == 2 and "stages.0.max_length" in done.stderr and "131072" in done.stderr


def test_a_default_length_over_the_models_maximum_is_nobodys_mistake(recipe):
    asked = recipe(training="lora", **{"meta-llama/Llama-3.1-8B": "lab"})
    assert cli(asked, "--hardware", "t4", "--quick").returncode == 0
    done = cli(asked, "--hardware", "t4", "--quick", "--set", "stages.0.max_length=1024")
    assert done.returncode == 2 and "512" in done.stderr


def test_a_group_of_one_is_bad_input(recipe):
    done = cli(recipe(method="grpo", training="lora"), "--set", "stages.0.group_size=1", "--hardware", "t4", "--quick")
    assert done.returncode == 2 and "group_size" in done.stderr


def test_every_library_recipe_fits_this_machine():
    from recipes.load import library

    for name in library():
        done = cli(name, "--quick", "--json")
        assert done.returncode == 0, (name, done.stderr)
        for stage in json.loads(done.stdout)["stages"]:
            assert stage["verdict"] == "fits"


def test_each_method_says_why_it_differs_from_the_source(recipe):
    told = plan(load_recipe(recipe()), find_hardware("rtx-3090"), trace=False)["stages"][0]["source_case"]
    assert told["source_gb"] == 4.0 and 0.5 < told["ours_gb"] < 4 and told["why"]


def test_whatever_a_time_is_from_has_words():
    for words in (check.BASES, planned_words.BASES, foretelling.BASES):
        assert set(words) == set(BASES)


def test_a_recipe_for_anywhere_names_every_file_from_the_root(tmp_path, monkeypatch):
    """Data, held-out data, judges, a persona's files, prompt sets, verifiers: whatever names a file of the recipe's folder."""
    for name in ("rows.jsonl", "tone.yaml", "mine.py"):
        (tmp_path / name).write_text("")
    (tmp_path / "all.yaml").write_text(
        """\
name: all
model: lab-nano
suite: rows.jsonl
stages:
  - method: grpo
    data: {source: rows.jsonl, heldout: rows.jsonl}
    verifier: {kind: python, path: mine.py}
  - method: abliteration
    confirm_responsible_use: true
    harmful: {search: rows.jsonl}
    judge: tone.yaml
  - method: steering
    personas:
      warm:
        data: {source: rows.jsonl, heldout: lab/contrast-heldout.jsonl}
        search: rows.jsonl
        prompt: Be warm.
        opposite: Be formal.
        judge: tone.yaml
"""
    )
    text = anywhere(load_recipe(str(tmp_path / "all.yaml")))
    monkeypatch.chdir("/")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "all.yaml").write_text(text)
    again = load_recipe(str(tmp_path / "elsewhere" / "all.yaml"))
    for name, times in (("rows.jsonl", 6), ("tone.yaml", 2), ("mine.py", 1)):
        assert text.count(str(tmp_path / name)) == times, text
    assert "lab/contrast-heldout.jsonl" in text and anywhere(again) == text
