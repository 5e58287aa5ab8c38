"""The chat process: ``python -P -m engine.chat RUN_DIR STAGE [COMPARE]``, with its line as standard input."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path


def main() -> int:
    for name in ("SIGINT", "SIGHUP"):  # a closed terminal ends the line, and that ends this process
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    from engine.chat.line import Line
    from engine.chat.speaking import Speaking
    from engine.runs.directory import RunDirectory

    line = Line.from_stdin()
    stage, compare = sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""
    code = Speaking(RunDirectory(Path(sys.argv[1])), line).run(stage, compare)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # frameworks leave threads that can hang an orderly exit; everything is said


if __name__ == "__main__":
    main()
