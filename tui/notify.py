"""Tell the person who has gone elsewhere that a run has ended: through the terminal, the desktop, or a bell."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys

ENDED = ("done", "failed", "paused", "stopped", "interrupted")


def sequences(title: str, text: str, how: str, environment: dict[str, str] | None = None) -> str:
    """What to write to the terminal: OSC 9 (iTerm2, Windows Terminal, ConEmu, kitty …) and OSC 777 (foot, Ghostty,
    WezTerm, VTE), each ignored where it is not known; through tmux wrapped, with a bell, which tmux always passes on.
    """
    environment = dict(os.environ) if environment is None else environment
    if how in ("off", "desktop"):
        return ""
    if how == "bell":
        return "\a"
    title, text = _clean(title), _clean(text)
    both = f"\x1b]9;{title}: {text}\x1b\\\x1b]777;notify;{title};{text}\x1b\\"
    if environment.get("TMUX"):
        doubled = both.replace("\x1b", "\x1b\x1b")
        return f"\x1bPtmux;{doubled}\x1b\\\a"
    return both + ("\a" if how == "auto" else "")


def terminal_title(text: str) -> str:
    return f"\x1b]2;{_clean(text)}\x1b\\"


def desktop_command(title: str, text: str, environment: dict[str, str] | None = None) -> list[str] | None:
    """The desktop's own notifier where one is within reach: not over SSH, where it would tell the wrong screen."""
    environment = dict(os.environ) if environment is None else environment
    if environment.get("SSH_CONNECTION"):
        return None
    if sys.platform == "darwin" and shutil.which("osascript"):
        said = [part.replace("\\", "\\\\").replace('"', '\\"') for part in (_clean(text), _clean(title))]
        return ["osascript", "-e", 'display notification "{}" with title "{}"'.format(*said)]
    shown = environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    if shown and shutil.which("notify-send"):
        return ["notify-send", "--app-name=finetune-tui", "--", _clean(title), _clean(text)]
    return None


def notify_desktop(title: str, text: str, how: str) -> None:
    if how not in ("auto", "desktop"):
        return
    command = desktop_command(title, text)
    if command:
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip


def _clean(text: str) -> str:
    """No control character may end the sequence; a semicolon would end the title's field."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]+", " ", text).replace(";", ",")[:200]
