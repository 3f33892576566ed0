"""``apply``, ``remove`` and ``compressed``: attach a method's hooks to a model and take them away again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from diffusers.hooks import HookRegistry, ModelHook
from diffusers.models.attention import BasicTransformerBlock
from torch import Tensor, nn

from bigain.backbones.families import Layout, find_model, layout
from bigain.backbones.hooks import (
    NAME,
    AttentionHook,
    BlockHook,
    GridHook,
    MLPHook,
    RootHook,
    check_attention,
    check_not_fused,
)
from bigain.backbones.size_channel import SizeChannel, check_channel
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


def apply(pipe_or_model: object, method: Method | Iterable[Method] | str) -> Handle:
    """Compresses the tokens of a diffusers pipeline or model from its next forward on.

    Args:
        pipe_or_model: a pipeline with a `unet` or `transformer`, or such a model; see `bigain.backbones.SUPPORTED`.
        method: a config, a preset or spec such as "lgtm-0.7", or one merging and one downsampling method together.

    Raises:
        TypeError: if the model is not supported; lists what is.
        ValueError: if something is applied already, the methods do not fit together, or a level does not exist.

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
    plan = _plan(methods)
    where = layout(model)
    missing = {level for level in plan.levels() if level > where.levels}
    if missing:
        raise ValueError(
            f"levels {sorted(missing)} do not exist: this {type(model).__name__} has attention on "
            f"{where.levels} level(s), counted from the finest"
        )
    _check_layers(where, plan)
    if not methods:
        return Handle(model, methods, [])
    return Handle(model, methods, _register(where, Session(plan)))


def remove(pipe_or_model: object) -> None:
    """Takes every hook of this package away; nothing happens where there is none."""
    model = find_model(pipe_or_model)
    HookRegistry.check_if_exists_or_initialize(model).remove_hook(f"{NAME}.grid", recurse=True)
    HookRegistry.check_if_exists_or_initialize(model).remove_hook(NAME, recurse=True)


@contextmanager
def compressed(pipe_or_model: object, method: Method | Iterable[Method] | str) -> Iterator[Handle]:
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
        image: (B,) int64, equal for rows of the same image; repeated where guidance stacks the batch.
        draw: (B,) int64, different for every (image, class, timestep): what is redrawn per forward depends on it.

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


def _as_methods(method: Method | Iterable[Method] | str) -> tuple[Method, ...]:
    if isinstance(method, str):
        return parse(method)
    return (method,) if isinstance(method, TokenMerging | TokenDownsampling) else tuple(method)


def _plan(methods: tuple[Method, ...]) -> Plan:
    merging = [method for method in methods if isinstance(method, TokenMerging)]
    downsampling = [method for method in methods if isinstance(method, TokenDownsampling)]
    if len(merging) + len(downsampling) < len(methods):
        wrong = next(method for method in methods if not isinstance(method, TokenMerging | TokenDownsampling))
        raise TypeError(f"{wrong!r} is no compression method: give a config such as bigain.LaplacianMerging(ratio=0.7)")
    if len(merging) > 1 or len(downsampling) > 1:
        raise ValueError(f"at most one merging and one downsampling method go together, not {spec(methods)}")
    if merging and downsampling and merging[0].queries == "full":
        raise ValueError("queries='full' takes K and V from merged tokens, so it cannot go with a downsampling method")
    return Plan(merging[0] if merging else None, downsampling[0] if downsampling else None)


def _check_layers(where: Layout, plan: Plan) -> None:
    takes_sources = plan.downsampling is not None or (plan.merging is not None and plan.merging.queries == "full")
    by_channel = plan.merging if plan.merging is not None and plan.merging.size_bias == "channel" else None
    for layer in where.layers:
        if layer.level in plan.levels():
            check_attention(layer.block.attn1, f"{layer.name}.attn1")
            if takes_sources:
                check_not_fused(layer.block.attn1, f"{layer.name}.attn1")
            if by_channel and layer.level in by_channel.levels:
                check_channel(layer.block.attn1, f"{layer.name}.attn1")


def _register(where: Layout, session: Session) -> list[tuple[str, BlockHook, BasicTransformerBlock]]:
    blocks = []
    for number, layer in enumerate(where.layers):
        block, name = layer.block, layer.name
        if layer.level not in session.plan.levels():
            continue
        hook = BlockHook(session, block, number, layer.level)
        _attach(block, hook, NAME)
        channel = None
        if hook.merging is not None and hook.merging.size_bias == "channel":
            channel = SizeChannel(session, block.attn1, f"{name}.attn1")
            for module, widening in channel.hooks():
                _attach(module, widening, NAME)
        _attach(block.attn1, AttentionHook(hook, f"{name}.attn1", channel), NAME)
        if block.attn2 is not None:
            _attach(block.attn2, AttentionHook(hook, f"{name}.attn2"), NAME)
        _attach(block.ff, MLPHook(hook, f"{name}.ff"), NAME)
        blocks.append((name, hook, block))
    for module, patch in where.grids:
        _attach(module, GridHook(session, module, patch), f"{NAME}.grid")
    # Registered last, so that it runs first and the grid finds a state.
    _attach(where.model, RootHook(session, where.model, where.sample), NAME)
    HookRegistry.check_if_exists_or_initialize(where.model).invalidate_child_registries_cache()
    return blocks


def _attach(module: nn.Module, hook: ModelHook, name: str) -> None:
    HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, name)
