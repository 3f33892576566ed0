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

from bigain.backbones import compressed
from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.methods import Method, parse
from bigain.run.cost import environment, forward_of, synchronise
from bigain.run.engine import fingerprint
from bigain.run.export import write_whole
from bigain.run.settings import differences
from bigain.search.allocation import Offer, most_saved

_FORMAT = "bigain offer timings 1"
_NANO = 1e9


@dataclass(frozen=True)
class Clocked:
    """Times of offers.

    Args:
        environment: weights, machine, dtype and batch; what was measured in another does not compare.
        rounds: that counted.
        forward: seconds of a forward without compression, of a whole batch.
        saved: by the spec of an offer, the seconds of a forward that it saves; negative where it takes longer.
    """

    environment: Mapping[str, Any]
    rounds: int
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
        most = sum(most_saved(self.in_time(offers)).values())
        if most < wanted:
            raise ValueError(f"a speed-up of {speed_up:g} cannot be reached: {self._reached(most)}")
        return wanted

    def _reached(self, most: int) -> str:
        batches = f"on this machine, in batches of {self.environment['batch_size']}"
        if not most:
            return f"{batches}, no candidate is faster than no compression in any layer. Larger batches may help"
        reached = math.floor(100 / (1 - most / _NANO / self.forward)) / 100
        return (
            f"{batches}, the fastest candidates of all layers together come to {reached:g} times as fast. Ask for "
            f"less, or give candidates that merge or pool more"
        )


def kept_times(denoiser: Denoiser, path: Path, *, dtype: str, batch_size: int) -> Clocked | None:
    """What ``clock_offers`` left in a file; None if there is none.

    Raises:
        ValueError: ``batch_size`` is not between 1 and the model's number of timesteps; or a file of other weights,
            another machine, dtype or batch, or of something else; says which fields differ.
    """
    here = _environment(denoiser, dtype, batch_size)
    if not path.exists():
        return None
    found = _read(path)
    if found.environment != here:
        differing = "; ".join(differences(dict(found.environment), here))
        raise ValueError(f"{path} holds times that do not compare: {differing}. Delete it to measure again")
    return found


def _environment(denoiser: Denoiser, dtype: str, batch_size: int) -> dict[str, Any]:
    most = denoiser.process.steps
    if not 1 <= batch_size <= most:
        raise ValueError(
            f"batches must have 1 to {most} rows to be timed, each with its own timestep, not {batch_size}"
        )
    given = {"dtype": dtype, "batch_size": batch_size, "weights": fingerprint(*denoiser.networks)}
    return environment(denoiser.device, given)


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
        path: of a JSON file with all times, made at the end if it is not there; None keeps none. If it lacks some of
            the offers, or has fewer rounds, all are measured again, as times of different sittings do not compare.
        dtype: of the model, as the file is to state it.
        batch_size: rows of a forward.
        rounds: that count, at least.
        counted: called with the forwards done and their number after each two.
        clock: of seconds.

    Raises:
        ValueError: there are no offers, or fewer than one round; or as ``kept_times``.
    """
    if not offers:
        raise ValueError("there are no offers to be timed")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, not {rounds}")
    found = None if path is None else kept_times(denoiser, path, dtype=dtype, batch_size=batch_size)
    if found is not None and found.rounds >= rounds and {offer.method for offer in offers} <= {*found.saved}:
        return found
    here = _environment(denoiser, dtype, batch_size)
    forward = forward_of(denoiser, denoiser.any_condition, denoiser.process.timesteps(batch_size))
    groups = _everywhere(offers)
    total = 2 * len(groups) * (rounds + 1)
    plain: list[float] = []
    saved: dict[str, list[float]] = {offer.method: [] for offer in offers}
    for number in range(rounds + 1):
        for visit, (method, members) in enumerate(groups):
            with _clocked(denoiser, clock) as before:
                synchronise(denoiser.device)  # what the last forward left
                started = clock()
                forward()
                synchronise(denoiser.device)
                whole = clock() - started
            with compressed(denoiser.model, method), _clocked(denoiser, clock) as after:
                forward()
            if number:
                plain.append(whole)
                for offer in members:
                    saved[offer.method].append(before[offer.layer] - after[offer.layer])
            counted(2 * (number * len(groups) + visit + 1), total)
    result = Clocked(here, rounds, median(plain), {method: median(times) for method, times in saved.items()})
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
        found.append((replace(singles[0], levels=(1,), layers=tuple(offer.layer for offer in members)), members))
    return found


def _read(path: Path) -> Clocked:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no file of times: {error}") from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{path} is no file of times, which has format {_FORMAT!r}")
    try:
        return Clocked(content["environment"], content["rounds"], float(content["forward"]), dict(content["saved"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is no whole file of times: {error!r}") from error
