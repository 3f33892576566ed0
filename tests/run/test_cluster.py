"""A run on real Ray processes ends with the bits of one process, whoever dies meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bigain.data import load
from bigain.data.glyphs import CLASSES
from bigain.run.cluster import on_ray
from bigain.run.engine import run
from bigain.run.files import encode_png
from bigain.run.settings import Settings
from bigain.run.store import Store
from bigain.run.work import Task, Work

ray = pytest.importorskip("ray")
Make = Callable[..., Settings]
Contents = Callable[[Path], list[Any]]
SIZES = {"batch_size": 2, "threads": 1}  # several tasks for each method; bits depend on threads


@pytest.fixture(scope="module")
def two_cores() -> Iterator[None]:
    """A Ray of two cores in this process, whatever the machine has."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def workers() -> list[psutil.Process]:
    """The processes that do tasks for this one."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if one.status() != psutil.STATUS_ZOMBIE and "ray::_Worker" in "".join(one.cmdline()):
                found.append(one)
    return found


@pytest.mark.usefixtures("two_cores")
def test_two_workers_one_of_which_is_killed_make_the_run_of_one_process(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: Contents
) -> None:
    run(tiny_settings(**SIZES), tmp_path / "whole.sqlite")
    kept, died = Store.add_classified, list[int]()

    def killing(self: Store, *given: Any) -> None:
        if len(died) == 0:
            died.append(workers()[0].pid)
            os.kill(died[0], signal.SIGKILL)
        kept(self, *given)

    monkeypatch.setattr(Store, "add_classified", killing)
    with pytest.warns(UserWarning, match="A worker was lost"):
        run(tiny_settings(**SIZES, engine="ray"), tmp_path / "shared.sqlite")
    assert died
    assert contents(tmp_path / "shared.sqlite") == contents(tmp_path / "whole.sqlite")
    until = time.monotonic() + 30
    while workers() and time.monotonic() < until:  # they are told to end, and take a moment
        time.sleep(0.1)
    assert workers() == [], "none outlives the run"


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_a_task_at_which_workers_die_again_and_again_is_an_error(tiny_settings: Make) -> None:
    settings, stop = tiny_settings(**SIZES, engine="ray", workers=1), threading.Event()

    def kill_all() -> None:
        while not stop.wait(0.2):
            for worker in workers():
                with contextlib.suppress(psutil.NoSuchProcess):
                    worker.kill()

    thread = threading.Thread(target=kill_all)
    thread.start()
    try:
        with (
            pytest.warns(UserWarning, match="A worker was lost"),
            pytest.raises(ChildProcessError, match=r"5 have died at the same one, .*: if memory ran out, give fewer"),
        ):
            list(on_ray(Work.open(settings), [Task("none", "classify", (0,))]))
    finally:
        stop.set()
        thread.join()


@pytest.mark.usefixtures("two_cores")
def test_what_a_task_raises_and_warns_of_is_as_in_one_process(tiny_settings: Make, tmp_path: Path) -> None:
    glyphs = load("glyphs", image_size=16)
    for index in range(10):
        (tmp_path / "data" / CLASSES[index]).mkdir(parents=True)
        (tmp_path / "data" / CLASSES[index] / "0.png").write_bytes(encode_png(glyphs[index].image))
    (tmp_path / "data" / "B" / "0.png").write_text("no image")
    sizes = {**SIZES, "data": f"folder:{tmp_path / 'data'}", "methods": (), "classify": 3, "generate": 0}
    with pytest.raises(ValueError, match=r"B.0\.png"):
        run(tiny_settings(**sizes, engine="ray"), tmp_path / "r.sqlite")
    with pytest.warns(UserWarning, match="skipped"):
        run(tiny_settings(**sizes, engine="ray", bad_images="skip"), tmp_path / "r.sqlite")
    with Store(tmp_path / "r.sqlite") as store:
        assert [row.position for row in store.classified("none")] == [0, 2]


@pytest.mark.usefixtures("two_cores")
def test_a_worker_for_whom_no_room_comes_is_not_waited_for(
    tiny_settings: Make, tmp_path: Path, contents: Contents
) -> None:
    run(tiny_settings(**SIZES), tmp_path / "whole.sqlite")
    elsewhere = ray.remote(num_cpus=1)(threading.Event).remote()  # another program's
    settings = tiny_settings(**SIZES, engine="ray", workers=2)
    running = threading.Thread(target=run, args=(settings, tmp_path / "ray.sqlite"), daemon=True)
    running.start()
    running.join(120)
    assert not running.is_alive()
    ray.kill(elsewhere)
    assert contents(tmp_path / "ray.sqlite") == contents(tmp_path / "whole.sqlite")


@pytest.mark.usefixtures("two_cores")
def test_more_workers_than_there_is_room_for_are_refused(tiny_settings: Make, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="workers must be at most 2, as a worker needs 1 CPU core, not 3"):
        run(tiny_settings(**SIZES, engine="ray", workers=3), tmp_path / "r.sqlite")


@pytest.mark.slow
def test_a_run_whose_driver_was_killed_goes_on(tiny_model: Path, tmp_path: Path, contents: Contents) -> None:
    sizes = "--classify 40 --generate 4 --to-keep 1 --n-samples 1 --steps 2 --guidance 1 --batch-size 2 --threads 1"
    words = f"--methods todo-2 {sizes} --features none --timing-rounds 0 --quiet".split()
    command = [sys.executable, "-m", "bigain", "evaluate", "--model", str(tiny_model), *words]
    subprocess.run([*command, "--out", tmp_path / "whole"], check=True, capture_output=True)
    shared = [*command, "--out", tmp_path / "shared", "--engine", "ray", "--workers", "2"]
    path = tmp_path / "shared" / "results.sqlite"
    driver = subprocess.Popen(shared, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while driver.poll() is None and not (path.exists() and contents(path)[1]):
        time.sleep(0.05)
    assert driver.poll() is None, "it is to be killed at work"
    driver.kill()
    driver.wait()
    assert contents(path) != contents(tmp_path / "whole/results.sqlite")
    subprocess.run(shared, check=True, capture_output=True)
    assert contents(path) == contents(tmp_path / "whole/results.sqlite")
    for name in ("results.csv", "samples.png", "table.md"):
        assert (tmp_path / "shared" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
