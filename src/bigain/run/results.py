"""The records of a run's results, and their files: JSON and csv, which repeat on one machine, and times, which do not.

Nothing here imports PyTorch or NumPy, so a finished results file is shown at once.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bigain.run.files import read_json, write_json, write_whole

FORMAT = "bigain results 1"
MEASURES = ("accuracy", "fid", "psnr")
_FACTS = ("classes", "conditions", "data", "feature_network", "multi_label", "timesteps")  # that tables show
_SETTINGS = ("model", "dtype", "seed")  # likewise


@dataclass(frozen=True, kw_only=True)
class Row:
    """What one method does, None where it was not measured."""

    method: str  # its spec; "none" is no compression, which the others are compared with on the same images and noise
    classified: int = 0  # images
    correct: int | None = None
    accuracy: float | None = None  # share of images whose prediction is among their labels: precision@1 if several
    accuracy_low: float | None = None  # its 95% interval (Wilson)
    accuracy_high: float | None = None
    change: float | None = None  # accuracy minus that of "none" on the same images, with its 95% interval
    change_low: float | None = None
    change_high: float | None = None
    change_images: int | None = None  # that both classified, over which the change is
    mcnemar_p: float | None = None  # two-sided, of the exact test that accuracy does not differ from "none"
    class_accuracy: float | None = None  # within each class, averaged over classes (one label per image)
    class_map: float | None = None  # mean average precision over classes, VOC style (several labels per image)
    image_ap: float | None = None  # mean over images of the average precision of their ranking (likewise)
    calibration_error: float | None = None  # of the probabilities, expected, 15 bins (Guo et al. 2017; one label)
    forwards: float | None = None  # that classifying an image took, mean over images
    generated: int = 0  # images
    fid: float | None = None  # to the real images, as all down to recall
    kid: float | None = None  # the mean over subsets, with its standard deviation
    kid_deviation: float | None = None
    precision: float | None = None  # share of generated images among the real ones (Kynkaanniemi et al. 2019)
    recall: float | None = None  # the reverse
    recognised: float | None = None  # share of generated images in which the small classifier sees the class asked for
    recognised_low: float | None = None  # its 95% interval
    recognised_high: float | None = None
    psnr: float | None = None  # dB to the images that "none" makes of the same noise, of the mean error over all
    psnr_images: int | None = None  # that both generated, over which it is
    flops: int | None = None  # of one forward of one image
    flops_change: float | None = None  # share of the FLOPs of "none" that is added (negative: saved)

    def __post_init__(self) -> None:
        if not isinstance(self.method, str):
            raise ValueError(f"method must be text, not {self.method!r}")
        for one in fields(self)[1:]:
            value = getattr(self, one.name)
            if value is None and one.default is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                raise ValueError(f"{one.name} of {self.method} must be a number, not {value!r}")


@dataclass(frozen=True)
class Gain:
    """By how much one method is better than another, with its 95% interval: accuracy as a share, FID, or dB of PSNR."""

    value: float
    low: float
    high: float

    @property
    def is_certain(self) -> bool:
        """Whether the interval lies above 0."""
        return self.low > 0


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One method against another, None where it was not measured for both."""

    method: str
    other: str
    accuracy: Gain | None = None  # on the images that both classified (Newcombe 1998)
    # The other's minus the method's. The interval is of 200 paired resamples of the generated images, the real ones
    # stay (percentile bootstrap, shifted by the bias of the resamples' mean: FID grows as images repeat).
    fid: Gain | None = None
    psnr: Gain | None = None  # to the uncompressed images from the same noise; bootstrap too
    classified: int | None = None  # images that both have, over which the gains are; None in files that do not say
    generated: int | None = None

    @property
    def gains(self) -> dict[str, Gain | None]:
        """By measure."""
        return {name: getattr(self, name) for name in MEASURES}

    def rounded(self, digits: Callable[[float], float]) -> Comparison:
        """The same with every gain rounded by ``digits``."""
        gains: Any = {name: gain and Gain(*map(digits, astuple(gain))) for name, gain in self.gains.items()}
        return replace(self, **gains)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Comparison:
        """The reverse of ``dataclasses.asdict``."""
        gains = {name: None if values.get(name) is None else Gain(**values[name]) for name in MEASURES}
        return cls(**{**values, **gains})


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything that a run measured and that repeats on one machine: no times."""

    hash: str  # SHA-256 of the settings
    settings: dict[str, Any]  # see `Settings.identity`
    facts: dict[str, Any]  # of the model and the data
    versions: list[dict[str, str]]  # the sets of versions that worked on it
    reference: dict[str, Any] | None  # the real images of FID and KID
    rows: tuple[Row, ...]  # one per method, "none" first
    comparisons: tuple[Comparison, ...] = ()  # of methods with one another, where they were asked for
    commands: list[str] = field(default_factory=list)  # what would repeat it, of each session with another command

    def gaps(self) -> list[str]:
        """What an unfinished run lacks, in sentences: why values are missing, or are over fewer images."""
        plain = next((row for row in self.rows if row.method == "none"), None)
        if plain is None:
            lacking = "No compression (none) was not measured, so there is nothing to compare the methods with."
            return [lacking] if self.rows else []
        sentences = []
        for row in self.rows:
            for name, both in (("classified", row.change_images), ("generated", row.psnr_images)):
                ours, theirs = getattr(row, name), getattr(plain, name)
                if ours != theirs:
                    paired = "" if both is None else f"; the two are compared on the {both} that both have"
                    sentences.append(f"{row.method} has {ours} {name} images and no compression {theirs}{paired}.")
        return sentences

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Results:
        """The reverse of ``dataclasses.asdict``; what is no run is a ValueError, KeyError or TypeError."""
        for name, needed in (("facts", _FACTS), ("settings", _SETTINGS)):
            lacking = [key for key in needed if key not in values[name]]
            if lacking:
                raise ValueError(f"{name} must have {', '.join(lacking)}")
        rows = tuple(Row(**row) for row in values["rows"])
        comparisons = tuple(Comparison.from_json(one) for one in values.get("comparisons", ()))
        return cls(**{**values, "rows": rows, "comparisons": comparisons})


@dataclass(frozen=True, kw_only=True)
class Timing:
    """Measured forwards of one method, in milliseconds per batch: their median and quartiles, and how many."""

    median: float
    low: float
    high: float
    forwards: int


@dataclass(frozen=True, kw_only=True)
class Timings:
    """Measured times by spec, and where and how they were measured; apart from `Results` as they never repeat."""

    environment: dict[str, Any]
    methods: dict[str, Timing]

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Timings:
        """The reverse of ``dataclasses.asdict``."""
        methods = {spec: Timing(**timing) for spec, timing in values["methods"].items()}
        return cls(environment=values["environment"], methods=methods)


def write_results(path: Path, results: Results, times: Timings) -> None:
    """Writes ``path`` (x.json), the same rows as x.csv, empty where not measured, and the times as x.timings.json."""
    write_json(path, FORMAT, asdict(results))
    write_json(path.with_suffix(".timings.json"), FORMAT, asdict(times))
    text = io.StringIO()
    writer = csv.DictWriter(text, [one.name for one in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in results.rows)
    write_whole(path.with_suffix(".csv"), text.getvalue())


def read_results(path: Path) -> tuple[Results, Timings | None]:
    """Reads what ``write_results`` wrote; the times are None where their file is missing.

    FileNotFoundError where the results are missing; ValueError, with its name, for a file that is damaged or another.
    """
    times, what = path.with_suffix(".timings.json"), "results of bigain evaluate"
    results = read_json(path, FORMAT, what, Results.from_json)
    return results, read_json(times, FORMAT, what, Timings.from_json) if times.exists() else None
