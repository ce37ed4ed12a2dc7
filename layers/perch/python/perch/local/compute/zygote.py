"""The fork server: one process that has the runtime's imports done, and forks a worker out of itself on request.

A worker started from nothing spends half a second importing what every worker imports. Here that is done once, and a
cold start costs a fork. The process is single-threaded, so that forking is safe, and does three things: read a spawn
or kill request from a socket, tell which worker ended and how, and die when the socket closes or its parent does.
Workers die with it (PR_SET_PDEATHSIG), so nothing is left behind when the local cloud is killed with SIGKILL.

It is run as a script, by path, in isolated mode, and imports the standard library only before `main`: it must never
import `perch`, because each worker has to find the copy of its own layer. What is preloaded comes from the
environment's site-packages; a worker whose code or layers hold a package of the same name forgets the preloaded one
and imports its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import signal
import site
import socket
import sys
import sysconfig
import time
import traceback
from importlib import _bootstrap_external  # where importing looks for bytecode
from typing import Any

PR_SET_PDEATHSIG = 1
MESSAGE_LIMIT = 1 << 20


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; end at once if it already has."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def base_path() -> list[str]:
    """Return `sys.path` as Lambda would have it: standard library and site-packages, no editable installs."""
    packages = {os.path.realpath(folder) for folder in site.getsitepackages()}
    library = os.path.realpath(sysconfig.get_path("stdlib"))

    def kept(entry: str) -> bool:
        real = os.path.realpath(entry)
        is_library = real == library or os.path.dirname(real) in (library, os.path.dirname(library))  # noqa: PTH120 - pathlib would be one more import in every worker
        return real in packages or (is_library and "python" in os.path.basename(library))  # noqa: PTH119 - as above

    return [entry for entry in sys.path if entry and kept(entry)]


def forget_shadowed(folders: list[str]) -> None:
    """Drop preloaded modules of which the function brings its own copy."""
    own: set[str] = set()
    for folder in folders:
        if os.path.isdir(folder):  # noqa: PTH112 - as above
            own.update(name.split(".")[0] for name in os.listdir(folder))  # noqa: PTH208 - as above
    for name in [name for name in sys.modules if name.split(".")[0] in own and name != "__main__"]:
        spec = getattr(sys.modules[name], "__spec__", None)
        if spec is not None and spec.origin not in ("built-in", "frozen"):
            del sys.modules[name]


def keep_bytecode_apart(folders: list[str], home: str) -> None:
    """Keep bytecode out of the function's folders: they stay as they are, as the read-only /var/task does.

    Python knows one place for all bytecode (`sys.pycache_prefix`), but installed packages have theirs beside them
    already, and to compile torch once more takes three seconds.
    """
    beside = _bootstrap_external.cache_from_source
    own = tuple(os.path.join(folder, "") for folder in folders)  # noqa: PTH118 - as above

    def cache_from_source(path: str, *given: Any, **named: Any) -> str:
        found: str = beside(path, *given, **named)
        return home + found if path.startswith(own) else found

    _bootstrap_external.cache_from_source = cache_from_source  # type: ignore[assignment]  # it takes what the old one did


def become_worker(request: dict[str, Any], output: int, path: list[str]) -> int:
    """Turn this freshly forked process into a Lambda execution environment; return its exit status."""
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.closerange(3, 256)
    folders: list[str] = request["path"]
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    forget_shadowed(folders)
    sys.path[:] = folders + path
    sys.path_importer_cache.clear()
    sys.argv = ["bootstrap.py", request["handler"]]
    keep_bytecode_apart(folders, request["pycache"])
    os.chdir(request["directory"])
    try:
        from awslambdaric.__main__ import main as run  # noqa: PLC0415 - it reads the environment when imported

        run(sys.argv)
    except SystemExit as end:
        code = end.code
        return code if isinstance(code, int) else int(code is not None)
    except BaseException:  # noqa: BLE001 - whatever escapes ends the runtime with status 1, as in Lambda
        traceback.print_exc()
        return 1
    return 0


class Server:
    """Forks workers on request, kills them on request, and says how each one ended."""

    def __init__(self, control: socket.socket) -> None:
        """Serve the other end of a socket."""
        self.control = control
        self.workers: dict[int, int] = {}  # process ids by the number that the other end gave
        self.path = base_path()
        self.me = os.getpid()
        self.wake, wake_write = os.pipe()
        os.set_blocking(self.wake, False)
        os.set_blocking(wake_write, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        """Serve until the other end closes; then kill all."""
        while True:
            ready, _, _ = select.select([self.control.fileno(), self.wake], [], [])
            if self.wake in ready:
                os.read(self.wake, 4096)
                self.reap()
            if self.control.fileno() in ready:
                try:
                    message, files, _, _ = socket.recv_fds(self.control, MESSAGE_LIMIT, 1)
                except ConnectionResetError:
                    break  # closed before it had read all that we told it
                if not message:
                    break
                request = json.loads(message)
                if "kill" not in request:
                    self.spawn(request, files[0])
                elif request["kill"] in self.workers:
                    # Killed here, by the parent that has not reaped it, so that a recycled process id is never hit.
                    kill_group(self.workers[request["kill"]])
        for pid in self.workers.values():
            kill_group(pid)

    def reap(self) -> None:
        """Report the workers that ended."""
        while self.workers:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None:
                return
            kill_group(
                ended.si_pid
            )  # what the handler started does not outlive it; not reaped yet, so the id is its own
            _, status = os.waitpid(ended.si_pid, 0)
            for number in [number for number, pid in self.workers.items() if pid == ended.si_pid]:
                del self.workers[number]
                self.tell({"number": number, "exit": status})

    def spawn(self, request: dict[str, Any], output: int) -> None:
        """Fork one worker."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                os.setsid()
                die_with(self.me)
                status = become_worker(request, output, self.path)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(status)
        os.close(output)
        self.workers[request["number"]] = pid
        self.tell({"number": request["number"], "pid": pid})

    def tell(self, message: dict[str, int]) -> None:
        """Send one message; the other end may be gone, and then so are we soon."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.control.send(json.dumps(message).encode())


def kill_group(pid: int) -> None:
    """Kill a worker and whatever it started."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)  # it may be forked, but not yet the leader of its own group
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def main() -> None:
    """Preload, then serve: `zygote.py <socket fd> <parent pid> <module,module,…>`."""
    control = socket.socket(fileno=int(sys.argv[1]))
    die_with(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the local cloud ends us itself
    for name in filter(None, sys.argv[3].split(",")):
        try:
            importlib.import_module(name)
        except ImportError:
            continue
    gc.collect()
    gc.freeze()  # keep the collector from touching, and so copying, the pages that workers share
    Server(control).run()


if __name__ == "__main__":
    main()
