"""The picture of a stage that has one: its reliability diagram, or the front of its search."""

from __future__ import annotations

import textwrap

from tui.view.canvas import Row
from tui.view.pictures import Pictures, draw_front, draw_reliability
from tui.widgets.picture import Picture
from tui.words import ascii_words

WIDEST = 100
LEAST = 9
"""Rows below which a picture shows nothing."""


class StagePicture(Picture):
    def __init__(self, ascii_only: bool = False, **options: object) -> None:
        super().__init__(ascii_only, **options)
        self._pictures = Pictures()

    def show(self, pictures: Pictures) -> None:
        if pictures != self._pictures:
            self._pictures = pictures
            self.changed()

    def draw(self, width: int, height: int) -> list[Row]:
        width = min(width, WIDEST)
        before, after = ("o", "x") if self.ascii_only else ("○", "●")
        tried, best, pick = (".", "o", "X") if self.ascii_only else ("·", "o", "◆")
        if data := self._pictures.reliability:
            legend: Row = [
                ("accuracy over confidence  ", "axis"),
                (f"{before} before ", "before"),
                (f"{after} after", "after"),
            ]
            words, rows = (
                data.words,
                draw_reliability(data, min(width, 2 * height + 16), max(0, height - 2), self.ascii_only),
            )
        elif front := self._pictures.front:
            legend = [
                ("refusals over KL (log)  ", "axis"), (f"{tried} tried ", "raw"), (f"{best} front ", "line"),
                (f"{pick} {'pick' if front.final else 'would pick now'}", "after"),
            ]  # fmt: skip
            words, rows = front.words, draw_front(front, width, max(0, height - 2), self.ascii_only)
        else:
            return []
        words = ascii_words(words) if self.ascii_only else words
        if height < LEAST:
            wrapped: list[Row] = [[(line, "title")] for line in textwrap.wrap(words, width)]
            return [*wrapped, [("z: the picture over the whole screen", "axis")]][:height]
        return [[(words, "title")], *rows, legend]
