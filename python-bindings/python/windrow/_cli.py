"""The program ``windrow``, run by the interpreter that the package is installed in."""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Runs the program with the arguments of the process and ends the process with its exit code."""
    from windrow import _windrow

    # Whoever needs Ctrl-C listens by itself, and everybody else is to end by it, as any program.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    code = _windrow.run_program(["windrow", *sys.argv[1:]])
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            pass
    # No thread of the program, one that waits for a terminal or a pipe, holds up the end.
    os._exit(code)


if __name__ == "__main__":
    main()
