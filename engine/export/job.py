"""One export from request to finished folder: planned, written into a draft, loaded again, compared, then renamed.

Nothing under its final name is ever unfinished: the draft's name begins with a dot, and what fails removes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from engine.export import tools
from engine.export.card import card
from engine.export.comparison import Comparison
from engine.export.forms import FORMS, K_QUANTS
from engine.export.modelfile import write_modelfile
from engine.export.plan import Plan, find_form, plan
from engine.export.source import Source, find_source, verify
from engine.export.steps import Cancelled, ExportFailed, run_step
from engine.runs.directory import RunDirectory
from engine.runs.events import SampleEvent
from engine.runs.files import sync_folder, sync_tree
from recipes.errors import InputError, Problem
from recipes.load import load_recipe

PROBES = 8
LOADABLE_BY_TRANSFORMERS = ("llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text")
"""Families whose GGUF files transformers reads; for the others the tensors alone are compared."""


@dataclass(frozen=True)
class Progress:
    """``part`` of ``parts`` is under way; ``eta`` in seconds for that part, None while unknown."""

    part: int
    parts: int
    what: str
    share: float
    eta: float | None


@dataclass(frozen=True)
class Result:
    path: Path
    form: str
    type: str
    size: int
    comparison: Comparison
    notes: tuple[str, ...]
    next: str
    """The command that uses it."""

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path), "notes": list(self.notes), "says": self.comparison.words()}


def destination(run: RunDirectory, form: str, kind: str, stage: int | None, out: Path | None) -> Path:
    """Where it goes: ``out``, or a folder of the run that says what it is."""
    if out is not None:
        return out.expanduser().absolute()
    name = form + (f"-{kind}" if kind and kind != (FORMS[form].types or ("",))[0] else "")
    return run.exports / (name + (f"-stage-{stage}" if stage is not None else ""))


def export(
    run: RunDirectory,
    form_name: str,
    *,
    stage: int | None = None,
    kind: str | None = None,
    out: Path | None = None,
    replace: bool = False,
    progress: Callable[[Progress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Result:
    """Raises InputError for what cannot be, ExportFailed if it was not what the run is, Cancelled; then nothing is left."""
    form = find_form(form_name)
    if form.name == "hub":
        raise InputError(
            [Problem("--to", None, None, "`hub`, which is an upload of another form", "engine.export.hub")]
        )
    source = find_source(run, stage)
    folder = destination(run, form.name, "", stage, out) if out else None
    found = plan(source, form, kind, folder or run.exports)
    folder = folder or destination(run, form.name, found.type, stage, None)
    if found.problems:
        raise InputError(list(found.problems))
    if folder.exists() and not replace and (not folder.is_dir() or any(folder.iterdir())):
        accepted = "a folder that does not exist yet (`--out DIR`), or `--replace`"
        raise InputError([Problem(str(folder), None, "--out", "a folder with something in it", accepted)])
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_drafts(folder.parent)
    draft = folder.parent / f".draft-{folder.name}-{os.getpid()}"
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir()
    try:
        return _Export(source, found, draft, folder, progress, cancelled).run()
    except OSError as error:
        if error.errno == 28:
            raise ExportFailed(f"the disk became full: {error.filename or folder.parent}; nothing was kept") from error
        raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def remove_stale_drafts(folder: Path) -> None:
    """What exports left behind that were killed."""
    for draft in folder.glob(".draft-*"):
        owner = draft.name.rpartition("-")[2]
        if owner.isdigit() and int(owner) != os.getpid() and not psutil.pid_exists(int(owner)):
            shutil.rmtree(draft, ignore_errors=True)


class _Export:
    def __init__(
        self, source: Source, found: Plan, draft: Path, folder: Path, progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> None:  # fmt: skip
        self.source, self.plan, self.draft, self.folder = source, found, draft, folder
        self.tell, self.cancelled = progress, cancelled
        self.form, self.type = found.form, found.type
        self.log = source.run.logs / "export.log"
        self.quantizes = self.type in K_QUANTS or (found.foreign and self.type == "q4_0")
        self.parts = 4 + (self.form.mlx and self.form.weights) + self.quantizes + found.foreign
        self.part = 0
        self._begun, self._said = time.monotonic(), ""

    # ---- the course ----------------------------------------------------------------------------------------------

    def run(self) -> Result:
        self._next_part()
        verify(self.source, self._progress)
        self._next_part()
        reference, probes = self._reference()
        request = self._request(reference, probes)
        self._next_part()
        self._write(request, probes)
        self._next_part()
        step = "mlx-check" if self.form.mlx else "check"
        comparison = Comparison(**self._step({**request, "step": step, "out": str(self.draft)}))
        if comparison.failures:
            raise ExportFailed(
                f"the round trip failed, and the export was removed: {'; '.join(comparison.failures)} ({comparison.words()})"
            )
        return self._finish(comparison)

    def _finish(self, comparison: Comparison) -> Result:
        files = {
            str(path.relative_to(self.draft)): path.stat().st_size for path in self.draft.rglob("*") if path.is_file()
        }
        files.pop("README.md", None)
        text = card(self.source, self.plan, comparison, self.command(), files)
        (self.draft / "README.md").write_text(text, encoding="utf-8")
        self._progress("syncing to the disk", 0, 1)
        sync_tree(self.draft)
        if self.cancelled():
            raise Cancelled
        old = self.folder.with_name(f".draft-old-{self.folder.name}-{os.getpid()}")
        if self.folder.exists():
            self.folder.rename(old)
        self.draft.rename(self.folder)
        sync_folder(self.folder.parent)
        shutil.rmtree(old, ignore_errors=True)
        path = self.folder
        command = self.form.next.format(path=path, base=self.source.base, name=self.source.state.name)
        if self.form.name == "ollama" and self.type in K_QUANTS and tools.llama_quantize() is None:
            command = command.replace("ollama create", f"ollama create -q {self.type}", 1)
        return Result(path, self.form.name, self.type, sum(files.values()), comparison, self.plan.notes, command)

    def command(self) -> str:
        words = ["finetune-tui", "export", "--to", self.form.name, "--stage", str(self.source.stage + 1)]
        return " ".join(words + (["--type", self.type] if self.type else []))

    # ---- its parts -----------------------------------------------------------------------------------------------

    def _reference(self) -> tuple[Path, dict[str, Any]]:
        """What the run says, kept by what it follows from: several exports ask it once."""
        if self.form.name == "control-vector":  # directions alone: no model is asked
            return self.source.run.exports, {"stops": [], "template": None}
        recipe = load_recipe(str(self.source.run.recipe)).recipe
        request = {
            "step": "reference", "run": str(self.source.run.path), "lineage": self.source.lineage.to_json(),
            "prompts": self._prompts(), "precision": self.plan.precision, "trust_remote_code": recipe.trust_remote_code,
        }  # fmt: skip
        content = json.dumps([request, _versions()], sort_keys=True)
        kept = self.source.run.exports / ".reference" / hashlib.sha256(content.encode()).hexdigest()[:16]
        if not (kept / "probes.json").is_file():
            draft = kept.with_name(f".draft-reference-{os.getpid()}")
            try:
                self._step({**request, "reference": str(draft)})
                shutil.rmtree(kept, ignore_errors=True)
                draft.rename(kept)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        return kept, json.loads((kept / "probes.json").read_text(encoding="utf-8"))

    def _prompts(self) -> list[list[dict[str, str]]]:
        """The prompts that the run showed samples of, then some of its capability suite."""
        samples: list[SampleEvent] = [
            one for stage in self.source.state.stages[: self.source.stage + 1] for one in stage.samples
        ]
        texts = list(dict.fromkeys(one.prompt for one in reversed(samples)))[: PROBES // 2]
        if self.source.run.suite.is_file():
            rows = [json.loads(line) for line in self.source.run.suite.read_text(encoding="utf-8").splitlines()]
            apart = max(1, len(rows) // PROBES)
            texts += [row["prompt"] for row in rows[::apart] if isinstance(row.get("prompt"), str)]
        return [[{"role": "user", "content": text}] for text in dict.fromkeys(texts)][:PROBES]

    def _request(self, reference: Path, probes: dict[str, Any]) -> dict[str, Any]:
        source = self.source
        tokenizer = source.adapter if source.adapter and (source.adapter / "tokenizer.json").is_file() else source.base
        kind = "f16" if self.quantizes else self.type
        return {
            "run": str(source.run.path), "base": str(source.base), "lineage": source.lineage.to_json(), "form": self.form.name,
            "type": kind, "tolerance": self._tolerance(), "reference": str(reference), "precision": self.plan.precision,
            "tokenizer": str(tokenizer), "stops": probes["stops"], "template": probes["template"],
            "hint": source.text_config.get("model_type", "?"), "about": self._about(),
            "readable": source.text_config.get("model_type") in LOADABLE_BY_TRANSFORMERS and not self.plan.foreign,
            "foreign": self.plan.foreign,
        }  # fmt: skip

    def _tolerance(self) -> str:
        if self.type in K_QUANTS:
            made_here = tools.llama_quantize() is not None
            return self.type if made_here else "f16"
        if self.type:
            return self.type
        if self.form.name in ("adapter", "mlx-adapter"):
            exact = self.plan.precision == "fp32" and not (self.form.mlx and self.source.lineage.edits)
            return "exact" if exact and not self.form.mlx else "exact in 16 bit"
        return "bf16"

    def _about(self) -> dict[str, str]:
        stages = self.source.state.stages[: self.source.stage + 1]
        said = ", then ".join(stage.method for stage in stages)
        description = f"{self.source.lineage.base.id} after {said}; made with finetune-tui"
        return {"name": self.source.state.name, "description": description}

    def _write(self, request: dict[str, Any], probes: dict[str, Any]) -> None:
        if self.form.name == "mlx":
            self._from_merged(request, lambda merged: self._convert_to_mlx(merged, request))
            return
        if self.plan.foreign:
            self._from_merged(
                {**request, "form": "merged"}, lambda merged: self._convert_to_gguf(merged, request["type"])
            )
        else:
            self._step({**request, "step": "write", "out": str(self.draft)})
        if self.quantizes:
            self._next_part()
            self._quantize()
        if self.form.name == "ollama":
            self._modelfile(request, probes)

    def _from_merged(self, request: dict[str, Any], convert: Callable[[Path], None]) -> None:
        """Write the merged model beside the draft, have it converted, and remove it."""
        merged = self.draft.with_name(f".draft-merged-{self.folder.name}-{os.getpid()}")
        shutil.rmtree(merged, ignore_errors=True)
        merged.mkdir()
        try:
            self._step({**request, "step": "write", "out": str(merged)})
            self._next_part()
            convert(merged)
        finally:
            shutil.rmtree(merged, ignore_errors=True)

    def _convert_to_mlx(self, merged: Path, request: dict[str, Any]) -> None:
        shutil.rmtree(self.draft)
        self._step({**request, "step": "mlx-convert", "merged": str(merged), "out": str(self.draft)})

    def _convert_to_gguf(self, merged: Path, kind: str) -> None:
        self._progress("converting with llama.cpp", 0, 1)
        made = self.draft / "model.gguf"
        self._program([str(tools.convert_hf()), str(merged), "--outfile", str(made), "--outtype", kind], made)

    def _quantize(self) -> None:
        program = tools.llama_quantize()
        if program is None:
            return  # Ollama does it when the model is created
        whole, made = self.draft / "model.gguf", self.draft / "quantized.gguf"
        self._progress("quantizing", 0, 1)
        self._program([program, str(whole), str(made), self.type.upper()], made)
        made.replace(whole)

    def _program(self, command: list[str], made: Path) -> None:
        """Run somebody else's program; its words go into the log."""
        with open(self.log, "ab") as words:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=words, stderr=words)
        if done.returncode or not made.is_file():
            raise ExportFailed(f"{Path(command[0]).name} ended with code {done.returncode} (see {self.log})")

    def _modelfile(self, request: dict[str, Any], probes: dict[str, Any]) -> None:
        if probes["template"] is None:
            raise ExportFailed("the run has no chat template to make Ollama's from")
        folder = Path(request["tokenizer"])
        told = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        special = {}
        for name in ("bos_token", "eos_token", "pad_token", "unk_token"):
            word = told.get(name)
            special[name] = word.get("content", "") if isinstance(word, dict) else word or ""
        words = {added["id"]: added["content"] for added in _added_tokens(folder)}
        stops = [words[stop] for stop in probes["stops"] if stop in words]
        generation = self.source.base / "generation_config.json"
        settings = json.loads(generation.read_text(encoding="utf-8")) if generation.is_file() else {}
        from engine.export.gguf_vocabulary import without_training_tags

        write_modelfile(self.draft, without_training_tags(probes["template"]), special, stops, settings)

    # ---- telling -------------------------------------------------------------------------------------------------

    def _next_part(self) -> None:
        self.part += 1
        self._said = ""

    def _progress(self, what: str, done: float, total: float) -> None:
        if self.cancelled():
            raise Cancelled
        if what != self._said:
            self._begun, self._said = time.monotonic(), what
        share = done / total if total else 0.0
        took = time.monotonic() - self._begun
        eta = took / share - took if share > 0.02 and took > 0.5 else None
        self.tell(Progress(self.part, self.parts, what, share, eta))

    def _step(self, request: dict[str, Any]) -> Any:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        started = {"reference": "asking the run", "write": "writing", "mlx-convert": "converting"}
        self._progress(started.get(request["step"], "loading it again"), 0, 1)
        return run_step(request, self.log, self._progress, self.cancelled)


def _added_tokens(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")).get("added_tokens", [])


def _versions() -> dict[str, str]:
    found = {}
    for name in ("torch", "transformers", "peft"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
