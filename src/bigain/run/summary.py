"""One row per method, computed from a results file alone: no model, no data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from statistics import median
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
from bigain.metrics.distribution import fid, kid
from bigain.metrics.fidelity import mean_psnr
from bigain.run.paired import Comparison, compare
from bigain.run.settings import identity_hash
from bigain.run.store import Classified, Generated, Store

FORMAT = "bigain results 1"
_DIGITS = 6  # significant, of what is exported: beyond them there is only rounding


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one method does, None where it was not found out.

    Args:
        method: its spec; "none" is no compression, which the others are compared with on the same images and noise.
        classified, correct: images.
        accuracy: share of images whose prediction is among their labels (precision@1 where there are several).
        accuracy_low, accuracy_high: its 95% interval (Wilson).
        change, change_low, change_high: accuracy minus that of "none" on the same images, with its 95% interval.
        mcnemar_p: two-sided p-value of the exact test that it does not differ from "none".
        class_accuracy: accuracy within each class, averaged over classes (one label per image).
        class_map: mean average precision over classes, VOC style; image_ap: mean over images of the average
            precision of their ranking (several labels per image).
        generated: images.
        fid, kid, kid_deviation: to the real images; kid is a mean over subsets with its standard deviation.
        recognised, recognised_low, recognised_high: share of generated images in which the small classifier sees
            the class that was asked for, with its 95% interval.
        psnr: dB to the images that "none" makes of the same noise, of the mean squared error over all of them.
        flops: of one forward of one image.
        flops_change: share of the FLOPs of "none" that is added (negative: saved).
    """

    method: str
    classified: int = 0
    correct: int | None = None
    accuracy: float | None = None
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None
    mcnemar_p: float | None = None
    class_accuracy: float | None = None
    class_map: float | None = None
    image_ap: float | None = None
    generated: int = 0
    fid: float | None = None
    kid: float | None = None
    kid_deviation: float | None = None
    recognised: float | None = None
    recognised_low: float | None = None
    recognised_high: float | None = None
    psnr: float | None = None
    flops: int | None = None
    flops_change: float | None = None


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that a run found and that repeats on one machine: no times.

    Args:
        hash: SHA-256 of the settings.
        settings: see `Settings.identity`.
        facts: of the model and the data.
        versions: the sets of versions that worked on it.
        reference: the real images of FID and KID, None without.
        rows: one per method, "none" first.
        comparisons: of methods with one another, where they were asked for.
    """

    hash: str
    settings: dict[str, Any]
    facts: dict[str, Any]
    versions: list[dict[str, str]]
    reference: dict[str, Any] | None
    rows: tuple[Row, ...]
    comparisons: tuple[Comparison, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"format": FORMAT, **asdict(self)}

    def with_rows(self, rows: tuple[Row, ...]) -> Results:
        """The same run with some of its rows."""
        return replace(self, rows=rows)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Results:
        """The reverse of ``to_json``.

        Raises:
            ValueError: the values are not of this format, or of another version of it.
        """
        _check_format(values)
        known = {field.name for field in fields(cls)} - {"rows", "comparisons"}
        return cls(
            rows=tuple(Row(**row) for row in values["rows"]),
            comparisons=tuple(Comparison.from_json(each) for each in values.get("comparisons", ())),
            **{name: values[name] for name in known},
        )


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Measured forwards of one method, in milliseconds per batch: their median and quartiles, and how many."""

    median: float
    low: float
    high: float
    forwards: int


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Measured times, apart from `Results` because they never repeat exactly.

    Args:
        environment: where and how they were measured.
        methods: by spec.
    """

    environment: dict[str, Any]
    methods: dict[str, Timing]

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Timings:
        """The reverse of ``to_json``.

        Raises:
            ValueError: as `Results.from_json`.
        """
        _check_format(values)
        methods = {spec: Timing(**timing) for spec, timing in values["methods"].items()}
        return cls(environment=values["environment"], methods=methods)


def summarise(store: Store, against: Sequence[str] = ()) -> Results:
    """Everything that a results file holds, also of a run that is not finished.

    Args:
        against: methods (canonical specs) that are compared with every other one, see `bigain.run.paired.compare`.

    Raises:
        ValueError: one of ``against`` is not in the file.
    """
    facts = store.facts
    reference = store.reference()
    flops = store.flops()
    plain_classified = {row.image_id: row for row in store.classified("none")}
    plain_pixels = {row.image: row.pixels for row in store.generated("none")}
    rows = []
    for spec in store.methods():
        found: dict[str, Any] = {"method": spec}
        classified = store.classified(spec)
        if classified:
            found |= _classification(classified, plain_classified, facts, paired=spec != "none")
        generated = store.generated(spec)
        if generated:
            found |= _generation(generated, None if reference is None else reference[1], facts)
            if spec != "none":
                found |= _fidelity(generated, plain_pixels)
        if spec in flops:
            found["flops"] = flops[spec]
            if spec != "none" and "none" in flops:
                found["flops_change"] = flops[spec] / flops["none"] - 1
        rows.append(Row(**{name: _rounded(value) for name, value in found.items()}))
    return Results(
        hash=identity_hash(store.identity),
        settings=store.identity,
        facts=facts,
        versions=store.versions(),
        reference=None if reference is None else reference[0],
        rows=tuple(rows),
        comparisons=tuple(each.rounded(_rounded) for each in compare(store, against)),
    )


def timings(store: Store) -> Timings:
    """What was timed; without methods where nothing was."""
    environment, milliseconds = store.timing()
    methods = {
        spec: Timing(
            median=_rounded(median(milliseconds[spec])),
            low=_rounded(float(np.quantile(milliseconds[spec], 0.25))),
            high=_rounded(float(np.quantile(milliseconds[spec], 0.75))),
            forwards=len(milliseconds[spec]),
        )
        for spec in store.methods()
        if spec in milliseconds
    }
    return Timings(environment=environment, methods=methods)


def _classification(
    rows: Sequence[Classified], plain: dict[str, Classified], facts: dict[str, Any], paired: bool
) -> dict[str, Any]:
    right = [row.prediction in row.labels for row in rows]
    low, high = accuracy_interval(sum(right), len(right))
    found: dict[str, Any] = {
        "classified": len(rows),
        "correct": sum(right),
        "accuracy": sum(right) / len(right),
        "accuracy_low": low,
        "accuracy_high": high,
    }
    if facts["multi_label"]:
        labels = [row.labels for row in rows]
        rankings = [row.ranking for row in rows]
        places = np.argsort(np.asarray(rankings), axis=1)  # (N, K): the place of each class, best 0
        found["class_map"] = per_class_map(-places, labels)
        found["image_ap"] = float(np.mean(per_image_ap(rankings, labels)))
    else:
        found["class_accuracy"] = mean_per_class_accuracy([r.prediction for r in rows], [r.labels[0] for r in rows])
    both = [row for row in rows if row.image_id in plain]
    if paired and both:
        ours = [row.prediction in row.labels for row in both]
        theirs = [plain[row.image_id].prediction in row.labels for row in both]
        change, change_low, change_high = paired_difference(ours, theirs)
        found |= {
            "change": change,
            "change_low": change_low,
            "change_high": change_high,
            "mcnemar_p": mcnemar(ours, theirs),
        }
    return found


def _generation(
    rows: Sequence[Generated], real: npt.NDArray[np.float32] | None, facts: dict[str, Any]
) -> dict[str, Any]:
    found: dict[str, Any] = {"generated": len(rows)}
    features = [row.features for row in rows if row.features is not None]
    if real is not None and min(len(features), len(real)) >= 2:
        ours = np.stack(features)
        found["fid"] = fid(real, ours)
        found["kid"], found["kid_deviation"] = kid(real, ours)
    seen = [row.recognised == row.label for row in rows if row.recognised is not None and row.label is not None]
    if seen:
        low, high = accuracy_interval(sum(seen), len(seen))
        found |= {"recognised": sum(seen) / len(seen), "recognised_low": low, "recognised_high": high}
    return found


def _fidelity(rows: Sequence[Generated], plain: dict[int, npt.NDArray[np.uint8]]) -> dict[str, Any]:
    both = [row for row in rows if row.image in plain]
    if not both:
        return {}
    decibels = mean_psnr(np.stack([row.pixels for row in both]), np.stack([plain[row.image] for row in both]))
    return {"psnr": decibels if np.isfinite(decibels) else None}  # infinite: the very same images


def _check_format(values: object) -> None:
    found = values.get("format") if isinstance(values, dict) else None
    if found != FORMAT:
        raise ValueError(f"format must be {FORMAT!r}, not {found!r}")


def _rounded(value: Any) -> Any:
    return float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value
