"""What a candidate in one layer changes of the prediction, estimated for all candidates and layers at once.

To first order the prediction changes by J·Δ, where Δ is what the candidate changes in the output of its own block at
the uncompressed input, and J the derivative of the prediction by that output. For random vectors v of ±1 the mean of
(v·J·Δ)² is the squared length of J·Δ, and one backward pass gives v·J for all layers: Hutchinson's estimate (1990), of
J·Δ. The same vectors under the true class and another estimate the change of the difference between the two.

Each batch takes, under each class, a forward and `VECTORS` backward passes, and for every candidate a forward that
gives Δ of all layers: every block gets the uncompressed input, whatever the blocks before it made. Measured one by one
it is a forward for every candidate and layer. Not in a paper.

Memory: what a backward pass through the model needs, and `VECTORS` gradients of every block's output, in the model's
dtype: as many rows at once as keep these under 1 GiB, and at least one. For each row of an SDXL-sized U-Net in half
precision at 1,024 px that is 0.8 GiB. No weight gets a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from bigain.backbones import compressed
from bigain.backbones.families import layout
from bigain.methods import Method
from bigain.operators.random import seeded_generator
from bigain.run.probe import Probe

VECTORS = 4
_KEPT = 2**30  # bytes of gradients
Placed = Sequence[tuple[int, Method]]  # layers, each with a candidate in it alone


def estimate(
    probe: Probe, placed: Placed, counted: Callable[[int, int], object] = lambda done, of: None
) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Per candidate and layer the mean squared changes of the prediction, and of its difference between two classes.

    Each at every timestep of the probe, the mean over the images, as `Probe.changes` measures them. The vectors depend
    on the probe's seed, the image and the timestep alone.

    ValueError for a model with gradient checkpointing, which runs blocks twice.

    Args:
        placed: layers, each with a candidate in it alone.
        counted: called with the rows done and their number after each batch.
    """
    model = probe.denoiser.model
    if getattr(model, "is_gradient_checkpointing", False):
        raise ValueError(
            f"gradient checkpointing must be off in this {type(model).__name__} for estimates: call "
            f"disable_gradient_checkpointing(), or measure one by one (--exact)"
        )
    rows = len(probe.items) * len(probe.classifier.timesteps)
    squares = torch.empty(2, len(placed), rows, dtype=torch.float64)
    done = 0
    for batch in probe.batches(min(probe.classifier.batch_size, _rows_at_once(probe))):
        true, other = (_products(probe, batch, placed, under_other) for under_other in (False, True))
        squares[0][:, batch], squares[1][:, batch] = true.square().mean(1), (true - other).square().mean(1)
        done += len(batch)
        counted(done, rows)
    elements = float(torch.tensor(probe.denoiser.sample_shape).prod())
    change, contrast = (squares / elements).view(2, len(placed), len(probe.items), -1).mean(2).tolist()
    return [(tuple(one), tuple(two)) for one, two in zip(change, contrast, strict=True)]


def _products(probe: Probe, rows: Tensor, placed: Placed, other: bool) -> Tensor:
    """v·J·Δ of each candidate in its layer, for each vector and row: (candidates, VECTORS, rows) float64."""
    with _taped(probe.denoiser.model) as outputs:
        prediction = probe.predicted(rows, other)
    gradients = _gradients(probe, rows, outputs, prediction)
    held = [_mapped(output, lambda part: part.detach()) for output in outputs]
    outputs.clear()
    del prediction  # and with it what the backward passes needed
    result = torch.empty(len(placed), VECTORS, len(rows), dtype=torch.float64)
    numbers = {pair: number for number, pair in enumerate(placed)}
    for method, layers in _by_candidate(placed).items():

        def compare(layer: int, output: Any, method: Method = method, layers: list[int] = layers) -> None:
            if layer in layers:
                number = numbers[layer, replace(method, layers=(layer,))]
                result[number] = _contracted(gradients[layer], _parts(output), _parts(held[layer]))

        model, acting = probe.denoiser.model, replace(method, layers=tuple(layers))
        with compressed(model, acting), _holding(model, held, compare):
            probe.predicted(rows, other)
    return result


def _gradients(probe: Probe, rows: Tensor, outputs: list[Any], prediction: Tensor) -> list[list[list[Tensor | None]]]:
    """v·J by every layer's output: per layer, vector and part of the output."""
    inputs = [part for output in outputs for part in _parts(output)]
    places = [layer for layer, output in enumerate(outputs) for _ in _parts(output)]
    vectors = torch.stack([_vectors(probe, int(row)) for row in rows], 1).to(prediction)  # (V, B, C, h, w)
    result: list[list[list[Tensor | None]]] = [[[] for _ in vectors] for _ in outputs]
    for number, vector in enumerate(vectors):
        last = number == len(vectors) - 1
        found = torch.autograd.grad(prediction, inputs, vector, retain_graph=not last, allow_unused=True)
        for layer, gradient in zip(places, found, strict=True):
            result[layer][number].append(gradient)
    return result


def _vectors(probe: Probe, row: int) -> Tensor:
    """Of ±1, (VECTORS, C, h, w), for a row: its image and timestep."""
    image, position = divmod(row, len(probe.classifier.timesteps))
    t = int(probe.classifier.timesteps[position])
    generator = seeded_generator("allocate", probe.classifier.seed, probe.items[image].id, t)
    return torch.randint(0, 2, (VECTORS, *probe.denoiser.sample_shape), generator=generator) * 2.0 - 1


def _contracted(gradients: list[list[Tensor | None]], after: list[Tensor], before: list[Tensor]) -> Tensor:
    """The products of gradients and the change of an output: (VECTORS, rows) float64 on the CPU."""
    deltas = [(own.float() - plain.float()).flatten(1) for own, plain in zip(after, before, strict=True)]
    totals = []
    for of_vector in gradients:
        pairs = zip(of_vector, deltas, strict=True)
        parts = [(gradient.float().flatten(1) * delta).sum(1) for gradient, delta in pairs if gradient is not None]
        totals.append(torch.stack(parts).sum(0))
    return torch.stack(totals).double().cpu()


def _by_candidate(placed: Placed) -> dict[Method, list[int]]:
    """The layers of each candidate."""
    layers: dict[Method, list[int]] = {}
    for layer, method in placed:
        layers.setdefault(replace(method, layers=None), []).append(layer)
    return layers


def _rows_at_once(probe: Probe) -> int:
    """How many rows' gradients can be kept."""
    size = 0

    def see(_: int, output: Any) -> None:
        nonlocal size
        size += sum(part.numel() * part.element_size() for part in _parts(output))

    with _watching(probe.denoiser.model, see):
        probe.predicted(torch.tensor([0]))
    return max(1, _KEPT // (VECTORS * size))


@contextmanager
def _taped(model: Any) -> Iterator[list[Any]]:
    """Records the next forward, for backward passes from the prediction to the outputs of the blocks alone: these."""
    outputs: list[Any] = []

    def keep(_: int, output: Any) -> Any:
        for part in _parts(output):
            part.requires_grad_()
        outputs.append(output)
        return _mapped(output, lambda part: part.view_as(part))  # what goes on may be changed in place

    def begin(*_: object) -> None:
        torch.set_grad_enabled(True)  # until the end of `Denoiser.predict`, which runs without and puts that back

    weights = [weight for weight in model.parameters() if weight.requires_grad]
    with ExitStack() as hooks:
        for weight in weights:
            weight.requires_grad_(False)
            hooks.callback(weight.requires_grad_)
        hooks.enter_context(_watching(model, keep))
        hooks.callback(model.register_forward_pre_hook(begin).remove)
        yield outputs


@contextmanager
def _holding(model: Any, held: list[Any], compare: Callable[[int, Any], None]) -> Iterator[None]:
    """Shows what each block gives, and lets go on what it ``held`` instead."""

    def exchange(layer: int, output: Any) -> Any:
        compare(layer, output)
        return _mapped(held[layer], Tensor.clone)  # which a model may change in place

    with _watching(model, exchange):
        yield


@contextmanager
def _watching(model: Any, see: Callable[[int, Any], Any]) -> Iterator[None]:
    """Calls ``see`` with each block's number and output, and takes what it returns, if anything, for the output."""
    with ExitStack() as hooks:
        for number, layer in enumerate(layout(model).layers):
            hook = layer.block.register_forward_hook(lambda _, __, output, n=number: see(n, output))
            hooks.callback(hook.remove)
        yield


def _parts(output: Any) -> list[Tensor]:
    """The tensors of a block's output, which is one or a tuple of them."""
    return [output] if isinstance(output, Tensor) else [part for part in output if isinstance(part, Tensor)]


def _mapped(output: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A block's output with every tensor changed."""
    if isinstance(output, Tensor):
        return change(output)
    return tuple(change(part) if isinstance(part, Tensor) else part for part in output)
