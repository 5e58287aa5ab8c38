"""The stage process: ``python -P -m engine.stage RUN_DIR INDEX``, started by the supervisor."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main() -> int:
    # A closed terminal or a polite kill of the process group must not end training; the supervisor's word does,
    # and the end of its pipe.
    for name in ("SIGTERM", "SIGHUP", "SIGINT"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    run_folder, index = Path(sys.argv[1]), int(sys.argv[2])
    from engine.runs.channel import Channel
    from engine.runs.events import ExitEvent
    from engine.runs.exitcodes import DONE, GATE_FAILED, PAUSED, STOPPED

    agreed = (DONE, GATE_FAILED, PAUSED, STOPPED)  # every rank ends with it; after any other the launcher ends the rest
    from engine.runs.directory import RunDirectory
    from engine.stages.execute import run_stage

    channel = Channel.from_stdin()
    code = run_stage(RunDirectory(run_folder), index, channel, alone=True)
    # Said as well as returned: a launcher around several ranks passes no exit code on.
    channel.emit(ExitEvent(process="stage", pid=os.getpid(), code=code))
    channel.close()
    sys.stdout.flush()
    sys.stderr.flush()
    # Frameworks leave threads that can hang an orderly exit; everything is on disk and said.
    os._exit(0 if int(os.environ.get("WORLD_SIZE", "1")) > 1 and code in agreed else code)


if __name__ == "__main__":
    main()
