"""Runs that are struck at random moments: `make drill`, some twenty minutes.

A run ends as the undisturbed one, at once or when the same command is given again, or with an error that says what to
do. What was kept before the blow is kept after it.
"""

from __future__ import annotations

import contextlib
import random
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from diffusers import DDIMScheduler

from bigain.data import load
from bigain.data.glyphs import CLASSES
from bigain.run.files import encode_png

pytestmark = pytest.mark.drill
IMAGES = 300  # classified, and half as many generated, under each of 2 methods: a few seconds of 2 workers
ROWS = 2 * (IMAGES + IMAGES // 2)
RAY = ("--engine", "ray", "--workers", "2")


def kept(path: Path) -> set[tuple[Any, ...]]:
    """The rows of a results file that holds whole ones at any moment."""
    if not path.exists():
        return set()
    with sqlite3.connect(path, timeout=60) as connection:
        found = [connection.execute(f"SELECT * FROM {table}").fetchall() for table in ("classification", "generation")]
    return {row for rows in found for row in rows}


def children(process: subprocess.Popen[str], name: str) -> list[psutil.Process]:
    """The living processes below one, whose command has ``name``."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for one in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                if name in " ".join(one.cmdline()):
                    found.append(one)
    return found


@dataclass
class Drill:
    """A command that is started, struck and started again."""

    folder: Path
    command: list[str]
    seed: int
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.path = self.folder / "run" / "results.sqlite"

    def start(self, *more: str, **how: Any) -> subprocess.Popen[str]:
        """Begins or goes on."""
        words = [*self.command, "--out", str(self.folder / "run"), *more]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **how)
        self.started.append(process)
        return process

    def moment(self, process: subprocess.Popen[str], rows: int | None = None) -> set[tuple[Any, ...]]:
        """Waits until so many rows are kept, or a random number of them, and a little more."""
        rows = self.random.randrange(ROWS // 2) if rows is None else rows
        while process.poll() is None and len(kept(self.path)) < rows:
            time.sleep(0.1)
        time.sleep(self.random.random() / 5)
        return kept(self.path)

    def ends(self, process: subprocess.Popen[str]) -> str:
        """What it said, once it has ended well."""
        text, _ = process.communicate(timeout=300)
        assert process.returncode == 0, text
        return text


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory, families: Any) -> list[str]:
    """A run of a small random DiT on a folder of images, but for --out."""
    folder = tmp_path_factory.mktemp("drill")
    torch.manual_seed(0)
    families["dit"].build().save_pretrained(folder / "model" / "transformer")
    DDIMScheduler(timestep_spacing="trailing").save_pretrained(folder / "model" / "scheduler")
    for number, item in enumerate(load("glyphs", image_size=16, limit=IMAGES)):
        path = folder / "data" / CLASSES[item.labels[0]] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(item.image))
    sizes = f"--classify {IMAGES} --generate {IMAGES // 2} --to-keep 1 --n-samples 1 --steps 1 --guidance 1"
    words = f"--methods todo-2 {sizes} --batch-size 2 --threads 1 --timing-rounds 0 --features none --quiet"
    where = ["--model", str(folder / "model"), "--data", f"folder:{folder / 'data'}"]
    return [sys.executable, "-m", "bigain", "evaluate", *where, *words.split()]


@pytest.fixture(scope="module")
def undisturbed(command: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results file of one process that nothing happened to."""
    out = tmp_path_factory.mktemp("undisturbed")
    subprocess.run([*command, "--out", str(out)], check=True, capture_output=True)
    assert len(kept(out / "results.sqlite")) == ROWS
    return out / "results.sqlite"


@pytest.fixture
def drill(command: list[str], tmp_path: Path, seed: int) -> Iterator[Drill]:
    """What a seed strikes; nothing that it started is left."""
    made = Drill(tmp_path, command, seed)
    yield made
    for process in made.started:
        process.kill()
        process.communicate()


@pytest.fixture
def ends_undisturbed(drill: Drill, undisturbed: Path, contents: Callable[[Path], Any]) -> Callable[[], None]:
    """Asserts that the results are bit for bit those of the undisturbed run."""

    def check() -> None:
        assert contents(drill.path) == contents(undisturbed)

    return check


@pytest.mark.parametrize("seed", range(14))
def test_workers_are_killed(drill: Drill, ends_undisturbed: Callable[[], None]) -> None:
    process = drill.start(*RAY)
    for _ in range(drill.random.randint(1, 3)):
        drill.moment(process)
        if alive := children(process, "ray::_Worker"):
            with contextlib.suppress(psutil.NoSuchProcess):
                drill.random.choice(alive).kill()
    drill.ends(process)
    ends_undisturbed()


@pytest.mark.parametrize("seed", range(14))
def test_the_driver_is_killed(drill: Drill, ends_undisturbed: Callable[[], None]) -> None:
    ray = RAY if drill.seed % 2 else ()
    process = drill.start(*ray)
    before = drill.moment(process)
    process.send_signal(drill.random.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
    process.communicate(timeout=60)
    assert before <= kept(drill.path)
    drill.ends(drill.start(*ray))
    ends_undisturbed()


@pytest.mark.parametrize("seed", range(6))
def test_the_node_of_a_single_machine_is_killed(drill: Drill, ends_undisturbed: Callable[[], None]) -> None:
    process = drill.start(*RAY)
    before = drill.moment(process)
    for node in children(process, drill.random.choice(["raylet/raylet", "gcs_server"])):
        with contextlib.suppress(psutil.NoSuchProcess):
            node.kill()
    process.communicate(timeout=300)
    assert before <= kept(drill.path)
    drill.ends(drill.start(*RAY))
    ends_undisturbed()


@pytest.mark.parametrize("seed", range(6))
def test_a_node_of_a_cluster_is_killed_and_another_joins(drill: Drill, ends_undisturbed: Callable[[], None]) -> None:
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        second = cluster.add_node(num_cpus=1)
        command = ("--engine", "ray", "--address", cluster.address)
        process = drill.start(*command)
        drill.moment(process)
        cluster.remove_node(second, allow_graceful=False)
        before = drill.moment(process)
        cluster.add_node(num_cpus=1)
        text, _ = process.communicate(timeout=300)
        if process.returncode != 0:  # it may have been the driver's own node: on one machine Ray picks any
            assert "Raylet is terminated" in text, text
            assert before <= kept(drill.path)
            drill.ends(drill.start(*command))
    finally:
        cluster.shutdown()
    ends_undisturbed()


@pytest.mark.parametrize("seed", range(5))
def test_the_disk_is_full(drill: Drill, ends_undisturbed: Callable[[], None]) -> None:
    ray, room = (RAY if drill.seed % 2 else ()), 1024 * drill.random.randint(80, 240)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))

    if ray:
        process = drill.start(*ray)
        drill.moment(process, 1)
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
    else:
        process = drill.start(preexec_fn=limit)
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "must be on a disk that has room" in text
    assert "give the same command again" in text
    drill.ends(drill.start(*ray))
    ends_undisturbed()


@pytest.mark.parametrize("seed", range(4))
def test_an_image_is_damaged(drill: Drill, command: list[str], ends_undisturbed: Callable[[], None]) -> None:
    ray = RAY if drill.seed % 2 else ()
    folder = Path(next(word for word in command if word.startswith("folder:")).removeprefix("folder:"))
    image = drill.random.choice(sorted(folder.glob("*/*.png")))
    whole = image.read_bytes()
    try:
        image.write_bytes(whole[: drill.random.randrange(len(whole) // 2)])
        process = drill.start(*ray)
        text, _ = process.communicate(timeout=300)
        assert process.returncode == 1
        assert str(image) in text or image.name in text
    finally:
        image.write_bytes(whole)
    before = kept(drill.path)
    drill.ends(drill.start(*ray))
    assert before <= kept(drill.path)
    ends_undisturbed()


@pytest.mark.parametrize("seed", range(5))
def test_a_row_is_damaged(drill: Drill) -> None:
    drill.ends(drill.start())
    with sqlite3.connect(drill.path) as connection:
        method, image = drill.random.choice(
            connection.execute("SELECT method, image_id FROM classification").fetchall()
        )
        column = drill.random.choice(["prediction", "position", "forwards"])
        connection.execute(
            f"UPDATE classification SET {column} = {column} + 1 WHERE method = ? AND image_id = ?", (method, image)
        )
    process = drill.start()
    text, _ = process.communicate(timeout=300)
    assert process.returncode == 1
    assert f"image {image!r} classified under {method} must be as it was written" in text
    assert "run again into another folder" in text
