"""The ways to jail a process on this machine, and the probe that finds the first one that really holds.

Each jail turns a Python command into one that starts jailed. What a jail cannot do by itself, the zygote does from inside
(Landlock) or each guest (limits, seccomp). A jail that is installed but does not hold, such as bubblewrap under an AppArmor
rule that forbids user namespaces, is found out by running it.
"""

from __future__ import annotations

import functools
import os
import shutil
import site
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parents[3]
OUR_CODE = (ROOT / "engine" / "__init__.py", ROOT / "engine" / "verify")
"""All of the project that a guest can read: no data, no recipe, no run."""
SYSTEM = ("/usr", "/lib", "/lib64", "/lib32", "/bin", "/sbin")
SMALL = ("/etc/ld.so.cache", "/etc/localtime", "/nix/store")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom", "/dev/random")
ENVIRONMENT = {"LC_ALL": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}


def python() -> str:
    """The interpreter itself, not a virtual environment's link to it."""
    return os.path.realpath(sys.executable)


def packages() -> list[str]:
    """Folders with the installed packages."""
    return [path for path in site.getsitepackages() if os.path.isdir(path)]


@dataclass(frozen=True)
class Jail:
    """``extra``: paths that are readable beside Python, the system's libraries and our own code."""

    extra: tuple[str, ...] = field(default=(), kw_only=True)
    name: ClassVar[str] = "none"
    landlock: ClassVar[bool] = False
    seccomp: ClassVar[bool] = True
    watched: ClassVar[bool] = False
    """The owner must watch the guests' memory and time, since neither the kernel nor the zygote can bound them."""

    def command(self, words: Sequence[str]) -> list[str]:
        return list(words)

    def readable(self) -> list[str]:
        return [os.path.realpath(sys.base_prefix), *SYSTEM, *SMALL, *DEVICES, *map(str, OUR_CODE), *self.extra]


class Bubblewrap(Jail):
    """Namespaces of its own for processes, network, mounts, users, IPC; an empty read-only root with the readable places."""

    name = "bubblewrap"

    def command(self, words: Sequence[str]) -> list[str]:
        program = shutil.which("bwrap")
        if program is None:
            raise FileNotFoundError("bwrap is not installed")
        flags = [program, "--unshare-all", "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
        for key, value in ENVIRONMENT.items():
            flags += ["--setenv", key, value]
        for place in self.readable():
            if os.path.islink(place):
                flags += ["--symlink", os.readlink(place), place]
            else:
                flags += ["--dev-bind-try" if place in DEVICES else "--ro-bind-try", place, place]
        return [*flags, "--remount-ro", "/", "--chdir", "/", "--", *words]


class Landlock(Jail):
    """The kernel's own access control, set by the jailed process on itself."""

    name = "landlock"
    landlock = True


class SandboxExec(Jail):
    """macOS: a profile that denies everything but reading the readable places. Memory and time are watched by the owner."""

    name = "sandbox-exec"
    seccomp = False
    watched = True

    def readable(self) -> list[str]:
        return [*super().readable(), "/System", "/Library/Frameworks", "/private/var/db/dyld", "/opt/homebrew"]

    def command(self, words: Sequence[str]) -> list[str]:
        places = " ".join(f'(subpath "{os.path.realpath(place)}")' for place in self.readable())
        profile = (
            "(version 1)(deny default)(allow process-fork)(allow process-exec)(allow sysctl-read)"
            f'(allow file-read-metadata)(allow file-read* (literal "/") {places})'
            '(allow file-write-data (literal "/dev/null"))(allow signal (target self))'
        )
        return ["sandbox-exec", "-p", profile, *words]


def candidates() -> list[type[Jail]]:
    """The jails that this system could have, the best first."""
    return [SandboxExec] if sys.platform == "darwin" else [Bubblewrap, Landlock]


@functools.cache
def find_jail() -> tuple[type[Jail] | None, str]:
    """The first jail that holds, and a word on every one that did not, with what to install."""
    from engine.verify.sandbox.probe import leak

    reasons = []
    for jail in candidates():
        if found := leak(jail()):
            reasons.append(f"{jail.name}: {found}")
        else:
            return jail, "; ".join(reasons)
    advice = (
        "install the package `bubblewrap` (apt install bubblewrap, dnf install bubblewrap, pacman -S bubblewrap), "
        "or boot a kernel from 5.13 on with Landlock switched on"
    )
    if sys.platform == "darwin":
        advice = "sandbox-exec is part of macOS: run on a version that has it"
    return None, "; ".join(reasons) + f". To have a sandbox, {advice}"
