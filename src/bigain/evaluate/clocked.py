"""What every offer saves in time on this machine: each transformer block is clocked within whole forwards.

FLOPs that are saved are not time that is saved: matching, gathering and scattering take time, and small products use
little of a processor. Which offers are worth it therefore depends on the machine, the dtype and the batch.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.evaluate.allocation import Offer
from bigain.evaluate.export import write_whole
from bigain.evaluate.plan import differences
from bigain.evaluate.timing import applied, environment, forward_of, synchronise
from bigain.methods import Method, parse, spec

_FORMAT = "bigain offer timings 1"
_NANO = 1e9


@dataclass(frozen=True)
class Clocked:
    """Times of offers.

    Args:
        environment: machine, dtype and batch; what was measured in another does not compare.
        forward: seconds of a forward without compression, of a whole batch.
        saved: by the spec of an offer, the seconds of a forward that it saves; negative where it takes longer.
    """

    environment: Mapping[str, Any]
    forward: float
    saved: Mapping[str, float]

    def in_time(self, offers: Iterable[Offer]) -> tuple[Offer, ...]:
        """The offers, with the nanoseconds that they save in place of the FLOPs."""
        return tuple(replace(offer, saved=round(self.saved[offer.method] * _NANO)) for offer in offers)

    def saving(self, offers: Iterable[Offer], speed_up: float) -> int:
        """The nanoseconds that are to be saved so that a forward is ``speed_up`` times as fast.

        Raises:
            ValueError: if the speed-up is not above 1, or the fastest offers of all layers together do not reach it.
        """
        if not (math.isfinite(speed_up) and speed_up > 1):
            raise ValueError(f"the speed-up must be above 1, not {speed_up:g}")
        wanted = round(self.forward * (1 - 1 / speed_up) * _NANO)
        fastest: dict[int, int] = {}
        for offer in self.in_time(offers):
            fastest[offer.layer] = max(fastest.get(offer.layer, 0), offer.saved)
        most = sum(fastest.values())
        if most < wanted:
            reached = 1 / (1 - most / _NANO / self.forward) if most else 1.0
            raise ValueError(
                f"a speed-up of {speed_up:g} cannot be reached: on this machine the fastest of the candidates in every "
                f"layer together come to {reached:.3g} times as fast, in batches of {self.environment['batch_size']}. "
                f"Ask for less, or give candidates that merge or pool more"
            )
        return wanted


def clock_offers(
    denoiser: Denoiser,
    offers: Sequence[Offer],
    path: Path | None = None,
    *,
    dtype: str,
    batch_size: int,
    rounds: int = 7,
    counted: Callable[[int, int], object] = lambda done, of: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Clocked:
    """Measures what every offer saves in time.

    A candidate acts in all of its layers at once, and every block is clocked on its own. Each such forward follows one
    without compression, and the median of the differences counts, so that what disturbs the machine falls on both. The
    first round is not counted.

    Args:
        offers: as ``measure_offers`` gives them.
        path: of a JSON file with all times, made if it is not there; None keeps none. One that lacks some of the offers
            is measured again as a whole, as times of different sittings do not compare.
        dtype: of the model, as the file is to state it.
        batch_size: rows of a forward.
        rounds: that count.
        counted: called with the forwards done and their number after each two.
        clock: of seconds.

    Raises:
        ValueError: there are no offers, fewer than one round or row; or a file of another machine, dtype or batch, or
            of something else; says which fields differ.
    """
    if not offers:
        raise ValueError("there are no offers to be timed")
    if rounds < 1 or batch_size < 1:
        raise ValueError(f"rounds and batch_size must be at least 1, not {rounds} and {batch_size}")
    here = environment(denoiser.device, {"dtype": dtype, "batch_size": batch_size, "rounds": rounds})
    if path is not None and path.exists():
        found = _read(path)
        if found.environment != here:
            differing = "; ".join(differences(dict(found.environment), here))
            raise ValueError(f"{path} holds times that do not compare: {differing}. Delete it to measure again")
        if {offer.method for offer in offers} <= {*found.saved}:
            return found
    forward = forward_of(denoiser, 0 if denoiser.kind == "class" else "", denoiser.process.timesteps(batch_size))
    groups = _everywhere(offers)
    total = 2 * len(groups) * (rounds + 1)
    plain: list[float] = []
    saved: dict[str, list[float]] = {offer.method: [] for offer in offers}
    for number in range(rounds + 1):
        for visit, (method, members) in enumerate(groups):
            with _clocked(denoiser, clock) as before:
                started = clock()
                forward()
                synchronise(denoiser.device)
                whole = clock() - started
            with applied(denoiser, spec(method)), _clocked(denoiser, clock) as after:
                forward()
            if number:
                plain.append(whole)
                for offer in members:
                    saved[offer.method].append(before[offer.layer] - after[offer.layer])
            counted(2 * (number * len(groups) + visit + 1), total)
    result = Clocked(here, median(plain), {method: median(times) for method, times in saved.items()})
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, json.dumps({"format": _FORMAT} | asdict(result), indent=1) + "\n")
    return result


@contextmanager
def _clocked(denoiser: Denoiser, clock: Callable[[], float]) -> Iterator[list[float]]:
    """The seconds that each transformer block takes in the forwards within, in the order of the layers."""
    layers = layout(denoiser.model).layers
    times = [0.0] * len(layers)

    def start(number: int) -> None:
        synchronise(denoiser.device)
        times[number] -= clock()

    def stop(number: int) -> None:
        synchronise(denoiser.device)
        times[number] += clock()

    handles = []
    try:
        for number, layer in enumerate(layers):
            before = layer.block.register_forward_pre_hook(lambda *_, n=number: start(n), prepend=True)
            after = layer.block.register_forward_hook(lambda *_, n=number: stop(n))
            handles += [before, after]
        yield times
    finally:
        for handle in handles:
            handle.remove()


def _everywhere(offers: Sequence[Offer]) -> list[tuple[Method, list[Offer]]]:
    """Each candidate in all layers that it has an offer in, and these offers."""
    groups: dict[str, list[Offer]] = {}
    for offer in offers:
        groups.setdefault(offer.candidate, []).append(offer)
    found = []
    for members in groups.values():
        singles = [parse(offer.method)[0] for offer in members]
        levels = tuple(sorted({level for single in singles for level in single.levels}))
        found.append((replace(singles[0], levels=levels, layers=tuple(offer.layer for offer in members)), members))
    return found


def _read(path: Path) -> Clocked:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no file of times: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{path} is no file of times, which has format {_FORMAT!r}")
    try:
        return Clocked(content["environment"], float(content["forward"]), dict(content["saved"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no whole file of times: {error!r}") from error
