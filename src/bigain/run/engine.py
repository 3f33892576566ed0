"""The joint run: every method classifies the same images and generates from the same noise, and everything is kept."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bigain.diffusion import Denoiser
from bigain.images import to_uint8
from bigain.progress import progress_bar
from bigain.run.cluster import on_ray
from bigain.run.cost import count_flops, environment, measure, usual_timesteps
from bigain.run.files import versions
from bigain.run.settings import REFERENCE_IMAGES, Settings
from bigain.run.store import Store
from bigain.run.work import Rows, Task, Work, chunks


def run(settings: Settings, path: Path, *, progress: bool = False, denoiser: Denoiser | None = None) -> None:
    """Does what is missing in the results file ``path``, new or not; goes on where it was stopped, whenever that was.

    The tasks are the same whoever does them, so an interrupted run, and one that many processes share, ends with the
    values of an undisturbed one, bit for bit on machines of one kind with as many threads. Methods and images may be
    more than the file has seen; ``denoiser`` is the model of the settings, if it is open.

    Raises:
        ValueError: the settings or a preset do not fit the model, the data, each other, or the run that the file holds.
        FileNotFoundError: the model's weights or the data are missing.
        ChildProcessError: workers die again and again at the same task.
    """
    work = Work.open(settings, denoiser)
    with Store.open(path, work.identity(), work.facts()) as store:
        machine = environment(work.denoiser.device, {"batch_size": settings.model.batch_size})
        store.begin_session(versions(), machine, settings.command)
        store.add_methods(settings.methods)
        _count_flops(work, store)
        _keep_reference(work, store)
        _do_tasks(work, store, progress)
        _time(work, store, progress)


def _do_tasks(work: Work, store: Store, progress: bool) -> None:
    """What is missing, kept task by task."""
    methods, engine = work.settings.methods, work.settings.engine
    total = sum(work.forwards(task) for task in _missing(work, store))
    if not total:
        return
    number = {method: place for place, method in enumerate(methods, start=1)}
    with progress_bar(total, progress, unit="forward", unit_scale=True, smoothing=0.05) as bar:
        done = (_here if engine.engine == "local" else on_ray)(work, _missing(work, store))
        with contextlib.closing(done):  # at once, so that no worker outlives an error here
            for task, rows in done:
                bar.set_description(f"[{number[task.method]}/{len(methods)}] {task.method}")
                (store.add_classified if task.what == "classify" else store.add_generated)(task.method, rows)  # type: ignore[arg-type]
                bar.update(work.forwards(task))


def _here(work: Work, tasks: Iterable[Task]) -> Generator[tuple[Task, Rows]]:
    """One after the other, in this process."""
    for task in tasks:
        yield task, work.do(task)


def _missing(work: Work, store: Store) -> Iterator[Task]:
    """The tasks of all methods, less what is kept."""
    names = [entry.id for entry in work.data.entries]
    for method in work.settings.methods:
        classified, generated = store.classified_ids(method), store.generated_images(method)
        for task in work.tasks(method):
            if task.what == "classify":
                left = tuple(number for number in task.numbers if names[number] not in classified)
            else:
                left = tuple(number for number in task.numbers if number not in generated)
            if left:
                yield replace(task, numbers=left)


def _count_flops(work: Work, store: Store) -> None:
    """Of all methods before any runs, so that one that does not fit the model is refused at once."""
    counted, spacing = store.flops(), work.settings.classifier.spacing
    for spec in work.settings.methods:
        if spec not in counted:
            store.set_flops(spec, *count_flops(work.denoiser, spec, work.any_condition, spacing))


def _keep_reference(work: Work, store: Store) -> None:
    """Features of the real images that FID compares with: the validation split of embedded data, else the data."""
    if work.network is None or not work.settings.counts.generate or store.reference() is not None:
        return
    real = work.settings.data
    if real.is_embedded:
        real = replace(real, split="validation")
    data = work.data if real == work.settings.data else real.load(work.denoiser)
    features = []
    for chunk in chunks(range(min(len(data), REFERENCE_IMAGES)), 256):
        images = work.denoiser.prepare([item.image for item in data.items(chunk)])
        features.append(work.network.features(to_uint8(images)))
    rows = np.concatenate(features)
    facts = {"data": data.name, "split": real.split, "images": len(rows)}
    store.set_reference(facts | {"network": work.network.name, "dimensions": rows.shape[1]}, rows)


def _time(work: Work, store: Store, progress: bool) -> None:
    """Times all methods together, in this process, unless that was done on this machine already."""
    timing, denoiser = work.settings.timing, work.denoiser
    batch, rounds = timing.timing_batch, timing.timing_rounds
    spacing = work.settings.classifier.spacing
    here = {"dtype": work.settings.model.dtype, "sample": [batch, *denoiser.sample_shape], "spacing": spacing}
    machine = environment(denoiser.device, here)
    specs = store.methods()
    timed_on, times = store.timing()
    if rounds == 0 or (timed_on == machine and all(len(times.get(spec, ())) >= rounds for spec in specs)):
        return
    with progress_bar(len(specs) * rounds, progress, desc="time") as bar:
        times = measure(
            denoiser,
            specs,
            work.any_condition,
            batch_size=batch,
            rounds=rounds,
            done=bar.update,
            among=usual_timesteps(denoiser, spacing),
        )
    store.set_timing(machine, times)
