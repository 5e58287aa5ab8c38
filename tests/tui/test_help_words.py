"""Pages of help keep their columns at any width."""

from __future__ import annotations

import importlib

import pytest

from tui.view.help_words import fitted

PAGE = """\
KEYS
  Enter      open the run            n        a new recipe, step by step
  Ctrl+Q, q  leave; runs go on in the background

WORDS
  KL est     how far the model has moved from where the stage began, in nats per
             token, exact
"""


def test_what_fits_stays():
    assert fitted(PAGE, 100) == PAGE


def test_what_does_not_goes_on_under_itself():
    assert fitted(PAGE, 50).splitlines() == [
        "KEYS",
        "  Enter      open the run",
        "  n          a new recipe, step by step",
        "  Ctrl+Q, q  leave; runs go on in the background",
        "",
        "WORDS",
        "  KL est     how far the model has moved from",
        "             where the stage began, in nats per",
        "             token, exact",
    ]


@pytest.mark.parametrize("name", ["home", "monitor", "zoom", "compare", "settings", "chat", "blind"])
@pytest.mark.parametrize("width", [50, 70])
def test_no_page_is_wider_than_its_dialog_or_loses_a_word(name, width):
    page = importlib.import_module(f"tui.screens.{name}").HELP
    shown = fitted(page, width)
    assert max(map(len, shown.splitlines())) <= width, shown
    assert sorted(shown.split()) == sorted(page.split())
