"""The system calls that a guest may make: those of one process that computes, reads files and answers on its pipe.

An allow list, so what is not named fails: no new process, no signal to anybody, no socket, no other process' memory,
no mount, no namespace, no io_uring, no memfd, no raised limit. Standard library only: the sandbox's own process imports it.
"""

from __future__ import annotations

import ctypes
import functools
import os
import struct

NUMBERS = {
    "x86_64": """0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 28 32 33 34 35 36 37 38 39 44 45 60 61
        63 73 74 75 78 79 80 81 89 95 96 97 98 99 100 102 104 107 108 110 111 115 121 124 131 137 138 149 150 158
        186 201 202 204 213 217 218 219 228 229 230 231 232 233 247 257 262 267 269 270 271 273 274 281 283 284
        286 287 290 291 292 293 309 318 324 332 334 436 439""",
    "aarch64": """17 19 20 21 22 23 24 29 32 43 44 48 49 50 56 57 59 61 62 63 64 65 66 67 68 72 73 78 79 80 82 83 85 86 87
        93 94 95 96 98 99 100 101 102 103 113 114 115 123 124 128 132 134 135 139 153 155 156 158 160 163 165 166 168
        169 172 173 174 175 176 177 178 179 206 207 214 215 216 222 226 228 229 233 260 278 283 291 293 436 439""",
}
"""Reading, memory, own signals' handling, clocks, waiting, polling, exit. No kill, fork, socket, write of a new file
(that is the jail's business) or execve; numbers from the kernel's tables."""
SPECIAL = {  # clone, execve, fcntl, prlimit64, clone3
    "x86_64": (56, 59, 72, 302, 435),
    "aarch64": (220, 221, 25, 261, 435),
}
AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
CLONE_THREAD = 0x10000
OWNER_COMMANDS = (8, 10, 15)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX: they make the kernel signal somebody else."""

ALLOW, DENY, MISSING, KILL = 0x7FFF0000, 0x00050001, 0x00050026, 0x80000000  # EPERM, ENOSYS
LOAD, EQUAL, ANY_BIT, RETURN = 0x20, 0x15, 0x45, 0x06
AT_NUMBER, AT_ARCH = 0, 4
PR_SET_SECCOMP, PR_SET_NO_NEW_PRIVS, MODE_FILTER = 22, 38, 2
CAPSET = {"x86_64": 126, "aarch64": 91}
CAPABILITY_VERSION_3 = 0x20080522


@functools.cache
def program(machine: str, threads: bool, execute: bool) -> bytes:
    """The BPF program. ``threads``: threads of the same process may be started; ``execute``: another program may
    replace this one (it stays under the filter)."""

    def instruction(code: int, value: int, true: int = 0, false: int = 0) -> bytes:
        return struct.pack("<HBBI", code, true, false, value)

    def argument(index: int, high: bool = False) -> bytes:
        return instruction(LOAD, 16 + 8 * index + (4 if high else 0))

    allow, deny = instruction(RETURN, ALLOW), instruction(RETURN, DENY)

    def case(number: int, body: list[bytes]) -> list[bytes]:
        return [instruction(EQUAL, number, 0, len(body)), *body]

    clone, execve, fcntl, prlimit, clone3 = SPECIAL[machine]
    code = [instruction(LOAD, AT_ARCH), instruction(EQUAL, AUDIT_ARCH[machine], 1, 0), instruction(RETURN, KILL)]
    code += [instruction(LOAD, AT_NUMBER)]
    for number in map(int, NUMBERS[machine].split()):
        code += case(number, [allow])
    if execute:
        code += case(execve, [allow])
    if threads:
        code += case(clone, [argument(0), instruction(ANY_BIT, CLONE_THREAD, 0, 1), allow, deny])
    # The C library falls back to clone when clone3, whose arguments a filter cannot see, is not there.
    code += case(clone3, [instruction(RETURN, MISSING)])
    owners = [step for command in OWNER_COMMANDS for step in case(command, [deny])]
    code += case(fcntl, [argument(1), *owners, allow])
    zero = instruction(EQUAL, 0, 1, 0)
    reading_own = [argument(0), zero, deny, argument(2), zero, deny, argument(2, high=True), zero, deny, allow]
    code += case(prlimit, reading_own)
    return b"".join([*code, deny])


def install(threads: bool = False, execute: bool = False) -> None:
    """Confine this process and whatever it becomes. Raises OSError where the kernel or the machine has no such filter."""
    machine = os.uname().machine
    if machine not in NUMBERS:
        raise OSError(f"no system call table for {machine}")
    library = ctypes.CDLL(None, use_errno=True)
    _drop_capabilities(library, machine)
    code = program(machine, threads, execute)
    buffer = ctypes.create_string_buffer(code, len(code))
    head = struct.pack("@HP", len(code) // 8, ctypes.addressof(buffer))
    header = ctypes.create_string_buffer(head, len(head))
    prctl = library.prctl
    prctl.argtypes = [ctypes.c_int, *([ctypes.c_ulong] * 4)]
    for arguments in ((PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (PR_SET_SECCOMP, MODE_FILTER, ctypes.addressof(header), 0, 0)):
        if prctl(*arguments) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {arguments[0]}: {os.strerror(ctypes.get_errno())}")


def _drop_capabilities(library: ctypes.CDLL, machine: str) -> None:
    """Root in a sandbox is nobody: it could raise its own limits otherwise."""
    header, none = struct.pack("@Ii", CAPABILITY_VERSION_3, 0), bytes(24)
    if library.syscall(CAPSET[machine], header, none) != 0:
        raise OSError(ctypes.get_errno(), f"capset: {os.strerror(ctypes.get_errno())}")
