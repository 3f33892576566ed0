"""What a forward costs: FLOPs, which are counted, and milliseconds, which are measured."""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bigain.backbones import compressed
from bigain.diffusion import Denoiser
from bigain.methods import Compression, Method
from bigain.operators.random import seeded_generator

_FLOP_TIMESTEPS = 4
_LONG = 1000.0  # milliseconds
Key = TypeVar("Key")


def applied(denoiser: Denoiser, methods: Compression | Method | str) -> AbstractContextManager[object]:
    """Methods for the length of a with-block; "none" touches nothing at all."""
    methods = Compression.of(methods)
    return compressed(denoiser, methods) if methods else nullcontext()


def flops(denoiser: Denoiser, methods: Compression | Method | str, condition: str | int) -> int:
    """FLOPs of one forward of one image by PyTorch's count; the mean over 4 timesteps where a ratio follows them.

    Matrix products and convolutions are counted; sorting, gathering and pointwise operations are not.
    """
    methods = Compression.of(methods)
    scheduled = any(method.is_scheduled for method in methods)
    timesteps = denoiser.process.timesteps(_FLOP_TIMESTEPS if scheduled else 1)
    total = 0
    # Fused attention on a CPU is unknown to FlopCounterMode and counts as 0; its plain form counts the same products.
    with sdpa_kernel(SDPBackend.MATH), applied(denoiser, methods):
        for timestep in timesteps:
            forward = forward_of(denoiser, condition, timestep.reshape(1))
            with FlopCounterMode(display=False) as counter:
                forward()
            total += counter.get_total_flops()
    return round(total / len(timesteps))


def measure(
    denoiser: Denoiser,
    specs: Sequence[str],
    condition: str | int,
    *,
    batch_size: int,
    rounds: int,
    done: Callable[[], None] = lambda: None,
) -> dict[str, list[float]]:
    """Milliseconds of ``rounds`` forwards of ``batch_size`` rows per method, as `interleaved` measures them."""
    forward = forward_of(denoiser, condition, denoiser.process.timesteps(batch_size))
    visits = {spec: (partial(applied, denoiser, spec), forward) for spec in specs}
    return interleaved(visits, rounds, denoiser.device, done)


def interleaved(
    visits: Mapping[Key, tuple[Callable[[], AbstractContextManager[object]], Callable[[], object]]],
    rounds: int,
    device: torch.device,
    done: Callable[[], None] = lambda: None,
) -> dict[Key, list[float]]:
    """Milliseconds of calls in each round, each in a context of its own; ``done`` is called after each.

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
            done()
    return times


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
