"""The results file at the size of ImageNet, without a model: `python -m benchmarks.store --help`.

Writes what a classifier would say of 50,000 images under two methods, image by image as the joint run does, then takes
the run up again, summarises it and exports it. Every image has 1,000 classes at 5 timesteps and the best 5 at 20 more;
the errors are random, drawn from the image's number, and spread as those of the embedded models are. Each step is a
process of its own, for its peak of memory; it begins with what importing PyTorch takes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from bigain.run.store import Classified, Store

METHODS = ("none", "lgtm:ratio=0.5")
CLASSES, TIMESTEPS, SURVIVORS = 1000, 25, 5
FIRST = np.arange(2, TIMESTEPS, 5)  # positions of the first stage
LATER = np.setdiff1d(np.arange(TIMESTEPS), FIRST)
LEVEL = np.geomspace(0.3, 0.004, TIMESTEPS)  # of the errors, by timestep
IMAGES = 1  # per transaction: what the joint run takes where an image's first stage is 5,000 forwards
IDENTITY = {"model": "stub", "seed": 0, "dtype": "float32", "split": "validation"}
FACTS = {
    "data": "stub",
    "multi_label": False,
    "classes": [f"class {number}" for number in range(CLASSES)],
    "conditions": CLASSES,
    "timesteps": list(range(20, 1000, 1000 // TIMESTEPS)),
    "elements": 4 * 32 * 32,
    "feature_network": "none",
}

Seconds = np.ndarray  # (2,): by the clock, and of the processor


def now() -> Seconds:
    return np.array([time.perf_counter(), time.process_time()])


def name_of(image: int) -> str:
    return f"ILSVRC2012_val_{image + 1:08d}"


def classified(method: int, image: int) -> Classified:
    """What a classifier might say: the errors of the true class are lower, for most images by enough."""
    rng = np.random.default_rng((image, method))
    label, level = image % CLASSES, LEVEL * rng.uniform(0.7, 1.3)
    better = np.ones((CLASSES, 1))
    better[label] = rng.uniform(0.85, 1)
    errors = np.full((CLASSES, TIMESTEPS), np.nan, dtype=np.float32)
    errors[:, FIRST] = level[FIRST] * better * (1 + 0.05 * rng.standard_normal((CLASSES, len(FIRST))))
    survivors = np.argsort(errors[:, FIRST].mean(1))[:SURVIVORS]
    spread = 1 + 0.05 * rng.standard_normal((SURVIVORS, len(LATER)))
    errors[np.ix_(survivors, LATER)] = level[LATER] * better[survivors] * spread
    means = np.nanmean(errors, axis=1, dtype=np.float64)
    stage = np.zeros(CLASSES, dtype=int)
    stage[survivors] = 1
    stage[survivors[np.argmin(means[survivors])]] = 2
    ranking = tuple(np.lexsort((means, -stage)).tolist())
    return Classified(
        id=name_of(image),
        position=image,
        labels=(label,),
        prediction=ranking[0],
        ranking=ranking,
        stage=tuple(stage.tolist()),
        errors=errors,
        forwards=CLASSES * len(FIRST) + SURVIVORS * len(LATER),
    )


def write(path: Path, images: int) -> Seconds:
    """Of the writing alone."""
    spent = np.zeros(2)
    with Store.open(path, IDENTITY, FACTS) as store:
        store.add_methods(METHODS)
        for number, method in enumerate(METHODS):
            for first in range(0, images, IMAGES):
                rows = [classified(number, image) for image in range(first, min(first + IMAGES, images))]
                started = now()
                store.add_classified(method, rows)
                spent += now() - started
    return spent


def resume(path: Path, images: int) -> Seconds:
    """Until what is missing is known: the last image, where the run is asked for one more."""
    started = now()
    with Store.open(path, IDENTITY, FACTS) as store:
        for method in METHODS:
            done = store.classified_ids(method)
            assert [image for image in range(images + 1) if name_of(image) not in done] == [images]
    return now() - started


def summary(path: Path, images: int) -> Seconds:
    from bigain.run.summary import summarise

    started = now()
    with Store(path) as store:
        assert [row.classified for row in summarise(store).rows] == [images] * len(METHODS)
    return now() - started


def export(path: Path, images: int) -> Seconds:
    from bigain.report.parquet import export_parquet

    started = now()
    with Store(path) as store:
        export_parquet(store, path.with_suffix(".parquet"))
    return now() - started


def peak() -> float:
    """MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measured(step: Callable[[Path, int], Seconds], path: Path, images: int) -> tuple[Seconds, float, float]:
    """What a step took, and MiB at the peak before and after it."""
    imported = peak()
    return step(path, images), imported, peak()


def steps(path: Path, images: int) -> Iterator[tuple[str, Seconds, float, float]]:
    """Each step's name and what was ``measured``, in a fresh process."""
    for step in (write, resume, summary, export):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            yield step.__name__, *pool.apply(measured, (step, path, images))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000, help="of each method")
    parser.add_argument("--folder", type=Path, help="where the files are made and deleted; 5 GB for 50,000 images")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        path, rows = Path(folder) / "results.sqlite", len(METHODS) * args.images
        print(f"{rows} rows: {args.images} images of {CLASSES} classes, {len(METHODS)} methods")
        for name, (clock, processor), imported, most in steps(path, args.images):
            rate = f"{clock:9.2f} s, {processor:8.2f} s of the processor: {rows / processor:7.0f} rows/s"
            print(f"  {name:8} {rate}; peak {most:5.0f} MiB, {imported:.0f} before", flush=True)
        for file in sorted(Path(folder).iterdir()):
            size = file.stat().st_size
            print(f"  {file.name:26} {size / 2**20:8.1f} MiB {size / rows:8.0f} bytes per row")


if __name__ == "__main__":
    main()
