"""The thread of the page: its work comes in turn, is told of, and can be stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from bigain.ui.worker import Worker


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_all_that_is_told_comes_in_order(worker: Worker) -> None:
    def work(tell: Callable[[int], None]) -> None:
        for number in range(5):
            tell(number)

    assert [*worker.reports(work)] == [0, 1, 2, 3, 4]
    assert worker.run(lambda: 7) == 7


def test_an_error_comes_after_what_was_told(worker: Worker) -> None:
    def work(tell: Callable[[str], None]) -> None:
        tell("first")
        raise ValueError("no such thing")

    reports = worker.reports(work)
    assert next(reports) == "first"
    with pytest.raises(ValueError, match="no such thing"):
        next(reports)


def test_closing_stops_where_it_tells_next_and_frees_the_thread(worker: Worker) -> None:
    told: list[int] = []
    go_on = threading.Event()

    def work(tell: Callable[[int], None]) -> None:
        for number in range(1000):
            told.append(number)
            tell(number)
            go_on.wait(10)

    reports: Iterator[int] = worker.reports(work)
    next(reports)
    threading.Timer(0.1, go_on.set).start()
    reports.close()  # type: ignore[attr-defined]
    assert len(told) <= 3
    assert worker.run(lambda: len(told)) == len(told)


def test_two_never_work_at_once(worker: Worker) -> None:
    working, most = [0], [0]

    def work(tell: Callable[[int], None]) -> None:
        working[0] += 1
        most[0] = max(most[0], working[0])
        for number in range(50):
            tell(number)
        working[0] -= 1

    users = [threading.Thread(target=lambda: [*worker.reports(work)]) for _ in range(4)]
    for user in users:
        user.start()
    for user in users:
        user.join()
    assert most == [1]
