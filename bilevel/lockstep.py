"""Functions that ask and wait for answers, advanced one at a time by whoever serves them.

A method is plain code whose products lie deep in calls of calls. To let several runs of it meet at
their products without rewriting any, each has a thread of its own; but only one thread runs at a
time, and the others wait for an answer. So what happens does not depend on timing, and nothing
that the functions share needs a lock.
"""

from __future__ import annotations

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


class Task(Generic[T]):
    """A function in a thread of its own that runs only while its owner waits for it.

    Parameters
    ----------
    work : callable
        Called with ``ask``; ``ask(question)`` hands a question to the owner and returns the
        answer.
    name : str
        Of the thread.

    Attributes
    ----------
    result : object or None
        What ``work`` returned, None before that.

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
        self.result: T | None = None
        self._work = work
        self._error: BaseException | None = None
        self._stopped = False
        # Queues and no locks: an interrupt of the owner at any instruction leaves them usable.
        self._questions: SimpleQueue[Any] = SimpleQueue()
        self._answers: SimpleQueue[Any] = SimpleQueue()
        context = contextvars.copy_context()  # NumPy's error state is the owner's
        # A daemon: not even an interrupt while a thread is born can keep Python from ending.
        self._thread = threading.Thread(
            target=context.run, args=(self._run,), name=name, daemon=True
        )

    def start(self) -> Any:
        """Run to the first question and return it; None where there is none."""
        self._thread.start()
        return self._wait()

    def answer(self, answer: Any) -> Any:
        """Answer the last question, run to the next and return it; None where there is none."""
        self._answers.put(answer)
        return self._wait()

    def _wait(self) -> Any:
        question = self._questions.get()
        if question is not _ENDED:
            return question
        if self._error is not None:
            raise self._error
        return None

    def stop(self) -> None:
        """Let the question that is open raise KeyboardInterrupt, or else the next one."""
        self._stopped = True
        self._answers.put(_STOP)

    def join(self) -> None:
        """Wait for the thread to end."""
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self.result = self._work(self._ask)
        except BaseException as error:  # the owner raises it again
            self._error = error
        finally:
            self._questions.put(_ENDED)

    def _ask(self, question: Any) -> Any:
        if self._stopped:
            raise KeyboardInterrupt
        self._questions.put(question)
        answer = self._answers.get()
        if answer is _STOP:
            raise KeyboardInterrupt
        return answer


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
