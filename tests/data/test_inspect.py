"""What `finetune-tui data` says of good data: its form in every spelling, its flaws, whom it serves; in bounded memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys

import pytest

from engine.data.duplicates import Near, Seen
from engine.data.inspect import inspect
from engine.data.lengths import Sample, token_lengths
from engine.data.readings import readings
from engine.data.rows import read_rows
from recipes.errors import InputError
from recipes.resources import assets_folder
from tests.tui.test_cli import cli

LAB = assets_folder() / "lab" / "data"


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def verdicts(found):
    return {item.method: item.verdict for item in found.serves}


CHAT = [("user", "q"), ("assistant", "a")]
# spelling: (row, form, columns by our names)
SPELLINGS = {
    "prompt and completion": ({"prompt": "q", "completion": "a"}, "conversation", {"prompt": "prompt", "completion": "completion"}),
    "prompt and response": ({"prompt": "q", "response": "a"}, "conversation", {"prompt": "prompt", "completion": "response"}),
    "query and reply": ({"Query": "q", "Reply": "a"}, "conversation", {"prompt": "Query", "completion": "Reply"}),
    "alpaca": ({"instruction": "q", "input": "x", "output": "a"}, "conversation", {"instruction": "instruction", "output": "output"}),
    "dolly": ({"instruction": "q", "context": "", "response": "a", "category": "c"}, "conversation",
              {"instruction": "instruction", "output": "response"}),
    "messages": ({"messages": [{"role": r, "content": t} for r, t in CHAT]}, "conversation", {"messages": "messages"}),
    "sharegpt": ({"conversations": [{"from": {"user": "human", "assistant": "gpt"}[r], "value": t} for r, t in CHAT]},
                 "conversation", {"conversations": "conversations"}),
    "a dialogue": ({"id": 7, "dialogue": [{"role": r, "content": t} for r, t in CHAT]}, "conversation", {"messages": "dialogue"}),
    "with a system prompt": ({"messages": [{"role": "system", "content": "s"}, *({"role": r, "content": t} for r, t in CHAT)]},
                             "conversation", {"messages": "messages"}),
    "with tool turns": ({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "call"},
                                      {"role": "tool", "content": "42"}, {"role": "assistant", "content": "a"}]},
                        "conversation", {"messages": "messages"}),
    "pairs": ({"prompt": "q", "chosen": "a", "rejected": "b"}, "preference",
              {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}),
    "pairs under other names": ({"question": "q", "better": "a", "worse": "b"}, "preference",
                                {"prompt": "question", "chosen": "better", "rejected": "worse"}),
    "whole conversations as pairs": ({
        "chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}],
        "rejected": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "b"}]}, "preference",
        {"chosen": "chosen", "rejected": "rejected"}),
    "pairs with scores": ({"prompt": "q", "chosen": "a", "rejected": "b", "chosen_score": 4, "rejected_score": 1}, "preference",
                          {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected", "score_chosen": "chosen_score",
                           "score_rejected": "rejected_score"}),
    "a question and its answer": ({"question": "q", "answer": "4"}, "question", {"question": "question", "answer": "answer"}),
    "a problem and its solution": ({"problem": "q", "solution": "4"}, "question", {"prompt": "problem", "answer": "solution"}),
    "an answer with steps": ({"prompt": "q", "answer": 4, "steps": ["2 + 2 = 4"]}, "question",
                             {"prompt": "prompt", "answer": "answer", "steps": "steps"}),
    "a question with context": ({"question": "q", "context": "c", "answer": "4"}, "question",
                                {"question": "question", "answer": "answer"}),
    "contrast": ({"prompt": "q", "positive": "a", "negative": "b"}, "contrast",
                 {"prompt": "prompt", "positive": "positive", "negative": "negative"}),
    "prompts": ({"prompt": "q"}, "prompt", {"prompt": "prompt"}),
}  # fmt: skip


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_form_is_told_in_every_spelling(spelling, tmp_path):
    row, form, columns = SPELLINGS[spelling]
    found = inspect(write(tmp_path / "a.jsonl", [row, row | {"other": 1}]))
    assert (found.reading.form, found.reading.columns) == (form, columns)
    assert found.problems == [] and found.rows == 2
    exact = all(ours == theirs for ours, theirs in list(columns.items())[: found.reading.needed])
    assert (found.reading.confidence == 1.0) == exact


def test_what_is_equally_good_is_asked_and_a_word_decides(tmp_path):
    """UltraFeedback's columns: pairs and conversations in one file."""
    pair = {"prompt": "q", "chosen": "a", "rejected": "b", "messages": [{"role": r, "content": t} for r, t in CHAT]}
    path = write(tmp_path / "a.jsonl", [pair] * 3)
    with pytest.raises(InputError, match="two readings.*--method"):
        inspect(path)
    assert inspect(path, method="dpo").reading.form == "preference"
    assert inspect(path, method="sft").reading.layout == "messages"
    assert inspect(path, given={"completion": "chosen"}).reading.columns == {"prompt": "prompt", "completion": "chosen"}


def test_columns_that_are_named_are_not_guessed(tmp_path):
    path = write(tmp_path / "a.jsonl", [{"Frage": "q", "Antwort": "a", "Note": "b"}] * 2)
    with pytest.raises(InputError, match="columns.*--columns"):
        inspect(path)
    found = inspect(path, given={"prompt": "Frage", "completion": "Antwort"})
    assert found.reading.confidence == 1.0 and found.reading.renamed() == {"prompt": "Frage", "completion": "Antwort"}
    with pytest.raises(InputError, match="no column `frage`.*Did you mean `Frage`"):
        inspect(path, given={"prompt": "frage", "completion": "Antwort"})
    with pytest.raises(InputError, match="found `promt`.*Did you mean `prompt`"):
        inspect(path, given={"promt": "Frage"})


def test_what_the_reading_says_works_in_a_recipe(tmp_path):
    """The `columns:` that is shown, pasted into a recipe, makes a run's preparation read the same rows."""
    from engine.data.prepare import load_conversations, prepare
    from recipes.load import load_recipe

    path = write(tmp_path / "a.jsonl", [{"query": f"q{i}", "reply": f"a{i}"} for i in range(30)])
    columns = json.dumps(inspect(path).reading.renamed())
    (tmp_path / "r.yaml").write_text(
        "name: x\nmodel: lab-nano\nstages:\n  - method: sft\n    replay: {share: 0.0}\n"
        f"    data: {{source: a.jsonl, columns: {columns}}}\n"
    )
    prepared = prepare(load_recipe(str(tmp_path / "r.yaml")), 0, tmp_path / "out")
    assert prepared.rows + prepared.heldout == 30
    assert load_conversations(tmp_path / "out" / "train.jsonl")[0].messages[0]["content"].startswith("q")


# ---- formats -----------------------------------------------------------------------------------------------------------

ROWS = [{"prompt": f'question {i}, "quoted"\nand é', "completion": f"answer {i}"} for i in range(50)]


def as_format(folder, kind):
    import csv

    path = folder / f"rows.{kind}"
    if kind in ("jsonl", "ndjson"):
        write(path, ROWS)
    elif kind == "json":
        path.write_text(json.dumps(ROWS, indent=1, ensure_ascii=False), encoding="utf-8-sig")
    elif kind in ("csv", "tsv"):
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, ["prompt", "completion"], delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(ROWS)
    elif kind == "parquet":
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("kind", ["jsonl", "ndjson", "json", "csv", "tsv", "parquet"])
def test_every_format_gives_the_same_rows(kind, tmp_path):
    path = as_format(tmp_path, kind)
    assert [row for _, _, row in read_rows(path)] == ROWS
    assert inspect(path).rows == 50


def test_json_lines_under_a_json_name_and_lists_of_any_layout(tmp_path):
    path = as_format(tmp_path, "jsonl").rename(tmp_path / "lines.json")
    assert [row for _, _, row in read_rows(path)] == ROWS
    for indent in (None, 4):
        path.write_text(json.dumps(ROWS, indent=indent))
        assert [row for _, _, row in read_rows(path)] == ROWS
    path.write_text(json.dumps(ROWS[0]))
    assert [row for _, _, row in read_rows(path)] == ROWS[:1]


def test_rows_of_a_list_have_their_lines(tmp_path):
    (tmp_path / "a.json").write_text('[\n {"prompt": "a"},\n\n {"prompt":\n "b"}, {"prompt": "c"}]')
    assert [line for _, line, _ in read_rows(tmp_path / "a.json")] == [2, 4, 5]


def test_lists_longer_than_what_is_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.data.json_stream.CHUNK", 7)
    for indent in (None, 1):
        (tmp_path / "a.json").write_text(json.dumps(ROWS, indent=indent, ensure_ascii=False), encoding="utf-8")
        assert [row for _, _, row in read_rows(tmp_path / "a.json")] == ROWS


def test_a_directory_and_plain_text(tmp_path):
    folder = tmp_path / "many"
    folder.mkdir()
    as_format(folder, "jsonl")
    as_format(folder, "csv")
    (folder / "README.txt").write_text("about these files")
    (folder / ".cache").mkdir()
    as_format(folder / ".cache", "jsonl")
    found = inspect(folder)
    assert (found.files, found.rows, found.duplicates) == (2, 100, 50)
    (tmp_path / "story.txt").write_text("One\nline.\n\n\nTwo.\n")
    assert list(read_rows(tmp_path / "story.txt")) == [
        (str(tmp_path / "story.txt"), 1, {"text": "One\nline."}), (str(tmp_path / "story.txt"), 5, {"text": "Two."}),
    ]  # fmt: skip


# ---- checks ------------------------------------------------------------------------------------------------------------


def test_the_labs_data_serve_their_methods():
    ready = {
        "domain": {"sft"}, "preferences": {"dpo", "orpo", "cpo"}, "contrast": {"steering"},
        "chains": {"sft", "grpo", "rlvr", "calibration", "anti_hallucination"},
        "questions": {"sft", "grpo", "calibration", "anti_hallucination"}, "general": set(),
    }  # fmt: skip
    for name, methods in ready.items():
        found = inspect(LAB / f"{name}.jsonl")
        assert {method for method, verdict in verdicts(found).items() if verdict == "ready"} == methods, name
        assert verdicts(found)["abliteration"] == "none needed" and found.problems == []
    assert inspect(LAB / "questions.jsonl").unanswerable == 750


@pytest.mark.parametrize(
    "count, method, verdict", [(99, "sft", "thin"), (100, "sft", "ready"), (999, "dpo", "thin"), (1000, "dpo", "ready")]
)
def test_the_cards_minimums(count, method, verdict, tmp_path):
    rows = [{"prompt": f"q{i}", "completion": f"a{i}", "chosen": f"c{i}", "rejected": f"r{i}"} for i in range(count)]
    found = inspect(write(tmp_path / "a.jsonl", rows), method=method)
    assert verdicts(found)[method] == verdict


def test_repetitions_do_not_count(tmp_path):
    rows = [{"prompt": f"q{i % 60}", "completion": f"a{i % 60}"} for i in range(120)]
    found = inspect(write(tmp_path / "a.jsonl", rows))
    assert (found.rows, found.duplicates, verdicts(found)["sft"]) == (120, 60, "thin")
    assert any("line 61 repeats line 1" in warning for warning in found.warnings)


def test_near_repetitions_are_found(tmp_path):
    chance = random.Random(0)
    texts = [" ".join(chance.choices([f"word{n}" for n in range(500)], k=60)) for _ in range(100)]
    rows = [{"prompt": f"{i}", "completion": text} for i, text in enumerate(texts)]
    rows += [{"prompt": f"new {i}", "completion": texts[i] + " and no more"} for i in range(10)]
    found = inspect(write(tmp_path / "a.jsonl", rows))
    assert (found.duplicates, found.near_duplicates) == (0, 10)
    assert any("line 101 is nearly line 1" in warning for warning in found.warnings)


def test_pairs_that_teach_nothing_or_the_wrong_thing(tmp_path):
    rows = [{"prompt": f"q{i}", "chosen": "long " * 9 + f"{i}", "rejected": f"no {i}", "score_chosen": 6, "score_rejected": 5 - i % 2 * 5}
            for i in range(40)]  # fmt: skip
    rows += [
        {"prompt": f"s{i}", "chosen": "same", "rejected": "same ", "score_chosen": 1, "score_rejected": 1}
        for i in range(3)
    ]
    found = inspect(write(tmp_path / "a.jsonl", rows))
    assert (found.same_sides, found.scored) == (3, 40) and found.chosen_longer == 1.0
    assert found.gap == pytest.approx((20 * 1 + 20 * 6) / 40 / 6)
    assert any("chosen side is the longer one in 100%" in warning for warning in found.warnings)
    for row in rows:
        row |= {
            "score_chosen": 5.1 if row["prompt"] != "q0" else 10,
            "score_rejected": 5.0 if row["prompt"] != "q1" else 0,
        }
    found = inspect(write(tmp_path / "b.jsonl", rows * 1))
    assert found.gap < 0.15 and any("preference gap" in warning for warning in found.warnings)


def test_leakage(tmp_path):
    train = write(tmp_path / "a.jsonl", [{"prompt": f"q{i}", "completion": f"a{i}"} for i in range(50)])
    clean = write(tmp_path / "clean.jsonl", [{"prompt": f"other {i}", "completion": f"a{i}"} for i in range(30)])
    found = inspect(train, heldout=clean)
    assert (found.leakage.rows, found.leakage.prompts, found.problems) == (0, 0, [])
    leaky = write(tmp_path / "leaky.jsonl", [
        {"messages": [{"role": "user", "content": f"q{i}"}, {"role": "assistant", "content": f"{'a' if i < 3 else 'x'}{i}"}]}
        for i in range(10)
    ])  # fmt: skip
    found = inspect(train, heldout=leaky)
    assert (found.leakage.rows, found.leakage.prompts, found.leakage.first) == (3, 10, 1)
    assert "3 of 10 held-out rows" in str(found.problems[0]) and str(leaky) in str(found.problems[0])
    assert any("7 more held-out prompts" in warning for warning in found.warnings)
    write(tmp_path / "broken.jsonl", [{"prompt": "q", "completion": "a"}, {"prompt": "q"}])
    with pytest.raises(InputError, match="broken.jsonl, line 2"):
        inspect(train, heldout=tmp_path / "broken.jsonl")


def test_the_example_marks_what_is_trained_on(tmp_path):
    rows = [
        {
            "messages": [
                {"role": "system", "content": "s"},
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": "a"},
            ]
        }
    ]
    found = inspect(write(tmp_path / "a.jsonl", rows))
    assert [(turn["role"], turn["trained"]) for turn in found.example] == [
        ("system", False),
        ("user", False),
        ("assistant", True),
    ]
    found = inspect(LAB / "preferences.jsonl")
    assert [turn["role"] for turn in found.example] == ["user", "chosen", "rejected"]


# ---- lengths -----------------------------------------------------------------------------------------------------------


def test_tokens_are_those_of_training(tmp_path):
    """Held against what transformers makes of the same conversations with the same template."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(assets_folder() / "lab" / "model")
    turns = [[{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["chosen"]}]
             for _, _, row in read_rows(LAB / "preferences.jsonl")][:50]  # fmt: skip
    wanted = [len(tokenizer.apply_chat_template(item, tokenize=True, return_dict=False)) for item in turns]
    found = token_lengths("lab", turns, 50, 37)
    assert (found.longest, found.mean, found.n, found.template) == (max(wanted), sum(wanted) / 50, 50, True)
    assert found.truncated == sum(length > 37 for length in wanted) / 50


def test_the_share_cut_off(tmp_path):
    rows = [{"prompt": "p", "completion": "x" * (8000 if i % 4 == 0 else 40)} for i in range(80)]
    path = write(tmp_path / "a.jsonl", rows)
    found = inspect(path)  # 8001 characters are about 2000 tokens
    assert found.characters.truncated == 0.25 and found.characters.limit == 1024
    assert any("about 25.0%" in warning and "--model says exactly" in warning for warning in found.warnings)
    assert inspect(path, limit=4096).characters.truncated == 0
    found = inspect(path, model="lab", limit=100)
    assert found.tokens.exact and 0 < found.tokens.truncated <= 0.25


@pytest.mark.parametrize("model, said", [("labb", "Did you mean `lab`"), ("hollow", "no tokenizer.json")])
def test_a_tokenizer_that_is_not_there(model, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hollow").mkdir()
    with pytest.raises(InputError, match=said):
        inspect(LAB / "domain.jsonl", model=model)


def test_a_sample_is_uniform_and_repeatable():
    one, two = Sample(100), Sample(100)
    for number in range(10_000):
        one.add(number)
        two.add(number)
    assert one.items == two.items and len(one.items) == 100
    assert 3500 < sum(one.items) / 100 < 6500  # mean 5000, standard error 287


def test_seen_and_near():
    seen, near = Seen(), Near()
    assert [seen.add(text, line) for line, text in enumerate("abab", start=1)] == [None, None, 1, 2]
    assert "a" in seen and "c" not in seen
    fresh = sum(seen.add(f"text {number}", number) is not None for number in range(50_000))
    assert fresh == 0  # at 50,000 texts one false repetition is expected in 10^9 runs of this
    near.add("one two three", 1)
    assert near.compared == 0  # too short to be compared


# ---- the command -------------------------------------------------------------------------------------------------------


def test_the_command(tmp_path):
    done = cli("data", "lab/preferences.jsonl", "--model", "lab", "--heldout", "lab/preferences-heldout.jsonl")
    assert done.returncode == 0, done.stderr
    for said in (
        "2400 rows",
        "gap          0.55",
        "chat template included",
        "dpo                 ready",
        "> chosen",
        "held out",
    ):
        assert said in done.stdout, (said, done.stdout)
    found = json.loads(cli("data", "lab/preferences.jsonl", "--json").stdout)
    assert found["reading"]["form"] == "preference" and found["rows"] == 2400 and "error" not in found
    done = cli("data", "lab/domain.jsonl", "--method", "dpo")
    assert done.returncode == 2 and "`prompt`" in done.stderr
    done = cli("data", "lab/chains.jsonl", "--method", "rlvr")
    assert done.returncode == 0 and "ready" in done.stdout and "grpo" not in done.stdout
    done = cli("data", "lab/questions.jsonl", "--method", "rlvr")
    assert done.returncode == 0 and "thin" in done.stdout and "no `steps`, no `required`" in done.stdout


@pytest.mark.parametrize(
    "words, said",
    [
        (["lab/preference.jsonl"], "Did you mean `lab/preferences.jsonl`"), (["lab/domain.jsonl", "--method", "sf"], "Did you mean `sft`"),
        (["lab/domain.jsonl", "--columns", "prompt"], "OURS=YOURS"), (["lab/domain.jsonl", "--max-length", "0"], "from 1 on"),
        (["lab/domain.jsonl", "--heldout", "lab/nothing.jsonl"], "does not exist"),
    ],
)  # fmt: skip
def test_bad_words(words, said):
    done = cli("data", *words)
    assert done.returncode == 2 and said in done.stderr, done.stderr


def test_paths_are_what_one_types(tmp_path):
    write(tmp_path / "a.jsonl", ROWS)
    (tmp_path / "below").mkdir()
    assert cli("data", "../a.jsonl", cwd=tmp_path / "below").returncode == 0
    assert cli("data", str(tmp_path)).returncode == 0


MEASURED = """
import resource, sys
from pathlib import Path
from engine.data.inspect import inspect
told = []
found = inspect(Path(sys.argv[1]), told=lambda done, size, rows: told.append(done / size))
assert told == sorted(told) and told[-1] == 1.0, told[-3:]
print(found.rows, len(told), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.parametrize("kind", ["jsonl", "json"])
def test_memory_does_not_grow_with_the_file(kind, tmp_path):
    """Rows of 20 kB each: 6 MB against 36 MB."""
    chance, peaks = random.Random(0), []
    words = [f"word{n}" for n in range(3000)]
    pool = [" ".join(chance.choices(words, k=2600)) for _ in range(40)]
    for count in (300, 1800):
        path = tmp_path / f"{count}.{kind}"
        rows = ({"prompt": f"q{i}", "completion": pool[i % 40] + str(i)} for i in range(count))
        with open(path, "w") as file:
            for number, row in enumerate(rows):
                file.write(
                    ("[" if not number else ",\n") * (kind == "json") + json.dumps(row) + "\n" * (kind == "jsonl")
                )
            file.write("]" * (kind == "json"))
        done = subprocess.run([sys.executable, "-c", MEASURED, str(path)], capture_output=True, text=True, timeout=200)
        rows_read, told, peak = map(int, done.stdout.split())
        assert rows_read == count and told >= 1, done.stderr
        peaks.append(peak)
    assert peaks[1] - peaks[0] < 15, peaks


def test_progress_of_a_large_file(tmp_path, monkeypatch, capsys):
    from tui.cli import main
    from tui.commands.data import Progress

    monkeypatch.setattr(Progress, "FIRST", 0.0)
    monkeypatch.setattr(Progress, "PLAIN", 0.0)
    path = write(tmp_path / "a.jsonl", ({"prompt": f"q{i}", "completion": f"a{i}"} for i in range(5000)))
    assert main(["data", str(path), "--json"]) == 0
    captured = capsys.readouterr()
    assert "100% of" in captured.err and json.loads(captured.out)["rows"] == 5000


def test_nothing_is_imported_that_is_not_needed(tmp_path):
    path = write(tmp_path / "a.jsonl", ROWS)
    code = (
        "import sys\nfrom tui.cli import main\n"
        f"assert main(['data', {str(path)!r}]) == 0\n"
        "print([n for n in ('torch', 'transformers', 'datasets', 'pyarrow', 'tokenizers', 'textual', 'jinja2') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


def test_without_pyarrow_parquet_says_what_to_install(tmp_path, monkeypatch):
    path = as_format(tmp_path, "parquet")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match="pip install pyarrow"):
        list(read_rows(path))


def test_no_reading_of_nothing():
    assert readings([]) == [] and readings([{"a": 1}]) == []
