"""The workers of one function version, and the calls that wait for one.

A call goes to an idle worker, the one used last first (its caches are warm). When there is none, another worker is
started, up to `max_workers`; beyond that calls wait, first come first served. This is where a laptop differs from
Lambda, which would start a sandbox for each: more concurrent invocations than workers wait instead of running.

When a worker cannot start, the call that has waited longest gets the reason as its answer (Lambda would retry the
init once more inside the invocation; it fails the same way). An init that runs into its time limit is tried once more
on the function's own timeout, as in Lambda.
"""

from __future__ import annotations

import signal
from collections import deque
from typing import Protocol

from perch.local.compute import faults
from perch.local.compute.call import Call
from perch.local.compute.faults import Fault
from perch.local.compute.worker import Host, Worker
from perch.local.ports import FunctionVersion


class Fleet(Protocol):
    """All pools together, as one pool sees them."""

    def make_room(self) -> None:
        """A worker is about to start."""

    def emptied(self, pool: Pool) -> None:
        """A pool has neither workers nor calls."""


class Pool:
    """Runs the calls of one function version; belongs to the loop's thread."""

    def __init__(self, host: Host, fleet: Fleet, function: FunctionVersion, max_workers: int) -> None:
        """Make an empty pool."""
        self.function = function
        self.workers: list[Worker] = []
        self._host = host
        self._fleet = fleet
        self._max = max_workers
        self._idle: list[Worker] = []
        self._queue: deque[Call] = deque()
        self._retiring = False

    def submit(self, call: Call) -> None:
        """Run a call as soon as a worker is free."""
        if self._idle:
            self._idle.pop().deliver(call)
        else:
            self._queue.append(call)
            self._scale()

    def retire(self) -> None:
        """Take no new calls: idle workers end now, busy ones when the calls accepted so far are done."""
        self._retiring = True
        self._stop_idle()

    def least_recent(self) -> Worker | None:
        """Return the worker that has been idle longest."""
        return self._idle[0] if self._idle else None

    def stop_worker(self, worker: Worker) -> None:
        """End an idle worker."""
        self._idle.remove(worker)
        self.workers.remove(worker)
        worker.stop()
        self._check_empty()

    def kill(self) -> None:
        """End everything now; calls under way and calls that wait are answered as if the runtime had been killed."""
        self._retiring = True
        while self._queue:
            self._refuse(self._queue.popleft(), faults.exited(signal.SIGKILL))
        for worker in list(self.workers):
            worker.stop()
        self.workers.clear()
        self._idle.clear()

    def ready(self, worker: Worker) -> None:
        """A worker can take a call."""
        if self._queue:
            worker.deliver(self._queue.popleft())
        else:
            self._idle.append(worker)
            if self._retiring:
                self._stop_idle()

    def lost(self, worker: Worker, fault: Fault | None) -> None:
        """A worker is gone; its last call, if it had one, is answered by itself."""
        if worker in self._idle:
            self._idle.remove(worker)
        if worker in self.workers:
            self.workers.remove(worker)
        again = worker.timed_out_in_init and not worker.second_try
        if fault is not None and self._queue and not again:
            self._refuse(self._queue.popleft(), fault)
        self._scale(second_try=again)
        self._check_empty()

    def _scale(self, *, second_try: bool = False) -> None:
        # A worker that has just answered asks for more in a moment: cheaper to wait for than a cold start.
        coming = sum(worker.state in ("starting", "returning") for worker in self.workers)
        while coming < len(self._queue) and len(self.workers) < self._max:
            self._fleet.make_room()
            self.workers.append(Worker(self._host, self, self.function, second_try=second_try))
            coming += 1

    def _refuse(self, call: Call, fault: Fault) -> None:
        seconds = self.function.timeout_s if fault.status == "timeout" else 0.0
        call.end(fault.payload(call.request_id), failed=True, duration_ms=seconds * 1000, cold=True)

    def _stop_idle(self) -> None:
        while self._idle:
            self.stop_worker(self._idle[0])

    def _check_empty(self) -> None:
        if not self.workers and not self._queue:
            self._fleet.emptied(self)
