"""The colours: dark, light, one that colour-blind eyes can tell apart, and the terminal's own sixteen."""

from __future__ import annotations

from textual.theme import BUILTIN_THEMES, Theme

SERIES = ("#56b4e9", "#e69f00", "#cc79a7", "#009e73", "#f0e442", "#d55e00")
"""Okabe & Ito's palette (jfly.uni-koeln.de/color): distinct for every common kind of colour vision, on dark ground."""
SERIES_ON_LIGHT = ("#0072b2", "#b35900", "#aa4499", "#007a55", "#8a7a00", "#a83800")
"""The same hues, dark enough to be read on white."""
SERIES_ANSI = (
    "ansi_bright_cyan",
    "ansi_bright_yellow",
    "ansi_bright_magenta",
    "ansi_bright_green",
    "ansi_bright_blue",
    "ansi_bright_red",
)
SERIES_ANSI_LIGHT = ("ansi_blue", "ansi_red", "ansi_magenta", "ansi_green", "ansi_cyan", "ansi_black")

COLOUR_BLIND = Theme(
    name="colour-blind", dark=True,
    primary="#56b4e9", secondary="#cc79a7", accent="#f0e442", warning="#e69f00", error="#d55e00", success="#0096ff",
    foreground="#e6e6e6", background="#111418", surface="#1a1e24", panel="#262b33",
)  # fmt: skip
"""Good is blue, bad is vermilion, warnings are orange: no pair rests on red against green."""

NAMES = {
    "dark": "textual-dark",
    "light": "textual-light",
    "colour-blind": "colour-blind",
    "ansi": "ansi-dark",
    "ansi-light": "ansi-light",
}
"""What the settings call them -> the theme's name in Textual."""


def own_themes() -> list[Theme]:
    return [COLOUR_BLIND]


def chart_variables(theme: Theme) -> dict[str, str]:
    """The colours of charts, for any theme: Textual's own have none."""
    ansi = theme.name.startswith("ansi")
    if ansi:
        series = SERIES_ANSI if theme.dark else SERIES_ANSI_LIGHT
        found = {"line": series[0], "line-raw": "ansi_bright_black", "line-target": "ansi_default"}
    else:
        series = SERIES if theme.dark else SERIES_ON_LIGHT
        found = {"line": series[0], "line-raw": "#5d7a8c" if theme.dark else "#8fb3cc"}
        found["line-target"] = "#bdbdbd" if theme.dark else "#666666"  # no run's colour
    return found | {f"series-{place}": colour for place, colour in enumerate(series)}


def known(name: str) -> bool:
    return name in NAMES or name in BUILTIN_THEMES
