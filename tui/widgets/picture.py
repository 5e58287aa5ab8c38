"""A picture of dots: rows of (text, role) parts, drawn once per change of what it shows or of its size."""

from __future__ import annotations

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.strip import Strip
from textual.widget import Widget

from tui.view.canvas import Row

ROLES = ("title", "axis", "line", "raw", "target", "bad", "before", "after", *(f"series-{place}" for place in range(6)))


class Picture(Widget):
    """Subclasses give ``draw``; ``changed`` is called when it would come out differently."""

    COMPONENT_CLASSES = {f"picture--{role}" for role in ROLES}
    DEFAULT_CSS = """
    Picture { height: 1fr; width: 1fr; }
    Picture > .picture--title { text-style: bold; }
    Picture > .picture--axis { color: $text-muted; }
    Picture > .picture--line { color: $line; }
    Picture > .picture--raw { color: $line-raw; }
    Picture > .picture--target { color: $line-target; }
    Picture > .picture--bad { color: $text-error; text-style: bold; }
    Picture > .picture--before { color: $series-1; }
    Picture > .picture--after { color: $series-0; text-style: bold; }
    Picture > .picture--series-0 { color: $series-0; }
    Picture > .picture--series-1 { color: $series-1; }
    Picture > .picture--series-2 { color: $series-2; }
    Picture > .picture--series-3 { color: $series-3; }
    Picture > .picture--series-4 { color: $series-4; }
    Picture > .picture--series-5 { color: $series-5; }
    """

    def __init__(self, ascii_only: bool = False, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.ascii_only = ascii_only
        self._strips: list[Strip] = []
        self._role_styles: dict[str, Style] = {}
        """As the theme has them; asking Textual costs as much as drawing."""
        self._drawn: Size | None = None
        self._filtered = True

    def draw(self, width: int, height: int) -> list[Row]:
        raise NotImplementedError

    def changed(self) -> None:
        self._drawn = None
        self.refresh()

    def notify_style_update(self) -> None:
        self._drawn = None
        self._role_styles = {}
        super().notify_style_update()

    def render_lines(self, crop: Region) -> list[Strip]:
        """The rows as they were drawn, unless something is to be painted around or over them: Textual looks for that
        row by row, which costs more than drawing."""
        if self._decorated():
            return super().render_lines(crop)
        strips = self._whole(filtered=True)[crop.y : crop.bottom]
        first, last = crop.column_span
        return strips if (first, last) == (0, self.size.width) else [strip.crop(first, last) for strip in strips]

    def _decorated(self) -> bool:
        styles = self.styles
        return bool(
            any(styles.gutter)
            or any(kind for kind, _ in styles.outline)
            or self.opacity != 1.0
            or styles.text_opacity != 1.0
            or styles.tint.a
            or styles.has_rule("hatch")
        )

    def render_line(self, y: int) -> Strip:
        return self._whole(filtered=False)[y]

    def _whole(self, filtered: bool) -> list[Strip]:
        """Every row of the widget; ``filtered``: in the colours that Textual's filters would leave of the theme's."""
        size = self.size
        if self._filtered != filtered:
            self._filtered, self._drawn, self._role_styles = filtered, None, {}
        if self._drawn != size:
            self._drawn = size
            strips = self._made(self.draw(size.width, size.height)[: size.height], size.width)
            blank = Strip.blank(size.width, self._role_styles[""])
            self._strips = strips + [blank] * (size.height - len(strips))
        return self._strips

    def _seen(self, style: Style) -> Style:
        """What is seen of a style: filters change styles, never text, so that each is filtered once and not in each row."""
        strip = Strip([Segment(" ", style)])
        if self._filtered:
            for change in self.get_line_filters():
                strip = strip.apply_filter(change, self.background_colors[1])
        return next(iter(strip)).style or style

    def _made(self, rows: list[Row], width: int) -> list[Strip]:
        styles = self._role_styles
        if not styles:
            styles[""] = self._seen(self.rich_style)
        plain = styles[""]
        strips = []
        for row in rows:
            segments = []
            for text, role in row:
                if role not in styles:
                    styles[role] = self._seen(self.get_component_rich_style(f"picture--{role}"))
                segments.append(Segment(text, styles[role]))
            # What is drawn has one cell a character; only words may have wider ones, and are measured.
            drawn = sum(len(text) for text, role in row if role != "title")
            strips.append(
                Strip(segments, width) if drawn == width else Strip(segments).adjust_cell_length(width, plain)
            )
        return strips
