"""The stages of a run side by side, and the phases of the one that is shown."""

from __future__ import annotations

from textual.content import Content
from textual.widget import Widget

from tui.view.plot import bar
from tui.view.run_view import Mark, RunView

SIGNS: dict[Mark, tuple[str, str]] = {
    "done": ("✓", "+"), "now": ("▶", ">"), "waiting": ("·", "."), "failed": ("✗", "!"),
}  # fmt: skip
STYLES: dict[Mark, str] = {
    "done": "$text-success", "now": "bold $text-primary", "waiting": "dim", "failed": "bold $text-error",
}  # fmt: skip


class Rail(Widget):
    """Line 1: ``✓ 1 sft gates passed  ▶ 2 dpo ███░░ 40/80``. Line 2: the phases. Line 3: what is done right now."""

    DEFAULT_CSS = "Rail { height: 3; width: 1fr; }"

    def __init__(self, ascii_only: bool = False, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.ascii_only = ascii_only
        self._view: RunView | None = None

    def show(self, view: RunView) -> None:
        before = self._view
        self._view = view
        if before is None or (before.rail, before.phases, before.phase_words) != (
            view.rail, view.phases, view.phase_words,
        ):  # fmt: skip
            self.refresh()

    def render(self) -> Content:
        view = self._view
        if view is None:
            return Content("")
        pick = 1 if self.ascii_only else 0
        width = self.size.width
        stages: list[Content] = []
        room = max(0, width // max(1, len(view.rail)) - 24)
        for stage in view.rail:
            parts: list[tuple[str, str] | str] = [
                (f"{SIGNS[stage.mark][pick]} {stage.index + 1} {stage.method} ", STYLES[stage.mark])
            ]
            if stage.mark == "now" and room >= 6:
                parts.append((bar(stage.share, min(room, 24), ascii_only=self.ascii_only) + " ", "$primary"))
            parts.append((stage.words, "" if stage.mark != "waiting" else "dim"))
            stages.append(Content.assemble(*parts))
        phases = [Content.styled(f"{SIGNS[mark][pick]} {label}", STYLES[mark]) for label, mark in view.phases]
        return Content("\n").join(
            [
                Content("   ").join(stages).truncate(width, ellipsis=True),
                Content("  ").join(phases).truncate(width, ellipsis=True),
                Content.styled(view.phase_words, "dim").truncate(width, ellipsis=True),
            ]
        )
