"""Landlock by ctypes: from here on this process and its children read only the named places and write nowhere.

Standard library only: the sandbox's own process imports it. See the kernel's Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG, PATH_BENEATH = 1, 1
EXECUTE, READ_FILE, READ_DIR = 1 << 0, 1 << 2, 1 << 3
FILE_RIGHTS = {1: 0x1FFF, 2: 0x3FFF, 3: 0x7FFF, 4: 0x7FFF, 5: 0xFFFF}
"""All file rights that an ABI knows how to take away; the later ABIs know the same as 5."""
ALL_TCP, ALL_SCOPES = 0b11, 0b11
PR_SET_NO_NEW_PRIVS = 38


def abi() -> int:
    """The kernel's Landlock ABI; 0 when it has none or it is switched off."""
    return max(0, ctypes.CDLL(None, use_errno=True).syscall(CREATE_RULESET, None, 0, VERSION_FLAG))


def restrict(readable: Iterable[str]) -> None:
    """Only ``readable`` files and folders can be opened from now on, for reading and executing; nothing for writing.

    Network and signals are closed too where the ABI can (4 and 6); seccomp closes them in any case.
    Raises OSError where there is no Landlock.
    """
    version = abi()
    if version < 1:
        raise OSError("the kernel has no Landlock")
    library = ctypes.CDLL(None, use_errno=True)

    def call(*arguments: object) -> int:
        result = library.syscall(*arguments)
        if result < 0:
            raise OSError(ctypes.get_errno(), f"landlock: {os.strerror(ctypes.get_errno())}")
        return int(result)

    attributes = struct.pack("<Q", FILE_RIGHTS[min(version, 5)])
    if version >= 4:
        attributes += struct.pack("<Q", ALL_TCP)
    if version >= 6:
        attributes += struct.pack("<Q", ALL_SCOPES)
    ruleset = call(CREATE_RULESET, attributes, len(attributes), 0)
    for path in readable:
        if not os.path.exists(path):
            continue
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rights = EXECUTE | READ_FILE | (READ_DIR if os.path.isdir(path) else 0)
        call(ADD_RULE, ruleset, PATH_BENEATH, struct.pack("<Qi", rights, place), 0)
        os.close(place)
    if library.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "no_new_privs")
    call(RESTRICT_SELF, ruleset, 0)
    os.close(ruleset)
