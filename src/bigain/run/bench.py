"""What methods make of the time of a forward: seconds, their parts, memory, and how fast it could be at most.

Speed depends on shapes alone, so models have random weights. Each method is timed beside no compression and beside its
*zero-cost bound*: the same forward whose assignments are for free. Nothing is scored or matched, tokens are sliced
instead of merged or pooled, and copied back where groups are taken apart.
"""

from __future__ import annotations

import copy
import importlib.util
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields, replace
from functools import partial
from statistics import median
from typing import Any, TypeVar

import torch
from diffusers import UNet2DConditionModel
from scipy.stats import quantile_test
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from bigain.backbones import Handle, apply
from bigain.backbones.untrained import MIDWAY, Untrained, untrained
from bigain.methods import Compression, Context, Method, TokenMerging, ToMe
from bigain.operators.assignment import Assignment
from bigain.operators.labels import PREFIX
from bigain.progress import progress_bar
from bigain.run.cost import environment, interleaved, synchronise
from bigain.run.settings import BenchSettings, ModelSettings
from bigain.zoo.published import Configuration

UNCOMPRESSED = "none"
PEER = "tomesd"
ATTENTION = "attention"
_ATTENTION = "aten::scaled_dot_product_attention"
_GRAPHS = 256  # more than methods and sizes are compiled in one run
AnyMethod = TypeVar("AnyMethod", bound=Method)


@dataclass(frozen=True)
class Interval:
    """A median, and its 95% interval by order statistics; of five values or fewer the lowest and the highest."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Interval:
        """Of one value or more."""
        low, high = quantile_test(values, p=0.5).confidence_interval(0.95)
        low, high = (own if math.isfinite(own) else end(values) for own, end in ((low, min), (high, max)))
        return cls(median(values), float(low), float(high))


@dataclass(frozen=True)
class Row:
    """A method at a size.

    Args:
        size: in pixels, such as "512x512".
        tokens: of image, on the finest grid with attention.
        method: its spec; or "tomesd:ratio=0.5", that package's merging.
        compiled: whether by ``torch.compile``.
        milliseconds: of a forward.
        speed_up: over no compression, not compiled, round by round.
        bound: the same by FLOPs; None where they are not known.
        free: the same of its zero-cost bound; None for no compression, another's method, and where it is compiled.
        reached: the time of the zero-cost bound as a share of that of the method, round by round.
        peak: bytes that a forward has allocated at most, its weights and arguments not among them.
        parts: milliseconds by what they go to, of a forward under a profiler.
    """

    size: str
    tokens: int
    method: str
    compiled: bool
    milliseconds: Interval
    speed_up: Interval
    bound: float | None
    free: Interval | None
    reached: Interval | None
    peak: int
    parts: Mapping[str, float]


@dataclass(frozen=True)
class _Subject:
    """What is timed: a copy of the model, in which a method acts."""

    method: str
    how: str = ""  # "free", "compiled" or as the method is
    call: Callable[[], Any] = lambda: None
    handle: Handle | None = None


def bench(
    configuration: Configuration,
    size: tuple[int, int] | None,
    methods: Sequence[Compression],
    settings: ModelSettings,
    how: BenchSettings,
    *,
    progress: bool = False,
) -> list[Row]:
    """Times no compression and methods at a size; tomesd's ToMe too where it is installed, in U-Nets.

    ValueError or `NothingCompressedError` where the size does not fit the model, or a method either; ValueError for a
    method that does not act at the timestep of the forward, the middle one.

    Args:
        size: width and height in pixels; what the model is made for if None.
        settings: dtype, device, batch size and frames.
    """
    for part in (part for method in methods for part in method if not part.acts_at(MIDWAY)):
        raise ValueError(f"methods must act at t = {MIDWAY:g}, where they are timed, not {part}")
    device = torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    made = untrained(
        configuration,
        size,
        frames=settings.frames,
        text=how.text,
        batch_size=settings.batch_size,
        dtype=getattr(torch, settings.dtype),
        device=device,
    )
    if how.channels_last:
        made.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    subjects = [*_subjects(made, methods, how.compile)]
    visits = {(one.method, one.how): (nullcontext, one.call) for one in subjects}
    with (
        _many_graphs() if how.compile else nullcontext(),
        progress_bar(how.rounds * len(visits), progress, desc=made.sized.size_text) as bar,
    ):
        times = interleaved(visits, how.rounds, device, lambda _: bar.update())
        return [_row(made, subject, times, device) for subject in subjects if subject.how != "free"]


def about(settings: ModelSettings, how: BenchSettings) -> dict[str, Any]:
    """Where and how it is timed."""
    device = torch.device(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    own = {"dtype": settings.dtype, "batch_size": settings.batch_size}
    return environment(device, own | {"rounds": how.rounds, "channels_last": how.channels_last})


def _many_graphs() -> AbstractContextManager[object]:
    """Lets PyTorch keep a graph for every method and size."""
    import torch._dynamo

    limits = {"recompile_limit": _GRAPHS, "accumulated_recompile_limit": _GRAPHS}
    made: AbstractContextManager[object] = torch._dynamo.config.patch(limits)
    return made


def _subjects(made: Untrained, methods: Sequence[Compression], compiled: bool) -> Iterator[_Subject]:
    model = made.model
    compressing = [method for method in methods if method]
    yield _Subject(UNCOMPRESSED, call=made.forward)
    for method in compressing:
        yield _applied(made, method, method)
        yield _applied(made, method, Compression(map(free, method)), "free")
    for name, ratio, cell, random in _peers(model, compressing):
        import tomesd

        own = twin(model)
        tomesd.apply_patch(own, ratio=ratio, max_downsample=1, sy=cell[0], sx=cell[1], use_rand=random)
        yield _Subject(name, call=partial(_positional, own, **made.given))
    for method in [Compression(), *compressing] if compiled else []:
        yield _applied(made, method, method, "compiled")


def _applied(made: Untrained, method: Compression, acting: Compression, how: str = "") -> _Subject:
    own = twin(made.model)
    handle = apply(own, acting) if acting else None
    if handle is not None:
        handle.session.told = None  # the bound is among the results
    called: Any = torch.compile(own) if how == "compiled" else own
    return _Subject(method.text or UNCOMPRESSED, how, partial(made.forward, called), handle)


def twin(model: nn.Module) -> nn.Module:
    """A copy that shares the weights."""
    shared = {id(tensor): tensor for tensor in itertools.chain(model.parameters(), model.buffers())}
    return copy.deepcopy(model, shared)


def _peers(model: nn.Module, methods: Sequence[Compression]) -> list[tuple[str, float, tuple[int, ...], bool]]:
    """What tomesd does of these: name, ratio, cell, and whether destinations are drawn."""
    if not isinstance(model, UNet2DConditionModel) or importlib.util.find_spec(PEER) is None:
        return []
    found = {}
    for method in methods:
        own = method[0]
        alike = isinstance(own, ToMe) and replace(own, ratio=0.5, destinations="first", cell=(2, 2)) == ToMe()
        if len(method) == 1 and alike and isinstance(own, ToMe) and isinstance(own.ratio, float):
            spec = f"{PEER}:ratio={own.ratio:g}"
            found[spec] = (spec, own.ratio, own.cell, own.destinations == "random")
    return [*found.values()]


@torch.no_grad()
def _positional(model: nn.Module, sample: Tensor, **given: Any) -> Any:
    """A forward of a model that tomesd patched: it reads the size of the first positional argument."""
    return model(sample, **given)


def free(method: AnyMethod) -> AnyMethod:
    """A method that leaves as many tokens as another, but any, at no cost."""
    kind = type(method)
    kept: dict[Any, Any] = {}

    def assign(self: Any, x: Tensor, context: Context) -> Assignment:
        key = (x.shape[:2], context.grid)
        if key not in kept:
            groups = kind.assign(self, x, context).groups  # type: ignore[attr-defined]
            index = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)
            kept[key] = Assignment(index % groups, index[:, :groups].contiguous())
        found: Assignment = kept[key]
        return found

    def pool(self: Any, x: Tensor, context: Context) -> Tensor:
        key = (x.shape[:2], context.grid)
        if key not in kept:
            kept[key] = kind.pool(self, x, context).shape[1]  # type: ignore[attr-defined]
        return x[:, : kept[key]]

    merges = isinstance(method, TokenMerging)
    changes = {"operator": "prune"} if merges else {}
    own = {field.name: getattr(method, field.name) for field in fields(method)} | changes
    made: Any = type(kind.__name__, (kind,), {"assign": assign} if merges else {"pool": pool})
    result: AnyMethod = made(**own)
    return result


def _row(
    made: Untrained, subject: _Subject, times: Mapping[tuple[str, str], Sequence[float]], device: torch.device
) -> Row:
    own, plain = times[subject.method, subject.how], times[UNCOMPRESSED, ""]
    costless = times.get((subject.method, "free")) if not subject.how else None
    parts, peak = profiled(subject.call, device)
    return Row(
        made.sized.size_text,
        max(made.sized.bounds.levels),
        subject.method,
        subject.how == "compiled",
        Interval.of(own),
        Interval.of(_quotients(plain, own)),
        _bound(made, subject),
        None if costless is None else Interval.of(_quotients(plain, costless)),
        None if costless is None else Interval.of(_quotients(costless, own)),
        peak,
        parts,
    )


def _quotients(before: Sequence[float], after: Sequence[float]) -> list[float]:
    return [one / other for one, other in zip(before, after, strict=True)]


def _bound(made: Untrained, subject: _Subject) -> float | None:
    """FLOPs without compression by those with it, without what matching takes; 1 for no compression."""
    if subject.method == UNCOMPRESSED:
        return 1.0
    if subject.handle is None or subject.how == "compiled":
        return None
    rows = subject.handle.summary()
    saved = sum(row.flops[0] - row.flops[1] + row.matching for row in rows)
    whole = made.sized.bounds.flops
    return whole / (whole - saved)


def profiled(call: Callable[[], Any], device: torch.device) -> tuple[dict[str, float], int]:
    """Milliseconds of a call's parts, and the bytes that it allocated at most beyond what was there."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if device.type == "cuda" else [])]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Kineto, on what else it could show
        with profile(activities=activities, profile_memory=True, acc_events=True) as found:
            call()
            synchronise(device)
    parts: dict[str, float] = {}
    for event in found.events():
        name = _part(event)
        within = _nearest_part(event)
        if name is None or name == within:
            continue
        milliseconds = (event.device_time_total if device.type == "cuda" else event.cpu_time_total) / 1000
        parts[name] = parts.get(name, 0.0) + milliseconds
        if within is not None:
            parts[within] = parts.get(within, 0.0) - milliseconds
    return parts, _peak(found, device)


def _part(event: Any) -> str | None:
    if event.name == _ATTENTION:
        return ATTENTION
    return event.name.removeprefix(PREFIX) if event.name.startswith(PREFIX) else None


def _nearest_part(event: Any) -> str | None:
    """The part inside of which an event is."""
    parent = event.cpu_parent
    while parent is not None and _part(parent) is None:
        parent = parent.cpu_parent
    return None if parent is None else _part(parent)


def _peak(found: Any, device: torch.device) -> int:
    """The most bytes in use at once: the allocator tells of each that it takes or gives back."""
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    own = [event for event in events if event.device_type().name == device.type.upper()]
    sizes = (event.nbytes() for event in sorted(own, key=lambda one: one.start_ns()))
    return max(itertools.accumulate(sizes, initial=0))
