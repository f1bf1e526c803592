"""Functions that ask and wait for answers, advanced one at a time by whoever serves them.

A method is plain code whose products lie deep in calls of calls. To let several runs of it meet at
their products without rewriting any, each has a thread of its own; but only one thread runs at a
time, and the others wait for an answer. So what happens does not depend on timing, and nothing
that the functions share needs a lock.
"""

from __future__ import annotations

import _thread
import contextvars
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

T = TypeVar("T")

#: ask(question) returns the answer, or raises KeyboardInterrupt where the task is stopped.
Ask = Callable[[Any], Any]

_STOP = object()
_ENDED = object()


class _Side(Generic[T]):
    """What a task and its thread share.

    Queues and no locks: an interrupt of the owner at any instruction leaves them usable.
    """

    def __init__(self, work: Callable[[Ask], T]) -> None:
        self.questions: SimpleQueue[Any] = SimpleQueue()
        self.answers: SimpleQueue[Any] = SimpleQueue()
        self.stopped = False
        self.result: T | None = None
        self.error: BaseException | None = None
        self._work = work

    def run(self) -> None:
        try:
            self.result = self._work(self._ask)
        except BaseException as error:  # the owner raises it again
            self.error = error
        finally:
            self.questions.put(_ENDED)

    def _ask(self, question: Any) -> Any:
        if self.stopped:
            raise KeyboardInterrupt
        self.questions.put(question)
        answer = self.answers.get()
        if answer is _STOP:
            raise KeyboardInterrupt
        return answer


def _begin(thread: threading.Thread, side: _Side[Any]) -> None:
    """Start a thread; where the system has no more of them, its owner is not left waiting."""
    try:
        thread.start()
    except BaseException as error:  # the owner raises it again
        side.error = error
        side.questions.put(_ENDED)


class Task(Generic[T]):
    """A function in a thread of its own that runs only while its owner waits for it.

    The thread does not know its task, and is stopped when that is lost.

    Parameters
    ----------
    work : callable
        Called with ``ask``; ``ask(question)`` hands a question to the owner and returns the
        answer.
    name : str
        Of the thread.

    Examples
    --------
    >>> task = Task(lambda ask: 2 * ask("how many?"), "example")
    >>> with stopping([task]):
    ...     print(task.start())
    ...     print(task.answer(3) is None, task.result)
    how many?
    True 6
    """

    def __init__(self, work: Callable[[Ask], T], name: str) -> None:
        self._side = _Side(work)
        context = contextvars.copy_context()  # NumPy's error state is the owner's
        # A daemon: whatever a second interrupt does to join, it can't keep Python from ending.
        self._thread = threading.Thread(
            target=context.run, args=(self._side.run,), name=name, daemon=True
        )

    @property
    def result(self) -> T | None:
        """What ``work`` returned, None before that."""
        return self._side.result

    def start(self) -> Any:
        """Run to the first question and return it; None where there is none."""
        # Thread.start holds locks, which an interrupt may leave held: the new thread would wait for
        # them for ever. Interrupts are the main thread's, so another one starts it.
        _thread.start_new_thread(_begin, (self._thread, self._side))
        return self._wait()

    def answer(self, answer: Any) -> Any:
        """Answer the last question, run to the next and return it; None where there is none."""
        self._side.answers.put(answer)
        return self._wait()

    def _wait(self) -> Any:
        question = self._side.questions.get()
        if question is not _ENDED:
            return question
        if self._side.error is not None:
            raise self._side.error
        return None

    def stop(self) -> None:
        """Let the question that is open raise KeyboardInterrupt, or else the next one."""
        self._side.stopped = True
        self._side.answers.put(_STOP)

    def join(self) -> None:
        """Wait for the thread to end."""
        if self._thread.ident is not None:
            self._thread.join()

    def __del__(self) -> None:
        self.stop()


@contextmanager
def stopping(tasks: Sequence[Task[Any]]) -> Iterator[None]:
    """Leave no thread of these tasks behind, whatever happens inside."""
    try:
        yield
    finally:
        while True:
            try:
                for task in tasks:
                    task.stop()
                break
            except KeyboardInterrupt:  # a second one: the first is being served
                continue
        for task in tasks:
            task.join()
