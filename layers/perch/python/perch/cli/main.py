"""Where the process of `perch` begins: it imports the command (`app`) and runs it.

The import takes a moment, in which nothing is under way: whoever interrupts then wants an end, and no traceback of
imports. The same goes for the moment after the last word. Between them an interruption is the command's own to handle.
"""

from __future__ import annotations

import os
import signal
from types import FrameType


def main() -> None:
    """Run the command line; it ends as `app` says."""
    while_it_runs = signal.getsignal(signal.SIGINT)
    around = signal.SIG_IGN if while_it_runs is signal.SIG_IGN else _leave  # ignored under `nohup`, and with `&`
    signal.signal(signal.SIGINT, around)
    from typer.main import get_command

    from perch.cli.app import app

    command = get_command(app)
    signal.signal(signal.SIGINT, while_it_runs)
    try:
        command()
    finally:
        signal.signal(signal.SIGINT, around)


def _leave(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)  # an exception could be caught by whatever is being imported
