"""export: take a run home in a form that other programs load."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from engine.export.comparison import Comparison
from engine.export.forms import FORMS
from engine.export.job import Progress, Result, destination
from engine.export.job import export as run_export
from engine.export.plan import plan
from engine.export.source import find_source
from engine.export.steps import ExportFailed
from engine.report import duration
from engine.runs.directory import RunDirectory, find_run
from engine.runs.exitcodes import DONE, FAILED
from recipes.errors import InputError, Problem
from tui.words import passed_sign

PLAIN_EVERY = 2.0


def export(options: argparse.Namespace) -> int:
    run = find_run(options.run)
    if options.to is None:
        return _list(run, options)
    meter = Meter(quiet=options.json)
    try:
        if options.to == "hub":
            return _upload(run, options, meter)
        result = _export(run, options.to, options, meter, options.replace)
    except ExportFailed as error:
        meter.clear()
        if options.json:
            print(json.dumps({"error": "export", "messages": [str(error)]}))
        print(f"finetune-tui export: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        meter.clear()
        print("finetune-tui export: ended; nothing was kept", file=sys.stderr)
        return FAILED
    _tell(result, options, meter)
    return DONE


def _export(run: RunDirectory, form: str, options: argparse.Namespace, meter: Meter, replace: bool) -> Result:
    out = Path(options.out) if options.out else None
    return run_export(
        run, form, stage=options.stage, kind=options.type, out=out, replace=replace, progress=meter.show
    )  # fmt: skip


def _tell(result: Result, options: argparse.Namespace, meter: Meter, **more: Any) -> None:
    meter.clear()
    if options.json:
        print(json.dumps({**result.to_json(), **more}))
        return
    kind = f" ({result.type})" if result.type else ""
    print(f"{passed_sign(True)} {result.form}{kind}, {size_words(result.size)}: {result.path}")
    print(f"  {checked_words(result.comparison)}")
    for note in result.notes:
        print(f"  note: {note}")
    print(f"  next: {result.next}")


def checked_words(comparison: Comparison) -> str:
    return f"checked: {comparison.words()}"


def _upload(run: RunDirectory, options: argparse.Namespace, meter: Meter) -> int:
    from engine.export.hub import ensure_allowed, upload

    if not options.repo:
        raise InputError([Problem("--repo", None, None, "nothing", "a repository such as `your-name/your-model`")])
    ensure_allowed(options.repo)
    form = options.of or ("adapter" if find_source(run, options.stage).adapter else "merged")
    if form == "hub":
        raise InputError([Problem("--of", None, None, "`hub`", ", ".join(name for name in FORMS if name != "hub"))])
    result = _export(run, form, options, meter, options.replace or not options.out)
    meter.clear()
    if not options.json:
        print(f"uploading {size_words(result.size)} to {options.repo} …", flush=True)
    page = upload(result.path, options.repo, private=not options.public)
    _tell(result, options, meter, page=page)
    if not options.json:
        print(f"  {'public' if options.public else 'private'} at {page}")
    return DONE


def _list(run: RunDirectory, options: argparse.Namespace) -> int:
    """Every form: what it is for, how large it gets, what speaks against it, and whether it is there already."""
    source = find_source(run, options.stage)
    rows = []
    for form in FORMS.values():
        found = plan(source, form, None, run.exports)
        folder = destination(run, form.name, found.type, options.stage, None)
        rows.append((found, str(folder) if (folder / "README.md").is_file() else None))
    if options.json:
        print(json.dumps([{**found.to_json(), "path": there} for found, there in rows]))
        return DONE
    stage = f"stage {source.stage + 1} ({source.method.replace('_', ' ')})"
    print(f"{run.id} after {stage}; `finetune-tui export {run.id} --to FORM`")
    for found, there in rows:
        size = "" if found.form.name == "hub" else size_words(found.size)
        print(f"\n{found.form.name:<15} {size:>10}  {found.form.purpose}")
        if len(found.form.types) > 1:
            print(f"{'':<28}--type {', '.join(found.form.types)}")
        for problem in found.problems:
            print(f"{'':<28}not now: {problem}")
        if there:
            print(f"{'':<28}there already: {there}")
    return DONE


def size_words(size: float) -> str:
    """``812 kB``, ``3.4 MB``, ``16.1 GB``."""
    for unit, least in (("GB", 1e9), ("MB", 1e6)):
        if size >= least:
            return f"{size / least:.1f} {unit}"
    return f"{max(1, round(size / 1e3))} kB"


class Meter:
    """Progress on the error stream: one live line on a terminal, else a line now and then."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet
        self.live = sys.stderr.isatty()
        self._last = 0.0
        self._said = ""

    def show(self, progress: Progress) -> None:
        if self.quiet:
            return
        line = progress_words(progress)
        now = time.monotonic()
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[2K{line[:width]}", end="", file=sys.stderr, flush=True)
        elif progress.what != self._said or now - self._last > PLAIN_EVERY:
            self._said, self._last = progress.what, now
            print(line, file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.live and not self.quiet:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)


def progress_words(progress: Progress) -> str:
    """``3/4 merging 62 %, 40 s left``."""
    share = f" {progress.share:.0%}" if 0 < progress.share < 1 else ""
    left = f", {duration(progress.eta)} left" if progress.eta is not None and progress.share < 1 else ""
    return f"{progress.part}/{progress.parts} {progress.what}{share}{left}"
