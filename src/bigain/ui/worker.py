"""One thread that does the page's work, one thing at a time, and tells of it while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from queue import SimpleQueue
from threading import Event
from typing import Any, TypeVar

Value = TypeVar("Value")


class StoppedError(Exception):
    """Ends work that nobody waits for any more."""


class Worker:
    """Does what is asked of it in one thread: models are shared, and what is applied to one must not meet another."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="bigain-ui")

    def run(self, work: Callable[[], Value]) -> Value:
        """What ``work`` returns, once its turn has come."""
        return self._pool.submit(work).result()

    def reports(self, work: Callable[[Callable[[Value], None]], object]) -> Iterator[Value]:
        """What ``work`` tells, and then the error that it raises, if any.

        Closing the iterator stops the work where it tells next, and waits until then.
        """
        told: SimpleQueue[Any] = SimpleQueue()  # of reports, each in a tuple, and None at the end
        stop = Event()

        def tell(report: Value) -> None:
            if stop.is_set():
                raise StoppedError
            told.put((report,))

        def end(_: Future[object]) -> None:
            told.put(None)

        task: Future[object] = self._pool.submit(work, tell)
        task.add_done_callback(end)
        try:
            while (report := told.get()) is not None:
                yield report[0]
            task.result()
        finally:
            stop.set()
            if not task.cancel():
                wait([task])
