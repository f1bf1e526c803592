"""Streams: everything is done at once, and yet what one stream wrote another may not use unasked.

On a device both would run at the same time. Here that is an error, :class:`RaceError`, unless
the host has waited for the writer, an event orders the two, or the null stream does.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from typing import Any, ClassVar, Self
from weakref import WeakSet

from .._names import restrict
from . import runtime

_numbers = itertools.count(1)
_local = threading.local()


class RaceError(RuntimeError):
    """A stream uses what another may still be writing: the real one would read anything."""


class Queue:
    """The work of one stream: how much was asked for, and how much the host has waited for."""

    def __init__(self, *, null: bool = False, non_blocking: bool = False) -> None:
        self.number = 0 if null else next(_numbers)
        self.null = null
        self.non_blocking = non_blocking
        self.issued = 0
        self.done = 0
        #: How much of other queues this one has waited for.
        self.waited: dict[Queue, int] = {}

    def issue(self) -> tuple[Queue, int]:
        """One more piece of work."""
        self.issued += 1
        return self, self.issued

    def wait(self) -> None:
        self.done = self.issued

    def check(self, work: tuple[Queue, int]) -> None:
        """Refuse to use what that work wrote, unless it comes before this queue's next."""
        queue, serial = work
        if queue is self or serial <= queue.done or serial <= self.waited.get(queue, 0):
            return
        if (queue.null or self.null) and not (queue.non_blocking or self.non_blocking):
            return  # the null stream waits for the others, and they for it
        raise RaceError("An array is used on a stream while another stream may be writing it.")


_nulls: defaultdict[int, Queue] = defaultdict(lambda: Queue(null=True))
_queues: defaultdict[int, WeakSet[Queue]] = defaultdict(WeakSet)


def _currents() -> dict[int, Any]:
    """The current stream of this thread on each device."""
    if not hasattr(_local, "streams"):
        _local.streams = {}
    found: dict[int, Any] = _local.streams
    return found


def current_queue() -> Queue:
    """Where this thread's next work goes."""
    stream = _currents().get(runtime.getDevice())
    return _nulls[runtime.getDevice()] if stream is None else stream._queue


def synchronize_device(number: int) -> None:
    for queue in (_nulls[number], *_queues[number]):
        queue.wait()


class _BaseStream:
    _own: Queue | None

    @property
    def _queue(self) -> Queue:
        return _nulls[runtime.getDevice()] if self._own is None else self._own

    @property
    def ptr(self) -> int:
        return self._queue.number

    def __enter__(self) -> Self:
        device = runtime.getDevice()
        self._before.append((device, _currents().get(device)))
        return self.use()

    def __exit__(self, *error: object) -> None:
        device, before = self._before.pop()
        _currents()[device] = before

    def use(self) -> Self:
        _currents()[runtime.getDevice()] = self
        return self

    def synchronize(self) -> None:
        self._queue.wait()

    def record(self, event: Event | None = None) -> Event:
        event = Event() if event is None else event
        event._work = (self._queue, self._queue.issued)
        return event

    def wait_event(self, event: Event) -> None:
        if event._work is not None:
            queue, serial = event._work
            self._queue.waited[queue] = max(serial, self._queue.waited.get(queue, 0))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BaseStream) and other._queue is self._queue

    def __hash__(self) -> int:
        return hash(self.ptr)


class Stream(_BaseStream):
    """A stream of the current device."""

    null: ClassVar[Stream]

    def __init__(
        self,
        null: bool = False,
        non_blocking: bool = False,
        ptds: bool = False,
        priority: int | None = None,
    ) -> None:
        if ptds:
            raise NotImplementedError("The stand-in has no default stream of each thread.")
        self._before: list[tuple[int, Any]] = []
        self._own = None if null else Queue(non_blocking=non_blocking)
        self.device_id = -1 if null else runtime.getDevice()
        if self._own is not None:
            _queues[self.device_id].add(self._own)


Stream.null = Stream(null=True)


class ExternalStream(_BaseStream):
    """A stream that somebody else made, by its number."""

    def __init__(self, ptr: int, device_id: int = -1) -> None:
        device = runtime.getDevice() if device_id < 0 else device_id
        known = {queue.number: queue for queue in (*_queues[device], _nulls[device])}
        if ptr not in known:
            raise runtime.CUDARuntimeError("cudaErrorInvalidResourceHandle: no such stream")
        self._before: list[tuple[int, Any]] = []
        self._own = known[ptr]
        self.device_id = device_id


class Event:
    """A place in the work of a stream."""

    def __init__(
        self, block: bool = False, disable_timing: bool = False, interprocess: bool = False
    ) -> None:
        self._work: tuple[Queue, int] | None = None

    def record(self, stream: _BaseStream | None = None) -> None:
        (get_current_stream() if stream is None else stream).record(self)

    def synchronize(self) -> None:
        if self._work is not None:
            queue, serial = self._work
            queue.done = max(queue.done, serial)


def get_current_stream(device_id: int = -1) -> Any:
    """The current stream of this thread on a device, the current one when omitted."""
    device = runtime.getDevice() if device_id < 0 else device_id
    return _currents().get(device) or Stream.null


for _class in (Stream, ExternalStream):
    restrict(_class, f"cupy.cuda.{_class.__name__}")
