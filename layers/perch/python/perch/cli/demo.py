"""`perch demo`: the story of examples/digits, told on a local cloud of its own."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

from perch.domain.errors import NotFound


def demo(*, keep: bool) -> int:
    """Run the demo of the repository in the current folder; return its exit code.

    Raises:
        NotFound: the current folder is not Perch's repository.
    """
    if not Path("examples/digits/demo.py").is_file():
        raise NotFound("the demo lives in Perch's repository; run `perch demo` in a clone of it")
    sys.path.insert(0, str(Path.cwd()))
    return int(import_module("examples.digits.demo").run(keep=keep))
