"""Where hostile files are opened: a process for each, with limits, that is watched and may die.

    python -m tests.hostile.cage hostile TRAP     every hostile file, through the inspector
    python -m tests.hostile.cage damaged SEED     good files of every format, cut and flipped; what passes is loaded

All readers are imported once; then each hostile file gets a fork of its own, and the damaged ones
share one until it dies. A fork may take so long, so much memory
and no disk; Python tells of whatever it does beside reading (`sys.addaudithook`): a command, a
connection, a class looked up for a pickle, a file opened. One line of JSON a file goes to standard output.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

from perch.artifacts import ArtifactRefused, Inspected, inspect
from perch.domain.formats import FORMATS, named
from tests.hostile import REFUSED, SERVED, TRUST, Hostile
from tests.hostile.good import GOOD

WALL_S = 120
ROOM = 64 * 1024 * 1024
"""What an inspection may take beside a few times the file."""

LOADING_ROOM = 1024 * 1024 * 1024
TRUNCATIONS, FLIPS = 16, 60

_WATCHED = (
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "os.remove",
    "os.rename",
    "os.mkdir",
    "subprocess.Popen",
    "socket.connect",
    "socket.bind",
    "pickle.find_class",
    "ctypes.dlopen",
    "shutil.",
)


@dataclass(kw_only=True)
class Outcome:
    """What became of one file.

    Attributes:
        verdict: `refused`, `needs trust` or `served`; `raised` for any exception but a refusal, `died` for a signal.
        reason: the refusal, what could run code, the exception, or the signal.
        did: what was seen of the process beside reading.
        grown: bytes by which its memory grew at most.
        seconds: processor time.
        loaded: for a damaged file that passes: `ran`, the name of an exception, or the signal.
        expected: of a hostile file, what it says of itself: verdict, words and threat.
    """

    title: str
    size: int
    verdict: str = ""
    reason: str = ""
    did: list[str] = field(default_factory=list)
    grown: int = 0
    seconds: float = 0.0
    loaded: str = ""
    expected: dict[str, str] = field(default_factory=dict)
    number: int = 0
    pipe: int = -1

    def tell(self) -> None:
        """Send what is known so far to the process that waits for it."""
        os.write(self.pipe, json.dumps(asdict(self)).encode() + b"\n")


Work = Callable[[Outcome], None]


def caged(works: Sequence[tuple[Outcome, Work]], *, room: Callable[[Outcome], int]) -> Iterator[Outcome]:
    """Do pieces of work in a fork, one after the other; when it dies, the rest in another.

    Args:
        works: outcomes to be filled in, and what fills them.
        room: bytes by which the fork's memory may grow, for each.

    Yields:
        Each outcome, as far as its work came.
    """
    left = list(works)
    while left:
        told, status = _in_fork(left, room)
        if status and told:
            said = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit code {status >> 8}"
            if told[-1].verdict:
                told[-1].loaded = said
            else:
                told[-1].verdict, told[-1].reason = "died", said
        elif len(told) < len(left):
            raise RuntimeError(f"a fork did {len(told)} of {len(left)} pieces of work and left with status {status}")
        yield from told
        left = left[len(told) :]


def _in_fork(works: Sequence[tuple[Outcome, Work]], room: Callable[[Outcome], int]) -> tuple[list[Outcome], int]:
    """Return the outcomes of those that were begun, and how the fork ended."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for number, (outcome, work) in enumerate(works):
                outcome.number, outcome.pipe = number, writer
                outcome.tell()
                signal.alarm(WALL_S)
                with _limited(outcome, room(outcome)), _watching(outcome):
                    work(outcome)
                outcome.tell()
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    latest: dict[int, Outcome] = {}
    with os.fdopen(reader, "rb") as pipe:
        for line in pipe:
            outcome = Outcome(**json.loads(line))
            latest[outcome.number] = outcome
    return list(latest.values()), os.waitpid(child, 0)[1]


def look(outcome: Outcome, name: str, data: bytes) -> Inspected | None:
    """Inspect, and write down what is said."""
    try:
        found = inspect(name, data)
    except ArtifactRefused as refused:
        outcome.verdict, outcome.reason = REFUSED, refused.reason
        return None
    except BaseException as error:  # noqa: BLE001 - whatever it is, it is what the test is about
        outcome.verdict, outcome.reason = "raised", f"{type(error).__name__}: {error}"[:300]
        return None
    outcome.verdict, outcome.reason = (TRUST, found.code) if found.code else (SERVED, "")
    return found


def load_and_run(outcome: Outcome, found: Inspected, data: bytes) -> None:
    """Load what the inspector let through, on the runtime that suits it best, and ask it for a few rows."""
    from perch.predictor.interface import interface_of

    try:
        model = named(FORMATS[found.format].loaders[found.runtimes[0]])(data)
        zeros = interface_of(model.signature, model.axes).zeros()
        model.run_named(zeros)
        outcome.loaded = "ran"
        for number in (1, 3, -2.5, 1e9) if found.format == "skops" else ():
            with suppress(Exception):  # numbers that it may well refuse
                model.run_named({name: one if one.dtype.kind == "O" else one + number for name, one in zeros.items()})
    except BaseException as error:  # noqa: BLE001 - as above
        outcome.loaded = type(error).__name__


# -- what is opened -----------------------------------------------------------------------------------------------


def collected(trap: Path) -> Iterator[Hostile]:
    """All hostile files of this folder, in the order of its modules."""
    for file in sorted(Path(__file__).parent.glob("*.py")):
        module = (
            None if file.stem.startswith(("test_", "cage", "table")) else import_module(f"tests.hostile.{file.stem}")
        )
        if hasattr(module, "hostile"):
            yield from module.hostile(trap)


def damaged(data: bytes, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """A good file, cut short here and there, and with one bit flipped here and there."""
    size = len(data)
    for end in sorted({0, 1, 7, 8, 9, size - 1, *(chance.randrange(size) for _ in range(TRUNCATIONS))}):
        yield f"cut to {end} of {size} bytes", data[:end]
    # Headers lie at the ends; the middle of a large file is mostly numbers.
    ends = [chance.randrange(min(size, 1024)) for _ in range(FLIPS)]
    ends += [size - 1 - chance.randrange(min(size, 1024)) for _ in range(FLIPS // 2)]
    for place in sorted({*ends, *(chance.randrange(size) for _ in range(FLIPS))}):
        bit = chance.randrange(8)
        flipped = bytes([data[place] ^ (1 << bit)])
        yield f"bit {bit} of byte {place} flipped", data[:place] + flipped + data[place + 1 :]


def _open_hostile(trap: Path) -> Iterator[Outcome]:
    works = [_hostile(one) for one in collected(trap)]
    yield from caged(works, room=lambda outcome: 8 * outcome.size + 4 * ROOM)


def _hostile(one: Hostile) -> tuple[Outcome, Work]:
    expected = {"verdict": one.verdict, "words": one.words, "threat": one.threat}
    outcome = Outcome(title=one.title, size=len(one.data), expected=expected)
    return outcome, lambda seen: void(look(seen, one.file, one.data))


def void(_: object) -> None:
    """Leave out what a work returns."""


def _open_damaged(seed: str) -> Iterator[Outcome]:
    for kind, (name, build) in GOOD.items():
        good = build()
        files = [("as it is", good), *damaged(good, random.Random(f"{seed} {kind}"))]  # noqa: S311 - not for secrets
        yield from caged(
            [_damaged(f"{kind} {title}", name, data) for title, data in files], room=lambda _: LOADING_ROOM
        )


def _open_crafted(seed: str) -> Iterator[Outcome]:
    from tests.hostile.crafted_skops import crafted, good

    for name, data in good():
        files = [("as it is", data), *crafted(data, random.Random(f"{seed} {name}"))]  # noqa: S311 - not for secrets
        yield from caged(
            [_damaged(f"{name}, {title}", "model.skops", one) for title, one in files], room=lambda _: LOADING_ROOM
        )


def _damaged(title: str, name: str, data: bytes) -> tuple[Outcome, Work]:
    def work(seen: Outcome) -> None:
        found = look(seen, name, data)
        if found is not None and not found.code:
            seen.tell()
            load_and_run(seen, found, data)

    return Outcome(title=title, size=len(data)), work


# -- limits and watching ------------------------------------------------------------------------------------------


@contextmanager
def _limited(outcome: Outcome, room: int) -> Iterator[None]:
    """Bound the memory of this process, and measure by how much it grew at most and how long it worked."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    Path("/proc/self/clear_refs").write_text("5")  # forgets the largest size so far
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
    before = _status("VmRSS")
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (_status("VmSize") + room, hard))
    began = time.process_time()
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
        outcome.seconds = time.process_time() - began
        outcome.grown = max(0, _status("VmHWM") - before)


def _status(key: str) -> int:
    """A number of bytes that Linux tells of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


_watched: Outcome | None = None
"""Whose process this is; None: nobody's. A hook cannot be taken off, so there is one, and it looks here."""


@contextmanager
def _watching(outcome: Outcome) -> Iterator[None]:
    global _watched  # noqa: PLW0603 - see above
    _watched = outcome
    yield
    _watched = None


def _watch(event: str, arguments: Any) -> None:
    if _watched is not None and (event.startswith(_WATCHED) or (event == "open" and not _own(arguments))):
        _watched.did.append(f"{event} {str(arguments)[:100]}")


def _own(arguments: Any) -> bool:
    """Whether a file that is opened is code of Python's or ours, to be read."""
    path, mode = str(arguments[0]), str(arguments[1] or "r")
    homes = (sys.prefix, sys.base_prefix, str(Path(__file__).resolve().parents[2]), "/proc/self/")
    return "w" not in mode and "a" not in mode and (path.startswith(homes) or path.isdigit())


def main(what: str, argument: str) -> None:
    """Open all files of one kind."""
    for fmt in FORMATS.values():  # what is imported before the first fork is imported once
        named(fmt.inspector)
        for loader in fmt.loaders.values() if what == "damaged" or (what, fmt.name) == ("crafted", "skops") else ():
            named(loader)
    import onnx  # noqa: F401 - as above

    sys.addaudithook(_watch)
    opened = {"hostile": lambda: _open_hostile(Path(argument)), "damaged": lambda: _open_damaged(argument)}
    for outcome in opened.get(what, lambda: _open_crafted(argument))():
        print(json.dumps(asdict(outcome)), flush=True)  # noqa: T201 - this is its output


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
