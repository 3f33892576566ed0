"""The tasks of a run on Ray: a process for each GPU or few CPU cores, on this machine or on a cluster.

Workers may join, leave and die: what one of them had is done by another. They know nothing of the results file.
"""

from __future__ import annotations

import collections
import contextlib
import os
import time
import warnings
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from bigain.run.settings import Settings
from bigain.run.work import Rows, Task, Work

_MOST_LOSSES = 5  # workers that may die at one task before it is the task's fault
_PATROL = 5.0  # seconds between two looks at what the cluster has
_PATIENCE = 12  # patrols without any worker before it is said


def on_ray(work: Work, tasks: Iterable[Task]) -> Generator[tuple[Task, Rows]]:
    """Each task with its rows, in the order in which they are done.

    Raises:
        ImportError: Ray is missing.
        ValueError: this machine has not what so many workers need.
        ChildProcessError: workers die again and again at the same task.
        Exception: what a task raises, as in one process.
    """
    try:
        import ray
    except ImportError as error:
        raise ImportError("the extra 'ray' must be installed for --engine ray: pip install 'bigain[ray]'") from error
    with _connected(ray, work.settings):
        crew = _Crew(ray, work.settings, iter(tasks))
        try:
            yield from crew.results()
        finally:
            crew.dismiss()


@contextlib.contextmanager
def _connected(ray: Any, settings: Settings) -> Iterator[None]:
    """To the cluster of ``address``, to Ray started on this machine, or to that which this process uses already."""
    if ray.is_initialized():
        yield
        return
    engine = settings.engine
    common = {"log_to_driver": False, "logging_level": "ERROR", "configure_logging": True}
    if engine.address is None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anyone
        cpus = None if engine.workers is None else max(engine.workers * (settings.model.threads or 1), 1)
        ray.init(address="local", num_cpus=cpus, include_dashboard=False, **common)
    else:
        try:
            ray.init(address=engine.address, **common)
        except ConnectionError as error:
            raise ConnectionError(
                f"address must be that of a running Ray cluster, not {engine.address!r}: {error}"
            ) from error
    try:
        yield
    finally:
        ray.shutdown()


class _Worker:
    """Does tasks in a process of its own."""

    def open(self, settings: Settings) -> None:
        """Opens the model and the data."""
        self.work = Work.open(settings)

    def do(self, task: Task) -> tuple[Rows, list[UserWarning]]:
        """The rows of a task, and what was warned of meanwhile."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            rows = self.work.do(task)
        return rows, [one.message for one in caught if isinstance(one.message, UserWarning)]


@dataclass
class _Crew:
    """The workers, what each is at, and what is still to be handed out."""

    ray: Any
    settings: Settings
    tasks: Iterator[Task]
    queue: collections.deque[Task] = field(default_factory=collections.deque)  # lost tasks, and the next one
    idle: list[Any] = field(default_factory=list)
    busy: dict[Any, tuple[Any, Task | None]] = field(default_factory=dict)  # by what is awaited; None: it is opening
    losses: collections.Counter[Task | None] = field(default_factory=collections.Counter)

    def __post_init__(self) -> None:
        model = self.settings.model
        has_gpus = self.ray.cluster_resources().get("GPU", 0) > 0
        device = model.device or ("cuda" if has_gpus else "cpu")
        self.needs = {"CPU": model.threads or 1, "GPU": 1 if device == "cuda" else 0}
        self.settings = replace(
            self.settings, presets=(), model=replace(model, device=device, threads=self.needs["CPU"])
        )
        self.hired = self.ray.remote(num_cpus=self.needs["CPU"], num_gpus=self.needs["GPU"], max_restarts=0)(_Worker)
        self.room, self.counted_at = self._count_room(), time.monotonic()
        wanted = self.settings.engine.workers or 1
        if self.settings.engine.address is None and self.room < wanted:
            needs = self._worker_needs()
            raise ValueError(f"workers must be at most {self.room}, as a worker needs {needs}, not {wanted}")

    def results(self) -> Iterator[tuple[Task, Rows]]:
        """Until every task is done."""
        idle_patrols = 0
        while self._next() is not None or self._working:  # who is still opening, or waits for room, is not waited for
            if self._next() is not None:
                self._hire()
            while self.idle and self._next() is not None:
                worker, task = self.idle.pop(), self.queue.popleft()
                self.busy[worker.do.remote(task)] = worker, task
            done = self._awaited()
            for awaited in done:
                yield from self._collect(awaited)
            idle_patrols = 0 if done or self._working else idle_patrols + 1
            if idle_patrols == _PATIENCE:
                warnings.warn(
                    f"no worker has begun yet: each needs {self._worker_needs()}. Waiting for room", stacklevel=1
                )

    @property
    def _working(self) -> bool:
        """Whether a worker is at a task."""
        return any(task is not None for _, task in self.busy.values())

    def _next(self) -> Task | None:
        """The task to hand out next."""
        if not self.queue and (task := next(self.tasks, None)) is not None:
            self.queue.append(task)
        return self.queue[0] if self.queue else None

    def _hire(self) -> None:
        """As many workers as are wanted, or as there is room for at present."""
        wanted = self.settings.engine.workers
        if wanted is None:
            if time.monotonic() - self.counted_at > _PATROL:  # to ask the cluster takes longer than a small task
                self.room, self.counted_at = self._count_room(), time.monotonic()
            wanted = self.room
        while len(self.idle) + len(self.busy) < wanted:
            worker = self.hired.remote()
            self.busy[worker.open.remote(self.settings)] = worker, None

    def _awaited(self) -> list[Any]:
        """What is done next, or nothing after a while."""
        if self.busy:
            return list(self.ray.wait([*self.busy], timeout=_PATROL)[0])
        time.sleep(_PATROL)
        return []

    def _collect(self, awaited: Any) -> Iterator[tuple[Task, Rows]]:
        """What a worker has done, if it has done a task and lives."""
        worker, task = self.busy.pop(awaited)
        try:
            result = self.ray.get(awaited)
        except self.ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, Exception) else error) from None
        except self.ray.exceptions.RayError as error:
            self._lose(worker, task, error)
            return
        self.idle.append(worker)
        self.losses.pop(task, None)
        if task is not None:
            rows, warned = result
            for warning in warned:
                warnings.warn(warning, stacklevel=1)
            yield task, rows

    def _lose(self, worker: Any, task: Task | None, error: Exception) -> None:
        """Puts back what a worker was at that is gone."""
        self.ray.kill(worker)  # it may live on out of reach
        self.losses[task] += 1
        at = "opening the model" if task is None else f"{task.what} under {task.method}"
        most = _MOST_LOSSES * (1 if task is not None else 1 + len(self.busy))
        if self.losses[task] >= most:
            raise ChildProcessError(
                f"a worker must live through its task, but {most} have died at the same one, {at}: if memory ran out, "
                f"give fewer --workers or a smaller --batch-size. The last one: {_first_line(error)}"
            ) from error
        if task is not None:
            self.queue.appendleft(task)
        warnings.warn(f"A worker was lost at {at}; another does it again: {_first_line(error)}", stacklevel=1)

    def dismiss(self) -> None:
        """Ends all workers."""
        for worker in [*self.idle, *(worker for worker, _ in self.busy.values())]:
            self.ray.kill(worker)

    def _count_room(self) -> int:
        """How many workers the nodes hold that are there now."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        needs = {name: amount for name, amount in self.needs.items() if amount}
        return sum(min(int(node.get(name, 0) // amount) for name, amount in needs.items()) for node in nodes)

    def _worker_needs(self) -> str:
        cpus, gpus = self.needs["CPU"], self.needs["GPU"]
        return f"{cpus} CPU core{'s' if cpus > 1 else ''}{' and a GPU' if gpus else ''}"


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
