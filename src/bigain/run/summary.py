"""One row per method, computed from a results file alone: no model, no data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from bigain.metrics.accuracy import (
    accuracy_interval,
    mcnemar,
    mean_per_class_accuracy,
    paired_difference,
    per_class_map,
    per_image_ap,
)
from bigain.metrics.distribution import fid, kid, mean_psnr, precision_recall
from bigain.run.paired import compare, features_of
from bigain.run.results import Results, Row, Timing, Timings
from bigain.run.settings import identity_hash
from bigain.run.store import Classified, Floats, Generated, Store

_DIGITS = 6  # significant, of what is exported: beyond them there is only rounding
_NEIGHBOURS = 3  # of precision and recall, as in Kynkaanniemi et al. 2019


def summarise(store: Store, against: Sequence[str] = ()) -> Results:
    """Everything that a results file holds, also of a run that is not finished.

    Args:
        against: methods (canonical specs) that are compared with every other one, see `bigain.run.paired.compare`.
    """
    real = store.reference()
    return Results(
        hash=identity_hash(store.identity),
        settings=store.identity,
        facts=store.facts,
        versions=store.versions(),
        commands=store.commands(),
        reference=None if real is None else real[0],
        rows=_rows(store, None if real is None else real[1]),
        comparisons=tuple(one.rounded(_rounded) for one in compare(store, against)),
    )


def _rows(store: Store, real: Floats | None) -> tuple[Row, ...]:
    """One per method, each against no compression."""
    flops = store.flops()
    plain_classified = {row.id: row for row in store.classified("none")}
    plain_pixels = {row.image: row.pixels for row in store.generated("none")}
    rows = []
    for spec in store.methods():
        values: dict[str, Any] = {"flops": flops.get(spec)}
        classified, generated = store.classified(spec), store.generated(spec)
        if classified:
            values |= _classification(classified, multi_label=store.facts["multi_label"])
        if generated:
            values |= _generation(generated, real, spec)
        if spec != "none":
            values |= _change(classified, plain_classified) | _fidelity(generated, plain_pixels)
            if spec in flops and "none" in flops:
                values["flops_change"] = flops[spec] / flops["none"] - 1
        rows.append(Row(method=spec, **{name: _rounded(value) for name, value in values.items()}))
    return tuple(rows)


def timings(store: Store) -> Timings:
    """What was timed; without methods where nothing was."""
    environment, milliseconds = store.timing()
    methods = {}
    for spec in store.methods():
        if spec in milliseconds:
            low, middle, high = (_rounded(float(q)) for q in np.quantile(milliseconds[spec], (0.25, 0.5, 0.75)))
            methods[spec] = Timing(median=middle, low=low, high=high, forwards=len(milliseconds[spec]))
    return Timings(environment=environment, methods=methods)


def _classification(rows: Sequence[Classified], multi_label: bool) -> dict[str, Any]:
    correct, count = sum(row.prediction in row.labels for row in rows), len(rows)
    low, high = accuracy_interval(correct, count)
    values: dict[str, Any] = {"classified": count, "correct": correct}
    values |= {"accuracy": correct / count, "accuracy_low": low, "accuracy_high": high}
    if multi_label:
        labels = [row.labels for row in rows]
        rankings = [row.ranking for row in rows]
        places = np.argsort(np.asarray(rankings), axis=1)  # (N, K): the place of each class, best 0
        values["class_map"] = per_class_map(-places, labels)
        values["image_ap"] = float(np.mean(per_image_ap(rankings, labels)))
    else:
        values["class_accuracy"] = mean_per_class_accuracy([r.prediction for r in rows], [r.labels[0] for r in rows])
    return values


def _change(rows: Sequence[Classified], plain: Mapping[str, Classified]) -> dict[str, Any]:
    """Against no compression, on the images that both classified."""
    both = [row for row in rows if row.id in plain]
    if not both:
        return {}
    ours = [row.prediction in row.labels for row in both]
    theirs = [plain[row.id].prediction in row.labels for row in both]
    change, low, high = paired_difference(ours, theirs)
    compared = {"change": change, "change_low": low, "change_high": high}
    return {**compared, "change_images": len(both), "mcnemar_p": mcnemar(ours, theirs)}


def _generation(rows: Sequence[Generated], real: Floats | None, spec: str) -> dict[str, Any]:
    values: dict[str, Any] = {"generated": len(rows)}
    features = list(features_of(rows, spec).values())
    fewest = 0 if real is None else min(len(features), len(real))
    if real is not None and fewest >= 2:
        ours = np.stack(features)
        values["fid"] = fid(real, ours)
        values["kid"], values["kid_deviation"] = kid(real, ours)
        if fewest > _NEIGHBOURS:
            values["precision"], values["recall"] = precision_recall(real, ours, _NEIGHBOURS)
    seen = [row.recognised == row.label for row in rows if row.recognised is not None and row.label is not None]
    if seen:
        low, high = accuracy_interval(sum(seen), len(seen))
        values |= {"recognised": sum(seen) / len(seen), "recognised_low": low, "recognised_high": high}
    return values


def _fidelity(rows: Sequence[Generated], plain: Mapping[int, npt.NDArray[np.uint8]]) -> dict[str, Any]:
    """To the images of no compression, on those that both generated."""
    both = [row for row in rows if row.image in plain]
    if not both:
        return {}
    decibels = mean_psnr(np.stack([row.pixels for row in both]), np.stack([plain[row.image] for row in both]))
    # Infinite: the very same images.
    return {"psnr": decibels if np.isfinite(decibels) else None, "psnr_images": len(both)}


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
