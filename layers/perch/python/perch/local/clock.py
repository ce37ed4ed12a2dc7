"""The one virtual clock of a local cloud: what time it is, and what is due when.

A rollout that takes a week on AWS must pass in seconds, and in the same order as it would there. So time is a value
that the local cloud owns: timers (schedules, alarm evaluations, retries) lie on one timeline, and the clock moves
along it in one of two ways.

- **Stepped** (`advance`, `advance_to`): the clock jumps from one due timer to the next, stands exactly at the due time
  while the timer's function runs, and waits until all work that this started has ended before it moves on.
- **Free-running** (`run`, `stop`): a thread moves the clock at `speed` virtual seconds per real second.

Work under way holds the clock (`hold`). The rule is that of every discrete-event simulation: virtual time never
overtakes work that began earlier. The clock stands still at a due time until all work that began before it has ended
(work that begins while it stands there does not count, so steady traffic cannot stop time; a stepped advance, which
has to wait for effects of effects too, waits until there is no work at all). Real time (`speed` 1 or less) is the
exception: a handler that hangs cannot stop the real world, so there timers fire when they are due.

Left to others: who holds (whoever runs functions), and what a timer does.
"""

from __future__ import annotations

import heapq
import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType

_log = logging.getLogger(__name__)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class ClockStuckError(RuntimeError):
    """Work that holds the clock did not end within the real time that a stepped advance is ready to wait."""


class Timer:
    """A place on the timeline; `cancel` takes it off. A repeating timer keeps its handle."""

    __slots__ = ("_clock", "cancelled", "due_us", "fn", "name", "period_us")

    def __init__(
        self, clock: VirtualClock, due_us: int, fn: Callable[[datetime], object], name: str, period_us: int | None
    ) -> None:
        self._clock = clock
        self.due_us = due_us
        self.fn = fn
        self.name = name
        self.period_us = period_us
        self.cancelled = False

    @property
    def due(self) -> datetime:
        """When it fires next (or fired last, for one that is done)."""
        return _to_datetime(self.due_us)

    def cancel(self) -> None:
        """Never fire (again). Safe to call twice, and from the timer's own function."""
        self._clock._cancel(self)  # noqa: SLF001 - a handle is part of its clock


class Hold:
    """One piece of work under way; a context manager that may be entered in one thread and left in another."""

    __slots__ = ("_clock", "began_us", "name")

    def __init__(self, clock: VirtualClock, name: str) -> None:
        self._clock = clock
        self.name = name
        self.began_us = 0

    def __enter__(self) -> None:
        self._clock._take(self)  # noqa: SLF001 - a hold is part of its clock

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clock._release(self)  # noqa: SLF001 - a hold is part of its clock


class VirtualClock:
    """Virtual time, with a timeline of due timers. All methods are safe to call from any thread.

    Args:
        start: The first virtual time; aware.
        speed: Virtual seconds per real second while free-running; may be set while it runs.
        wall: Real time in seconds, monotonic.
        patience_s: How many real seconds a stepped advance waits for holds before it raises `ClockStuckError`.
    """

    def __init__(
        self,
        start: datetime,
        *,
        speed: float = 1.0,
        wall: Callable[[], float] = time.monotonic,
        patience_s: float = 60.0,
    ) -> None:
        self._changed = threading.Condition()
        self._wall = wall
        self._speed = _checked_speed(speed)
        self._patience_s = patience_s
        self._anchor_us = _to_us(start)  # the virtual time that was, when ...
        self._anchor_wall = wall()  # ... real time was this; the pair is moved when the clock starts, stops or fires
        self._timeline: list[tuple[int, int, Timer]] = []
        self._order = 0  # timers that are due together fire in the order in which they were set
        self._holds: dict[int, Hold] = {}
        self._awaited = 0  # how many threads wait for holds; while none does, a release need not wake anybody
        self._thread: threading.Thread | None = None
        self._stepping = threading.Lock()
        self._firing = False

    # -- reading -----------------------------------------------------------------------------------------------------

    def now(self) -> datetime:
        """Return the virtual time, aware, in UTC."""
        if self._thread is None:
            return _to_datetime(self._anchor_us)
        with self._changed:
            return _to_datetime(self._now_us())

    @property
    def speed(self) -> float:
        """Virtual seconds per real second while free-running."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        with self._changed:
            self._anchor(self._now_us())
            self._speed = _checked_speed(speed)
            self._changed.notify_all()

    @property
    def running(self) -> bool:
        """Whether a thread moves the clock."""
        return self._thread is not None

    @property
    def holders(self) -> tuple[str, ...]:
        """The names of the work that holds the clock now."""
        with self._changed:
            return tuple(hold.name for hold in self._holds.values())

    def timers(self) -> tuple[Timer, ...]:
        """Return the timers that are set, the next due first."""
        with self._changed:
            return tuple(timer for _, _, timer in sorted(self._timeline) if not timer.cancelled)

    # -- the timeline ------------------------------------------------------------------------------------------------

    def call_at(self, when: datetime, fn: Callable[[datetime], object], name: str = "") -> Timer:
        """Call `fn(due time)` once at `when` (aware; a past time is due at once). Returns the handle to cancel it."""
        return self._set(Timer(self, _to_us(when), fn, name, None))

    def call_every(
        self,
        period: float | timedelta,
        fn: Callable[[datetime], object],
        name: str = "",
        first: datetime | None = None,
    ) -> Timer:
        """Call `fn(due time)` every `period` (seconds), first at `first` (default: one period from now).

        Raises:
            ValueError: the period is not positive.
        """
        period_us = round((period.total_seconds() if isinstance(period, timedelta) else period) * 1e6)
        if period_us <= 0:
            raise ValueError(f"a timer's period must be positive, not {period!r}")
        due_us = _to_us(first) if first is not None else _to_us(self.now()) + period_us
        return self._set(Timer(self, due_us, fn, name, period_us))

    def hold(self, name: str = "work") -> Hold:
        """Keep virtual time from passing the next due timer while work is under way. `name` is for error messages."""
        return Hold(self, name)

    # -- stepped -----------------------------------------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Move the clock by `seconds`, as `advance_to` does."""
        self.advance_to(self.now() + timedelta(seconds=seconds))

    def advance_to(self, when: datetime) -> None:
        """Move the clock to `when`, firing each timer that falls due, in order, and waiting out what each started.

        Raises:
            ClockStuckError: Work held the clock for longer than `patience_s` real seconds.
            RuntimeError: The clock is free-running, or another advance is under way.
            ValueError: `when` is in the past.
        """
        target = _to_us(when)
        if not self._stepping.acquire(blocking=False):
            raise RuntimeError("the clock is being advanced already; advance it from one place, and not from a timer")
        try:
            if self._thread is not None:
                raise RuntimeError("the clock is free-running; call stop() before advance()")
            if target < self._anchor_us:
                raise ValueError(f"cannot go back from {self.now().isoformat()} to {when.isoformat()}")
            self.wait_idle()
            while (timer := self._pop_due(target)) is not None:
                self._anchor_us = max(timer.due_us, self._anchor_us)
                due_us = timer.due_us
                self._repeat(timer)
                timer.fn(_to_datetime(due_us))
                if self._holds:
                    self.wait_idle()
            self._anchor_us = target
        finally:
            self._stepping.release()

    def wait_idle(self, timeout_s: float | None = None) -> None:
        """Wait until nothing holds the clock. Raises `ClockStuckError` after `timeout_s` (default `patience_s`)."""
        limit = self._patience_s if timeout_s is None else timeout_s
        with self._changed:
            self._awaited += 1
            idle = self._changed.wait_for(lambda: not self._holds and not self._firing, limit)
            self._awaited -= 1
            if not idle:
                names = ", ".join(sorted({hold.name for hold in self._holds.values()})) or "a timer's function"
                at = _to_datetime(self._now_us()).isoformat()
                raise ClockStuckError(f"waited {limit:g} s at {at} for work that does not end: {names}")

    # -- free-running ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let a thread move the clock at `speed` from now on. Does nothing when it runs already."""
        with self._stepping, self._changed:
            if self._thread is None:
                self._anchor(self._anchor_us)
                self._thread = threading.Thread(target=self._run, name="perch-clock", daemon=True)
                self._thread.start()

    def stop(self) -> None:
        """Stop free-running; the clock stands still at the time reached. Does nothing when it does not run."""
        with self._changed:
            thread = self._thread
            if thread is not None:
                self._anchor(self._now_us())
            self._thread = None
            self._changed.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join()

    def _run(self) -> None:
        me = threading.current_thread()
        while True:
            with self._changed:
                timer = self._wait_for_due(me)
                if timer is None:
                    return
                if self._speed > 1:  # the clock stood at the due time while it waited for holds: go on from there
                    self._anchor(max(timer.due_us, self._anchor_us))
                due_us = timer.due_us
                self._repeat(timer)
                self._firing = True
            try:
                timer.fn(_to_datetime(due_us))
            except Exception:  # noqa: BLE001 - a failing timer must not stop time
                _log.exception("timer %r failed", timer.name)
            finally:
                with self._changed:
                    self._firing = False
                    self._changed.notify_all()

    def _wait_for_due(self, me: threading.Thread) -> Timer | None:
        """Sleep until a timer may fire and take it off the timeline; None when the clock was stopped."""
        while self._thread is me:
            due_us = self._next_due_us()
            if due_us is None:
                self._changed.wait()
                continue
            real_s = (due_us - self._flowing_us()) / 1e6 / self._speed
            if real_s > 0:
                self._changed.wait(real_s)
            elif self._speed > 1 and any(hold.began_us < due_us for hold in self._holds.values()):
                self._awaited += 1
                self._changed.wait()
                self._awaited -= 1
            else:
                return heapq.heappop(self._timeline)[2]
        return None

    # -- inside ------------------------------------------------------------------------------------------------------

    def _flowing_us(self) -> int:
        return self._anchor_us + int((self._wall() - self._anchor_wall) * self._speed * 1e6)

    def _now_us(self) -> int:
        if self._thread is None:
            return self._anchor_us
        flowing = self._flowing_us()
        if self._speed > 1 and (due_us := self._next_due_us()) is not None:
            return max(self._anchor_us, min(flowing, due_us))
        return flowing

    def _anchor(self, now_us: int) -> None:
        self._anchor_us, self._anchor_wall = now_us, self._wall()

    def _next_due_us(self) -> int | None:
        while self._timeline and self._timeline[0][2].cancelled:
            heapq.heappop(self._timeline)
        return self._timeline[0][0] if self._timeline else None

    def _pop_due(self, target_us: int) -> Timer | None:
        with self._changed:
            due_us = self._next_due_us()
            return heapq.heappop(self._timeline)[2] if due_us is not None and due_us <= target_us else None

    def _set(self, timer: Timer) -> Timer:
        with self._changed:
            self._order += 1
            heapq.heappush(self._timeline, (timer.due_us, self._order, timer))
            self._changed.notify_all()
        return timer

    def _repeat(self, timer: Timer) -> None:
        if timer.period_us is not None:
            timer.due_us += timer.period_us
            self._set(timer)

    def _cancel(self, timer: Timer) -> None:
        with self._changed:
            timer.cancelled = True
            self._changed.notify_all()

    def _take(self, hold: Hold) -> None:
        with self._changed:
            hold.began_us = self._now_us()
            self._holds[id(hold)] = hold

    def _release(self, hold: Hold) -> None:
        with self._changed:
            self._holds.pop(id(hold), None)
            if self._awaited:
                self._changed.notify_all()


def _to_us(when: datetime) -> int:
    if when.tzinfo is None:
        raise ValueError(f"times must be aware, {when.isoformat()} is not")
    return (when - _EPOCH) // _MICROSECOND


def _to_datetime(us: int) -> datetime:
    return _EPOCH + timedelta(microseconds=us)


def _checked_speed(speed: float) -> float:
    if not 0 < speed < float("inf"):
        raise ValueError(f"speed must be a positive number of virtual seconds per real second, not {speed!r}")
    return speed


__all__ = ["ClockStuckError", "Hold", "Timer", "VirtualClock"]
