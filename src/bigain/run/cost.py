"""What a forward costs: FLOPs, which are counted, and milliseconds, which are measured."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bigain.backbones import compressed
from bigain.backbones.families import layout
from bigain.diffusion import Denoiser
from bigain.methods import Compression, Method
from bigain.operators.random import seeded_generator

_FLOP_TIMESTEPS = 4
_SHIFTED = 40  # timesteps, all different up to a shift of 20
_LONG = 1000.0  # milliseconds
Key = TypeVar("Key")


def applied(denoiser: Denoiser, methods: Compression | Method | str) -> AbstractContextManager[object]:
    """Methods for the length of a with-block; "none" touches nothing at all."""
    methods = Compression.of(methods)
    return compressed(denoiser, methods) if methods else nullcontext()


def flops(denoiser: Denoiser, methods: Compression | Method | str, condition: str | int) -> int:
    """FLOPs of one forward of one image by PyTorch's count.

    The mean over 4 timesteps where a ratio follows them; over all timesteps where methods act in a range of them.
    Matrix products and convolutions are counted; sorting, gathering and pointwise operations are not.
    """
    return count_flops(denoiser, methods, condition)[0]


def block_flops(denoiser: Denoiser, methods: Compression | Method | str, condition: str | int) -> list[int]:
    """FLOPs of each transformer block in one forward of one image, counted as in ``flops``."""
    return count_flops(denoiser, methods, condition)[1]


def count_flops(
    denoiser: Denoiser, methods: Compression | Method | str, condition: str | int, spacing: str = "uniform"
) -> tuple[int, list[int]]:
    """``flops`` and ``block_flops``, from the same forwards, at timesteps as ``usual_timesteps``."""
    methods = Compression.of(methods)
    among = usual_timesteps(denoiser, spacing)
    chosen = methods.parted(among.tolist()) if methods.follows_t else [list(range(len(among)))]
    parts = [(len(places) / len(among), among[places]) for places in chosen]
    counts = sum(share * _flops_at(denoiser, methods, condition, timesteps) for share, timesteps in parts)
    total, *blocks = map(round, counts.tolist())  # type: ignore[union-attr]
    return total, blocks


def _flops_at(denoiser: Denoiser, methods: Compression, condition: str | int, among: Tensor) -> Tensor:
    """Of all and of each block, the mean over a few timesteps ``among`` some at which the same methods act."""
    scheduled = any(method.is_scheduled for method in methods)
    timesteps = spread(among, min(_FLOP_TIMESTEPS if scheduled else 1, len(among)))
    blocks = [layer.block for layer in layout(denoiser.model).layers]
    totals = [0] * (1 + len(blocks))
    forwards = [forward_of(denoiser, condition, timestep.reshape(1)) for timestep in timesteps]  # which encode prompts
    # Fused attention on a CPU is unknown to FlopCounterMode and counts as 0; its plain form counts the same products.
    with sdpa_kernel(SDPBackend.MATH), applied(denoiser, methods), FlopCounterMode(display=False) as counter:

        def count(number: int, sign: int) -> None:
            totals[number] += sign * counter.get_total_flops()

        with ExitStack() as hooks:
            for number, block in enumerate(blocks, start=1):
                before = block.register_forward_pre_hook(lambda *_, n=number: count(n, -1), prepend=True)
                after = block.register_forward_hook(lambda *_, n=number: count(n, 1))
                hooks.callback(before.remove)
                hooks.callback(after.remove)
            for forward in forwards:
                forward()
        totals[0] = counter.get_total_flops()
    return torch.tensor(totals, dtype=torch.float64) / len(timesteps)


def usual_timesteps(denoiser: Denoiser, spacing: str) -> Tensor:
    """Timesteps of a classifier of that spacing, (n,) long: all, or so many that those of a shifted schedule differ."""
    steps = denoiser.process.steps
    return denoiser.timesteps(steps if spacing == "uniform" else min(steps, _SHIFTED), spacing)


def spread(timesteps: Tensor, count: int) -> Tensor:
    """``count`` of them, evenly spaced with half a stride of offset; each several times where they are fewer."""
    return timesteps[(2 * torch.arange(count) + 1) * len(timesteps) // (2 * count)]


def measure(
    denoiser: Denoiser,
    specs: Sequence[str],
    condition: str | int,
    *,
    batch_size: int,
    rounds: int,
    done: Callable[[], None] = lambda: None,
    among: Tensor | None = None,
) -> dict[str, list[float]]:
    """Milliseconds of ``rounds`` forwards of ``batch_size`` rows per method, as `interleaved` measures them.

    ``done`` is called after each. A method that acts in a range of t is visited in and outside of it, and counts by the
    shares of ``among``, (n,) timesteps, which are evenly spaced if left out.
    """
    among = denoiser.process.timesteps(batch_size) if among is None else among
    parts = {spec: _forwards(denoiser, spec, condition, among, batch_size) for spec in specs}
    visits = {
        (spec, place): (partial(applied, denoiser, spec), forward)
        for spec, own in parts.items()
        for place, (_, forward) in enumerate(own)
    }

    def visited(key: tuple[str, int]) -> None:
        spec, place = key
        if place == len(parts[spec]) - 1:
            done()

    times = interleaved(visits, rounds, denoiser.device, visited)
    shares = {spec: [share for share, _ in own] for spec, own in parts.items()}
    return {
        spec: [sum(share * times[spec, place][number] for place, share in enumerate(own)) for number in range(rounds)]
        for spec, own in shares.items()
    }


def interleaved(
    visits: Mapping[Key, tuple[Callable[[], AbstractContextManager[object]], Callable[[], object]]],
    rounds: int,
    device: torch.device,
    done: Callable[[Key], object] = lambda key: None,
) -> dict[Key, list[float]]:
    """Milliseconds of calls in each round, each in a context of its own; ``done`` is called with the key of each.

    Every round visits each in turn, so that what disturbs the machine falls on all of them alike. A visit is one call
    to warm up, which those that take over a second need in the first round only, and one that is timed; the clock is
    read when the device has finished.
    """
    times: dict[Key, list[float]] = {key: [] for key in visits}
    for _ in range(rounds):
        for key, (prepared, call) in visits.items():
            with prepared():
                if not times[key] or times[key][-1] < _LONG:
                    call()
                    synchronise(device)
                started = time.perf_counter()
                call()
                synchronise(device)
                times[key].append((time.perf_counter() - started) * 1000)
            done(key)
    return times


def _forwards(
    denoiser: Denoiser, spec: str, condition: str | int, among: Tensor, batch_size: int
) -> list[tuple[float, Callable[[], Tensor]]]:
    """Forwards of whole batches, one for each set of methods that act together, and its share of timesteps."""
    parts = Compression.of(spec).parted(among.tolist())
    return [
        (len(places) / len(among), forward_of(denoiser, condition, spread(among[places], batch_size)))
        for places in parts
    ]


def environment(device: torch.device, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Where a timing was measured; timings from different environments do not compare."""
    return {
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        **extra,
    }


def _processor() -> str:
    """The CPU's model name on Linux, what Python calls it elsewhere."""
    information = Path("/proc/cpuinfo")
    text = information.read_text(errors="replace") if information.is_file() else ""
    named = re.search(r"^model name\s*:(.*)$", text, re.MULTILINE)
    return " ".join(named[1].split()) if named else platform.processor() or platform.machine()


def synchronise(device: torch.device) -> None:
    """Waits until the device has finished what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def forward_of(denoiser: Denoiser, condition: str | int, timesteps: Tensor) -> Callable[[], Tensor]:
    """One forward of as many rows as there are timesteps, on fixed noise."""
    rows = len(timesteps)
    noise = torch.randn(rows, *denoiser.sample_shape, generator=seeded_generator("timing")).to(denoiser.device)
    conditions = denoiser.conditions([condition])  # type: ignore[arg-type]
    index = torch.zeros(rows, dtype=torch.long)
    return lambda: denoiser.predict(noise, timesteps.to(denoiser.device), conditions, index)
