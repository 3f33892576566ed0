"""What every offer saves in time on this machine: each transformer block is clocked within whole forwards.

FLOPs that are saved are not time that is saved: matching, gathering and scattering take time, and small products use
little of a processor. Which offers are worth it therefore depends on the machine, the dtype and the batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from torch import Tensor

from bigain.backbones import compressed
from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.methods import Method
from bigain.run.cost import environment, forward_of, measure, synchronise
from bigain.run.files import differences, fingerprint, read_json, write_json
from bigain.search.knapsack import most_saved
from bigain.search.offers import Allocation, Offer, together

_FORMAT = "bigain offer timings 1"
_NANO = 1e9


@dataclass(frozen=True)
class Clocked:
    """Times of offers."""

    environment: Mapping[str, Any]  # weights, machine, dtype and batch; times of another do not compare
    rounds: int  # that counted
    forward: float  # seconds of a forward without compression, of a whole batch
    saved: Mapping[str, float]  # by an offer's spec the seconds of a forward that it saves; negative: it takes longer

    def in_time(self, offers: Iterable[Offer]) -> tuple[Offer, ...]:
        """The offers, with the nanoseconds that they save in place of the FLOPs."""
        return tuple(
            replace(offer, saved=round(offer.weight * self.saved[offer.everywhere] * _NANO)) for offer in offers
        )

    def seconds_saved(self, offers: Iterable[Offer]) -> float:
        """Of a forward, by the sum of what offers save."""
        return math.fsum(offer.weight * self.saved[offer.everywhere] for offer in offers)

    def saving(self, offers: Iterable[Offer], speed_up: float) -> int:
        """The nanoseconds that are to be saved so that a forward is ``speed_up`` times as fast.

        ValueError where that is not above 1, or more than the fastest offers of all layers together reach.
        """
        if not speed_up > 1:
            raise ValueError(f"speed_up must be above 1, not {speed_up:g}")
        saving = round(self.forward * (1 - 1 / speed_up) * _NANO)
        most = most_saved(self.in_time(offers))
        if most >= saving:
            return saving
        batches = f"on this machine, in batches of {self.environment['batch_size']}"
        if not most:
            raise ValueError(
                f"speed_up must be given up {batches}, where no candidate is faster than no compression in any layer "
                f"(larger batches may help), not {speed_up:g}"
            )
        fastest = math.floor(100 / (1 - most / _NANO / self.forward)) / 100
        raise ValueError(
            f"speed_up must be at most {fastest:g} {batches}, which the fastest candidates of all layers reach "
            f"together (candidates that merge or pool more reach more), not {speed_up:g}"
        )


def kept_times(denoiser: Denoiser, path: Path, *, dtype: str, batch_size: int) -> Clocked | None:
    """What ``clock_offers`` left in a file; None if there is none.

    ValueError where ``batch_size`` is not between 1 and the model's number of timesteps, or the file is of other
    weights, another machine, dtype or batch, or of something else.
    """
    current = _environment(denoiser, dtype, batch_size)
    if not path.exists():
        return None

    def made(content: Mapping[str, Any]) -> Clocked:
        return Clocked(content["environment"], content["rounds"], float(content["forward"]), dict(content["saved"]))

    kept = read_json(path, _FORMAT, "times of bigain allocate", made)
    if differing := differences(kept.environment, current):
        raise ValueError(f"{path} must hold times that compare with this run, but {differing}: delete it")
    return kept


def _environment(denoiser: Denoiser, dtype: str, batch_size: int) -> dict[str, Any]:
    most = denoiser.process.steps
    if not 1 <= batch_size <= most:
        each = "each row with a timestep of its own"
        raise ValueError(f"batch_size must lie in [1, {most}] where it is timed, {each}, not {batch_size}")
    extra = {"dtype": dtype, "batch_size": batch_size, "weights": fingerprint(*denoiser.networks)}
    return environment(denoiser.device, extra)


def clock_offers(
    denoiser: Denoiser,
    offers: Sequence[Offer],
    path: Path,
    *,
    dtype: str,
    batch_size: int,
    rounds: int = 7,
    counted: Callable[[int, int], object] = lambda done, of: None,
    clock: Callable[[], float] = time.perf_counter,
) -> Clocked:
    """Measures what every offer saves in time.

    A candidate acts in all of its layers at once, at every t, and every block is clocked on its own. Each such forward
    follows one without compression, and the median of the differences counts, so that what disturbs the machine falls
    on both. The first round is not counted. ValueError for no offers, or fewer than one round; and as ``kept_times``.

    Args:
        path: of a JSON file with all times. If it lacks some of the offers, or has fewer rounds, all are measured
            again, as times of different sittings do not compare.
        dtype, batch_size: of the model, as the file is to state it, and rows of a forward.
        rounds: that count, at least.
        counted: called with the forwards done and their number after each two.
        clock: of seconds.
    """
    if not offers:
        raise ValueError("offers must be one at least to be timed, not none")
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, not {rounds}")
    current = _environment(denoiser, dtype, batch_size)
    kept = kept_times(denoiser, path, dtype=dtype, batch_size=batch_size)
    offers = [*{one.everywhere: replace(one, method=one.everywhere, timesteps=None) for one in offers}.values()]
    if kept is not None and kept.rounds >= rounds and {offer.method for offer in offers} <= {*kept.saved}:
        return kept
    forward = forward_of(denoiser, denoiser.any_condition, denoiser.process.timesteps(batch_size))
    groups = together(offers)
    total = 2 * len(groups) * (rounds + 1)
    plain: list[float] = []
    saved: dict[str, list[float]] = {offer.method: [] for offer in offers}
    for number in range(rounds + 1):
        for visit, (method, members) in enumerate(groups):
            whole, before, after = _visit(denoiser, method, forward, clock)
            if number:
                plain.append(whole)
                for offer in members:
                    saved[offer.method].append(before[offer.layer] - after[offer.layer])
            counted(2 * (number * len(groups) + visit + 1), total)
    result = Clocked(current, rounds, median(plain), {method: median(times) for method, times in saved.items()})
    write_json(path, _FORMAT, asdict(result))
    return result


def clock_together(
    denoiser: Denoiser, chosen: Allocation, clocked: Clocked, rounds: int, among: Tensor | None = None
) -> dict[str, float]:
    """How many times as fast a choice is: "expected" of its layers, and "measured", the median over the rounds.

    ``among`` are the timesteps (n,) of the use; evenly spaced if left out.
    """
    text, batch_size = chosen.methods.text, clocked.environment["batch_size"]
    times = measure(denoiser, ["none", text], denoiser.any_condition, batch_size=batch_size, rounds=rounds, among=among)
    ratios = [plain / own for plain, own in zip(times["none"], times[text], strict=True)]
    expected = clocked.forward / (clocked.forward - clocked.seconds_saved(chosen.offers))
    return {"expected": round(expected, 4), "measured": round(median(ratios), 4)}


def _visit(
    denoiser: Denoiser, method: Method, forward: Callable[[], object], clock: Callable[[], float]
) -> tuple[float, list[float], list[float]]:
    """Seconds of a forward without compression, and of each block in it and in one under ``method``."""
    with _clocked(denoiser, clock) as before:
        synchronise(denoiser.device)  # what the last forward left
        started = clock()
        forward()
        synchronise(denoiser.device)
        whole = clock() - started
    with compressed(denoiser.model, method), _clocked(denoiser, clock) as after:
        forward()
    return whole, before, after


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

    with ExitStack() as hooks:
        for number, layer in enumerate(layers):
            before = layer.block.register_forward_pre_hook(lambda *_, n=number: start(n), prepend=True)
            after = layer.block.register_forward_hook(lambda *_, n=number: stop(n))
            hooks.callback(before.remove)
            hooks.callback(after.remove)
        yield times
