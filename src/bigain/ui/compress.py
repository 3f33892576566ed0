"""The tab "Compress": one image without and with a method, from the same noise, and the tokens that go together."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from bigain.backbones import Seen, recorded
from bigain.explain.inspection import Grouping
from bigain.generate import Sampling, sample
from bigain.images import Pixels
from bigain.methods import Compression
from bigain.metrics.distribution import mean_psnr
from bigain.run.cost import applied, flops
from bigain.ui.models import Opened

LONGEST = 300  # characters of a prompt


@dataclass(frozen=True, eq=False)
class Side:
    """An image, and what it took."""

    steps: int  # done
    seconds: float = 0.0
    image: Pixels | None = None  # (H, W, 3), once it is whole


@dataclass(frozen=True, eq=False)
class Comparison:
    """What is known so far."""

    methods: str  # spec
    steps: int  # of each image
    saved: float  # share of the FLOPs of a forward
    plain: Side = Side(0)
    compressed: Side = Side(0)
    groupings: tuple[dict[str, Grouping], ...] = ()  # by step: by the name of the layer; at the end

    @property
    def psnr(self) -> float | None:
        """Of the compressed image to the uncompressed one, in dB; infinite where they are equal."""
        one, other = self.plain.image, self.compressed.image
        return None if one is None or other is None else mean_psnr(one[None], other[None])

    @property
    def layers(self) -> tuple[str, ...]:
        """Those in which tokens go together."""
        return tuple(dict.fromkeys(name for step in self.groupings for name in step))


def compare(
    opened: Opened,
    condition: str | int,
    methods: Compression,
    sampling: Sampling,
    tell: Callable[[Comparison], object],
) -> None:
    """Draws image number 0 of the sampling's seed twice, and tells after every step.

    ValueError for a prompt that is empty or too long, and as `bigain.generate.sample`.
    """
    if isinstance(condition, str) and not 0 < len(condition.strip()) <= LONGEST:
        raise ValueError(f"the prompt must have 1 to {LONGEST} characters, not {len(condition.strip()):,}")
    denoiser = opened.denoiser
    plain, own = (flops(denoiser, one, denoiser.any_condition) for one in (Compression(), methods))
    asked: list[Any] = [condition]
    conditions = denoiser.conditions(asked)
    known = Comparison(methods.text, sampling.steps, 1 - own / plain)
    watched = _Watched(sampling.steps, 0 if denoiser.kind == "class" else -1)
    for side in ("plain", "compressed"):
        acting = methods if side == "compressed" else Compression()

        def watch(done: int, side: str = side, known: Comparison = known) -> None:
            watched.done = done
            changed: dict[str, Any] = {side: Side(done)}
            tell(replace(known, **changed))

        watched.noting, start = 0.0, time.perf_counter()
        with recorded(denoiser.model, acting, watched.note) if acting else applied(denoiser, acting):
            [image] = sample(denoiser, conditions, [0], [0], sampling, watch=watch)
        seconds = time.perf_counter() - start - watched.noting
        changed: dict[str, Any] = {side: Side(sampling.steps, seconds, image)}
        known = replace(known, **changed)
    tell(replace(known, groupings=tuple(watched.groupings)))


class _Watched:
    """What a method decides in each step of a sampling."""

    def __init__(self, steps: int, row: int) -> None:
        self.groupings: list[dict[str, Grouping]] = [{} for _ in range(steps)]
        self.row = row  # of two under guidance, that with the condition
        self.done = 0  # steps
        self.noting = 0.0  # seconds that went into this

    def note(self, seen: Seen) -> None:
        """Keeps which tokens go together."""
        start = time.perf_counter()
        if seen.decided:
            step = min(self.done, len(self.groupings) - 1)
            self.groupings[step][seen.name] = Grouping.of(seen, self.row)
        self.noting += time.perf_counter() - start
