"""``apply``, ``remove`` and ``compressed``: attach a method's hooks to a model and take them away again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from diffusers.hooks import HookRegistry
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from bigain.backbones.attachment import ENTRY, GRID, NAME, attach, detach
from bigain.backbones.families import Layer, Layout, find_model, layout
from bigain.backbones.hooks import (
    AttentionHook,
    BlockHook,
    EntryHook,
    GridHook,
    MLPHook,
    RootHook,
    check_attention,
    check_not_fused,
)
from bigain.backbones.state import Plan, Session
from bigain.backbones.summary import Summary, summarise
from bigain.methods import Method, TokenDownsampling, TokenMerging, parse, spec


class Handle:
    """What ``apply`` returns: the model, what was applied, its summary and its removal."""

    def __init__(
        self, model: nn.Module, methods: tuple[Method, ...], blocks: list[tuple[str, BlockHook, BasicTransformerBlock]]
    ) -> None:
        self.model = model
        self.methods = methods
        self._blocks = blocks

    def summary(self) -> Summary:
        """Tokens and FLOPs per layer, before and after, in the latest forward; print it for a table.

        Raises:
            RuntimeError: if no forward ran since ``apply``.
        """
        return summarise(self._blocks)

    def remove(self) -> None:
        """Takes the hooks away; the model's outputs are what they were, bit for bit."""
        remove(self.model)

    def __repr__(self) -> str:
        return f"Handle({type(self.model).__name__}, {spec(self.methods)!r})"


def apply(pipe_or_model: object, method: Method | Iterable[Method] | str | Path) -> Handle:
    """Compresses the tokens of a diffusers pipeline or model from its next forward on.

    Args:
        pipe_or_model: a pipeline with a `unet` or `transformer`, or such a model; see `bigain.backbones.SUPPORTED`.
        method: a config, a preset or spec such as "lgtm-0.7", the path of a preset file (.json), or several configs
            that go together: in each layer at most one merging and one downsampling method.

    Raises:
        TypeError: if the model is not supported; lists what is.
        ValueError: if something is applied already, the methods do not go together, or a level or layer does not
            exist.

    Example:
        >>> handle = bigain.apply(pipe, bigain.LaplacianMerging(ratio=0.7))
        >>> pipe("a photo of a cat")
        >>> print(handle.summary())
        >>> handle.remove()
    """
    model = find_model(pipe_or_model)
    if session_of(model) is not None:
        raise ValueError(f"this {type(model).__name__} is compressed already: call bigain.remove() first")
    methods = _as_methods(method)
    where = layout(model)
    plan = _plan(methods, where)
    if not methods:
        return Handle(model, methods, [])
    return Handle(model, methods, _register(where, Session(plan)))


def remove(pipe_or_model: object) -> None:
    """Takes every hook of this package away; nothing happens where there is none."""
    detach(find_model(pipe_or_model))


@contextmanager
def compressed(pipe_or_model: object, method: Method | Iterable[Method] | str | Path) -> Iterator[Handle]:
    """``apply`` for the length of a with-block.

    Example:
        >>> with bigain.compressed(pipe, "iekvd-2"):
        ...     image = pipe("a photo of a cat").images[0]
    """
    handle = apply(pipe_or_model, method)
    try:
        yield handle
    finally:
        handle.remove()


@contextmanager
def row_keys(pipe_or_model: object, image: Tensor, draw: Tensor | None = None) -> Iterator[None]:
    """Tells the forwards inside which image each row of the batch shows, for methods that draw at random.

    Without it all rows count as one image. Nothing happens if no method is applied.

    Args:
        image: (B,) int64, equal for rows of the same image; a forward of 2B rows, as guidance stacks them, repeats it.
        draw: (B,) int64, what is redrawn in every forward depends on it too: the classifier gives every image, class
            and timestep its own, the sampler every step.

    Raises:
        ValueError: if the keys are not one-dimensional, or differ in length from each other or the batch.
    """
    for name, keys in (("image", image), ("draw", draw)):
        if keys is not None and (keys.ndim != 1 or len(keys) != len(image)):
            raise ValueError(f"{name} must hold one key per row, not a tensor of shape {tuple(keys.shape)}")
    session = session_of(find_model(pipe_or_model))
    if session is None:
        yield
        return
    before = session.image_keys, session.draw_keys
    session.image_keys, session.draw_keys = image, draw
    try:
        yield
    finally:
        session.image_keys, session.draw_keys = before


def session_of(model: nn.Module) -> Session | None:
    """The session of a compressed model, or None."""
    registry: HookRegistry | None = getattr(model, "_diffusers_hook", None)
    hook = registry.get_hook(NAME) if registry is not None else None
    return hook.session if isinstance(hook, RootHook) else None


def _as_methods(method: Method | Iterable[Method] | str | Path) -> tuple[Method, ...]:
    if isinstance(method, str | Path):
        return parse(method)
    return (method,) if isinstance(method, Method) else tuple(method)


def _plan(methods: tuple[Method, ...], where: Layout) -> Plan:
    """The methods, once it is clear that they fit the model and each other."""
    plan = Plan(methods)
    kind = type(where.model).__name__
    for method in methods:
        if not isinstance(method, TokenMerging | TokenDownsampling):
            raise TypeError(
                f"{method!r} is no compression method: give a config such as bigain.LaplacianMerging(ratio=0.7)"
            )
        levels = sorted(level for level in method.levels if level > where.levels)
        if levels:
            raise ValueError(
                f"levels {levels} do not exist: this {kind} has attention on {where.levels} level(s), counted from "
                f"the finest"
            )
        layers = sorted(layer for layer in method.layers or () if layer >= len(where.layers))
        if layers:
            raise ValueError(
                f"layers {layers} do not exist: this {kind} has {len(where.layers)} transformer blocks, counted from 0"
            )
        blocks = [layer.block for number, layer in enumerate(where.layers) if method.includes(layer.level, number)]
        if not blocks:
            raise ValueError(f"no layer of {spec(method)} lies on its levels: nothing would be compressed")
        crossed = isinstance(method, TokenMerging) and "cross_attention" in method.locations
        if crossed and all(block.attn2 is None for block in blocks):
            raise ValueError(
                f"this {kind} has no cross-attention in the layers of {spec(method)}: leave 'cross_attention' out of "
                f"its locations"
            )
    for number, layer in enumerate(where.layers):
        _check_layer(layer, [method for method in methods if method.includes(layer.level, number)])
    return plan


def _check_layer(layer: Layer, methods: list[Method]) -> None:
    """Refuses methods that do not go together in a layer, or not with its attention."""
    merging = [method for method in methods if isinstance(method, TokenMerging)]
    downsampling = [method for method in methods if isinstance(method, TokenDownsampling)]
    if len(merging) > 1 or len(downsampling) > 1:
        raise ValueError(
            f"at most one merging and one downsampling method go together in a layer, not {spec(methods)} in "
            f"{layer.name}"
        )
    if methods and layer.block.only_cross_attention:
        raise ValueError(
            f"{layer.name} has no self-attention (only_cross_attention), so its tokens cannot be compressed: leave it "
            f"out, by levels or layers"
        )
    if downsampling and any(method.size_aware for method in merging):
        raise ValueError(
            f"size_aware weighs merged keys, but {spec(downsampling)} replaces these in {layer.name}: leave one of "
            f"them out there"
        )
    full = any(method.queries == "full" for method in merging)
    if full and downsampling:
        raise ValueError("queries='full' takes K and V from merged tokens, so it cannot go with a downsampling method")
    attention, name = layer.block.attn1, f"{layer.name}.attn1"
    if methods:
        check_attention(attention, name)
    if full or downsampling:
        check_not_fused(attention, name)


def _register(where: Layout, session: Session) -> list[tuple[str, BlockHook, BasicTransformerBlock]]:
    blocks = []
    for number, layer in enumerate(where.layers):
        block, name = layer.block, layer.name
        if not session.plan.includes(layer.level, number):
            continue
        hook = BlockHook(session, block, number, layer.level)
        attach(block, hook, NAME)
        attach(block.attn1, AttentionHook(hook, f"{name}.attn1"), NAME)
        if block.attn2 is not None:
            attach(block.attn2, AttentionHook(hook, f"{name}.attn2"), NAME)
        attach(block.ff, MLPHook(hook, f"{name}.ff"), NAME)
        blocks.append((name, hook, block))
    # What is registered last runs first: the root, the grid, the entry of a level, then its block.
    matched = {hook.level for _, hook, _ in blocks if hook.merging is not None and hook.merging.features == "first"}
    for level in sorted(matched):
        first = next(layer.block for layer in where.layers if layer.level == level)
        attach(first, EntryHook(session, first, level), ENTRY)
    for module, patch in where.grids:
        attach(module, GridHook(session, module, patch), GRID)
    attach(where.model, RootHook(session, where.model, where.sample), NAME)
    HookRegistry.check_if_exists_or_initialize(where.model).invalidate_child_registries_cache()
    return blocks
