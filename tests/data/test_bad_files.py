"""Bad files, kind by kind: each is answered with its place and its mend, exit code 2, and no traceback."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest

from engine.data.inspect import inspect
from recipes.errors import InputError

GOOD = b'{"prompt": "a question", "completion": "an answer"}\n'


def parquet(path, **columns):
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table(columns), path)


def arrow(path):
    import pyarrow
    import pyarrow.feather

    pyarrow.feather.write_feather(
        pyarrow.table({"prompt": ["a"], "completion": ["b"]}), path, compression="uncompressed"
    )


def truncated_parquet(path):
    parquet(path, prompt=["a" * 1000], completion=["b"])
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def chat(*turns):
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


HTML = b"<!DOCTYPE html><html><body>Sign in</body></html>"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"
# kind: (file name, content or a function that writes it, line that is named, field that is named, words of the answer)
KINDS = {
    "not there": ("missing.jsonl", None, None, None, "which does not exist"),
    "zero bytes": ("a.jsonl", b"", None, None, "at least one row"),
    "blank lines only": ("a.jsonl", b"\n \n\n", None, None, "at least one row"),
    "an empty list": ("a.json", b"[]", None, None, "at least one row"),
    "a heading without rows": ("a.csv", b"prompt,completion\n", None, None, "at least one row"),
    "windows encoding": ("a.jsonl", GOOD + '{"prompt": "caf\xe9"}'.encode("latin-1"), 2, None, "column 16.*iconv -f WINDOWS-1252"),
    "windows encoding in a table": ("a.csv", "prompt,completion\na,b\ncaf\xe9,c\n".encode("latin-1"), 3, None, "column 4.*iconv"),
    "utf-16": ("a.jsonl", GOOD.decode().encode("utf-16"), 1, None, "iconv -f UTF-16"),
    "mixed schemas": ("a.jsonl", GOOD * 3 + jsonl(chat(("user", "q"), ("assistant", "a"))), 4, "prompt|completion",
                      "it has `messages`.*one kind of row"),
    "a trailing comma in a line": ("a.jsonl", GOOD.strip() + b",\n" + GOOD, 1, None, "without the comma at its end"),
    "a trailing comma in a list": ("a.json", b'[{"prompt": "a", "completion": "b"},\n]', 2, None, "no comma after the last row"),
    "a trailing comma in an object": ("a.jsonl", b'{"prompt": "a", "completion": "b",}\n', 1, None, "no comma before the `}`"),
    "a missing comma": ("a.json", b'[{"prompt": "a", "completion": "b"}\n{"prompt": "c", "completion": "d"}]', 2, None,
                        "a comma between two rows"),
    "two objects on a line": ("a.jsonl", GOOD.strip() + GOOD, 1, None, "a line break before column 52"),
    "python instead of json": ("a.jsonl", b"{'prompt': 'a', 'completion': None}\n", 1, None, "json.dumps"),
    "nested json strings": ("a.jsonl", jsonl({"messages": json.dumps(chat(("user", "q"), ("assistant", "a"))["messages"])}), 1,
                            "messages", "json.loads"),
    "a list of texts": ("a.jsonl", jsonl({"prompt": ["a", "b"], "completion": "c"}), 1, "prompt", "list of messages"),
    "a csv with bare quotes": ("a.csv", b'prompt,completion\n"he said "yes"",b\n', 2, None, 'written twice \\(""\\)'),
    "a csv whose quote never closes": ("a.csv", b'prompt,completion\n"a,b\nc,d\n', 3, None, "a closing quote"),
    "a csv with ragged rows": ("a.csv", b"prompt,completion\na,b\na,b,c\n", 3, None, "3, not 2.*quotes"),
    "a csv with semicolons": ("a.csv", b"prompt;completion\na;b\n", 1, None, "separated by `;`.*commas"),
    "a csv without a heading": ("a.csv", b"What is the capital of France?,It is Paris.\nAnd of Spain?,It is Madrid.\n", 1, None,
                                "names the columns"),
    "a csv with the same column twice": ("a.csv", b"prompt,prompt\na,b\n", 1, "prompt", "each name once"),
    "an arrow file renamed": ("a.jsonl", arrow, 1, None, "an Arrow file.*write_table"),
    "a parquet file renamed": ("a.json", lambda path: parquet(path, prompt=["a"], completion=["b"]), 1, None, "mv "),
    "a damaged parquet file": ("a.parquet", truncated_parquet, 1, None, "damaged Parquet"),
    "no parquet at all": ("a.parquet", GOOD, 1, None, "the ending that belongs to its format"),
    "a gzip archive": ("a.jsonl", gzip.compress(GOOD), 1, None, "gunzip"),
    "a spreadsheet": ("a.xlsx", b"PK\x03\x04" + bytes(40), 1, None, "CSV UTF-8"),
    "a web page": ("a.jsonl", HTML, 1, None, "raw link"),
    "a git-lfs pointer": ("a.parquet", LFS, 1, None, "git lfs pull"),
    "10 MB lines": ("a.jsonl", GOOD + jsonl({"prompt": "a", "completion": "b" * 10 * 2**20}), 2, None, "a line of 10.0 MiB.*split"),
    "unknown roles": ("a.jsonl", jsonl(chat(("user", "q"), ("narrator", "a"))), 1, r"messages\[1\]", "`narrator`.*`assistant`"),
    "no assistant": ("a.jsonl", jsonl(chat(("user", "q"))), 1, "messages", "no assistant turn"),
    "missing answers": ("a.jsonl", GOOD + jsonl({"prompt": "a", "completion": None}), 2, "completion", "found nothing"),
    "empty answers": ("a.jsonl", GOOD + jsonl({"prompt": "a", "completion": "  "}), 2, "completion", "text that is not empty"),
    "a number that is none": ("a.jsonl", GOOD + b'{"prompt": "a", "completion": NaN}\n', 2, None, "finite"),
    "a field twice": ("a.jsonl", b'{"prompt": "a", "prompt": "b", "completion": "c"}\n', 1, None, "each field once"),
    "half a character": ("a.jsonl", GOOD + b'{"prompt": "\\ud83d", "completion": "b"}\n', 2, None, "lone surrogate.*pair"),
    "half a character in a list": ("a.json", b'[{"prompt": "\\ud83d x", "completion": "b"}]', 1, None, "lone surrogate"),
    "an endless number": ("a.jsonl", b'{"prompt": ' + b"1" * 5000 + b', "completion": "b"}\n', 1, None, "digits"),
    "nested too deep": ("a.jsonl", b'{"prompt": ' + b"[" * 200_000 + b"\n", 1, None, "too deep"),
    "a cut-off line": ("a.jsonl", GOOD + b'{"prompt": "a", "compl', 2, None, "cut off"),
    "a cut-off list": ("a.json", b'[{"prompt": "a", "completion": "b"},\n{"prompt": "c"', 2, None, "cut off"),
    "a line break in a text": ("a.json", b'[{"prompt": "a\nb", "completion": "c"}]', 1, None, r"written as \\n"),
    "a list in lines": ("a.jsonl", b'[\n{"prompt": "a", "completion": "b"}\n]\n', 1, None, "a .json file: rename it"),
    "rows inside an object": ("a.json", b'{"version": 1, "data": [{"prompt": "a", "completion": "b"}]}', 1, "data", r"jq -c"),
    "columns instead of rows": ("a.json", b'{"prompt": ["a", "b"], "completion": ["c", "d"]}', 1, None, "zip"),
    "a bare value": ("a.jsonl", b'"just text"\n', 1, None, "one JSON object"),
    "columns of no kind": ("a.jsonl", b'{"promt": "a", "completion": "b"}\n', 1, None, "Did you mean `prompt`"),
    "two readings": ("a.jsonl", jsonl({"prompt": "a", "completion": "b", "answer": "c"}), 1, None, "equally good.*--columns"),
    "two columns for one part": ("a.jsonl", jsonl({"query": "a", "problem": "b", "response": "c"}), 1, None,
                                 "--columns prompt=query"),
    "scores that are no numbers": ("a.jsonl", jsonl({"prompt": "a", "chosen": "b", "rejected": "c", "score_chosen": "high",
                                                     "score_rejected": 1}), 1, "score_chosen", "a number"),
    "pairs of different prompts": ("a.jsonl", jsonl({
        "chosen": chat(("user", "q"), ("assistant", "a"))["messages"],
        "rejected": chat(("user", "other"), ("assistant", "b"))["messages"]}), 1, "rejected", "another prompt"),
    "plain text": ("a.txt", b"Once upon a time.\n\nThe end.\n", 1, "text", "what is asked and what is answered"),
    "zero bytes in a table": ("a.csv", b"prompt,completion\na,\x00b\n", 2, "completion", "zero bytes"),
    "utf-16 without a mark": ("a.csv", "prompt,completion\na,b\n".encode("utf-16-le"), 1, None, "iconv -f UTF-16LE"),
    "json in a text file": ("a.txt", GOOD, 1, None, "mv .*jsonl"),
    "an unknown ending": ("a.docx2", b"hello", None, None, "`.jsonl`"),
    "an empty directory": ("folder", "folder", None, None, "without data files"),
}  # fmt: skip


def write(tmp_path, name, content):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_answered_with_place_and_mend(kind, tmp_path, capsys):
    import re

    from tui.cli import main

    name, content, line, field, said = KINDS[kind]
    path = write(tmp_path, name, content)
    assert main(["data", str(path), "--json"]) == 2
    captured = capsys.readouterr()
    answer = json.loads(captured.out)
    assert answer["error"] == "input" and captured.err.startswith("finetune-tui data: ")
    problem = answer["problems"][0] if "problems" in answer else None
    message = answer["messages"][0]
    assert re.search(said, message, re.S), message
    assert name in message
    if problem is not None:
        assert problem["line"] == line, message
        assert field is None or re.fullmatch(field, problem["field"] or ""), message
        assert problem["accepted"]


def test_thirty_kinds_at_least():
    assert len(KINDS) >= 30


def test_a_run_refuses_the_same_files(tmp_path):
    """What ``data`` calls wrong does not start a run either."""
    from tests.tui.test_cli import cli

    path = write(tmp_path, "a.csv", KINDS["a csv with semicolons"][1])
    (tmp_path / "r.yaml").write_text(
        f"name: x\nmodel: lab-nano\nstages:\n  - method: sft\n    data: {{source: {path.name}}}\n"
    )
    done = cli("run", str(tmp_path / "r.yaml"))
    assert done.returncode == 2 and "separated by `;`" in done.stderr


def test_good_rows_around_bad_ones_are_still_looked_at(tmp_path):
    bad = b'{"prompt": "x"}\nnot json\n{"prompt": "a", "completion": ""}\n'
    path = write(
        tmp_path, "a.jsonl", b"".join(jsonl({"prompt": f"q{i}", "completion": f"a{i}"}) for i in range(5)) + bad
    )
    found = inspect(path)
    assert (found.rows, found.bad_rows) == (5, 3)
    assert [problem.line for problem in found.problems] == [6, 7, 8]


def test_only_so_many_problems_are_told_one_by_one(tmp_path):
    path = write(tmp_path, "a.jsonl", GOOD * 3 + b'{"prompt": "x"}\n' * 50)
    found = inspect(path)
    assert len(found.problems) == 20 and found.bad_rows == 50
    assert any("30 more rows" in warning for warning in found.warnings)


def test_the_readers_fuzzed(tmp_path):
    """Cut, flipped and shuffled files of every format: rows, problems or an InputError, never another exception."""
    import random

    parquet(tmp_path / "seed.parquet", prompt=[f"q{i}" for i in range(30)], completion=[f"a{i}" for i in range(30)])
    rows = [{"prompt": f'q{i}, "x"\n', "completion": [{"role": "assistant", "content": f"a{i}"}]} for i in range(30)]
    seeds = {
        "jsonl": jsonl(*rows), "json": json.dumps(rows, indent=1).encode(), "parquet": (tmp_path / "seed.parquet").read_bytes(),
        "csv": b"prompt,completion\n" + b'"a, ""b""",c\n' * 30, "txt": b"one\n\ntwo\n" * 20,
    }  # fmt: skip
    chance, outcomes = random.Random(0), {"read": 0, "refused": 0}
    for number in range(250):
        suffix, data = chance.choice(list(seeds.items()))
        data = bytearray(data)
        for _ in range(chance.randrange(1, 6)):
            place = chance.randrange(max(1, len(data)))
            match chance.randrange(4):
                case 0:
                    data[place : place + 1] = bytes([chance.randrange(256)])
                case 1:
                    del data[place : place + chance.randrange(1, 40)]
                case 2:
                    data[place:place] = chance.choice([b'"', b"{", b"]", b"\xff", b"\x00", b"\n", b",", "é".encode()])
                case 3:
                    del data[place:]
        path = tmp_path / f"{number}.{suffix}"
        path.write_bytes(bytes(data))
        try:
            inspect(path)
            outcomes["read"] += 1
        except InputError:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20, outcomes


def test_a_file_that_is_a_pipe_of_the_shell_is_told_plainly(tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "tui.cli", "data", str(tmp_path / "a.jsonl"), "--columns", "prompt"],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "Traceback" not in done.stderr
