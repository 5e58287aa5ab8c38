"""How stage processes and commands say how they ended. 0 to 4 are the command line's; the others stay inside a run."""

DONE = 0
FAILED = 1
BAD_INPUT = 2
GATE_FAILED = 3
NO_FIT = 4
PAUSED = 75
STOPPED = 76
DISK_FULL = 77
ORPHANED = 78
"""The supervisor is gone: the stage ended itself, and a resume carries on."""
HELD = 79
"""Another supervisor works on the run."""
NO_MEMORY = 80
"""The device ran out of memory, and the stage has kept a smaller micro-batch to be started again with."""

WORDS = {
    DONE: "ended",
    GATE_FAILED: "ended; a gate failed",
    PAUSED: "paused",
    STOPPED: "stopped",
    DISK_FULL: "ended: the disk is full",
    ORPHANED: "ended: it lost its supervisor",
    NO_MEMORY: "ended: out of memory",
}
"""Endings that are no crash."""
