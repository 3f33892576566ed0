"""``apply``, ``remove`` and ``compressed``: whether methods fit a model and each other, and their hooks on it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from diffusers.hooks import HookRegistry
from torch import Tensor, nn

from bigain.backbones.around import Around
from bigain.backbones.attachment import ENTRY, GRID, NAME, attach, detach
from bigain.backbones.families import Layer, Layout, find_models, layout
from bigain.backbones.hooks import (
    AttentionHook,
    BlockHook,
    EnteringHook,
    MLPHook,
    RootHook,
    check_not_fused,
    see_entry,
    see_grid,
)
from bigain.backbones.presets import Applicable, resolve
from bigain.backbones.seam import Seam
from bigain.backbones.seam_root import check_seam, check_together, seam
from bigain.backbones.state import Seen, Session
from bigain.backbones.summary import Summary, cost, forward_cost, shown
from bigain.methods import Compression, Method, TokenDownsampling, TokenMerging
from bigain.operators.grid import Grid

_LITTLE = 1.1  # times as fast: a smaller bound is told


class Handle:
    """What ``apply`` returns: the model, what was applied, its summary and its removal.

    In a with-block it removes what was applied at the end.
    """

    def __init__(
        self, models: Sequence[nn.Module], session: Session, blocks: Sequence[Sequence[BlockHook | Seam | Around]]
    ) -> None:
        self.models = models
        self.session = session
        self._blocks = blocks

    @property
    def model(self) -> nn.Module:
        """What was compressed; of several the first."""
        return self.models[0]

    @property
    def methods(self) -> Compression:
        """What was applied."""
        return self.session.methods

    def summary(self) -> Summary:
        """Tokens and FLOPs per layer in the latest forward, a RuntimeError if there was none; print it for a table.

        Of two models that take turns, those that ran.
        """
        ran = [hooks for hooks in self._blocks if all(hook.grid is not None for hook in hooks)]
        if not ran:
            raise RuntimeError("the summary shows the latest forward, and none ran yet: call the model first")
        return self._summary()

    def _summary(self) -> Summary:
        """Of the layers that a forward has reached."""
        ran = [
            (model, [cost(hook) for hook in shown(hooks) if hook.grid is not None])
            for model, hooks in zip(self.models, self._blocks, strict=True)
        ]
        rows = [row for _, own in ran for row in own]
        jointly = any(isinstance(hook, (Seam, Around)) for hooks in self._blocks for hook in hooks)
        if not jointly:
            return Summary.of(rows)
        model, own = next(each for each in ran if each[1])
        return Summary.of(rows, forward_cost(model, self.session.size, own))

    def tell(self) -> None:
        """Warns where a forward like the latest can hardly become faster."""
        whole = self._summary().forward
        if whole is not None and whole.bound < _LITTLE:
            kind = type(self.model).__name__
            warnings.warn(
                f"at {whole.tokens[0]:,} tokens attention is {whole.attention:.0%} of the FLOPs of this {kind}: "
                f"{self.methods.text} can make a forward at most {whole.bound:.2f}x as fast",
                stacklevel=2,
            )

    def remove(self) -> None:
        """Takes the hooks, if they are still on, off the model; its outputs are what they were, bit for bit."""
        for model in self.models:
            if session_of(model) is self.session:
                detach(model)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"Handle({type(self.model).__name__}, {self.methods.text!r})"


def apply(
    pipe_or_model: object, method: Applicable, *, replace: bool = False, grid: tuple[int, ...] | None = None
) -> Handle:
    """Compresses the tokens of a diffusers pipeline or model from its next forward on.

    The first forward of a model that attends jointly or over video in which all methods act comes with a UserWarning
    where it is too small for that to make it 1.1 times as fast; not where the model is compiled as a whole, nor where
    methods take turns, as what they win depends on t.

    Args:
        pipe_or_model: a pipeline with a `unet` or `transformer` (and the `transformer_2` of Wan 2.2), such a model (see
            `bigain.backbones.SUPPORTED`), or what `bigain.diffusion.open_model` returns.
        method: a config, a text such as "lgtm-0.7", a preset such as "glyphs-dit/balanced", the path of a preset file
            (.json), or several configs that go together: in each layer at most one merging and one downsampling method.
        replace: takes what is applied already off first.
        grid: height and width in tokens, after the number of frames of a video, for models whose compiled forward does
            not show them (FLUX and its kin, which are told by img_ids).

    Raises:
        TypeError: if the model or an attention is not supported, or ``method`` is none of these; lists what is.
        ValueError: if something is applied already and ``replace`` is False, the methods do not go together or with the
            model, or a preset was made for another architecture (for other weights or another dtype it is a
            UserWarning). What is applied then stays.

    Example:
        >>> handle = bigain.apply(pipe, bigain.LaplacianMerging(ratio=0.7))
        >>> pipe("a photo of a cat")
        >>> print(handle.summary())
        >>> handle.remove()
    """
    models = find_models(pipe_or_model)
    applied = [(model, session) for model in models if (session := session_of(model)) is not None]
    for model, before in [] if replace else applied:
        raise ValueError(
            f"replace must be True where a model is compressed already, as this {type(model).__name__} is by "
            f"{before.methods.text}, not False: or call bigain.remove() first"
        )
    methods, layouts = resolve(method, models[0]), [layout(model) for model in models]
    for where in layouts:
        if where.family is None and grid is not None:
            kind = type(where.model).__name__
            raise ValueError(f"grid must be left out for a {kind}, whose forwards show it, not {grid}")
        _check_methods(methods, where)
    for model, _ in applied:
        detach(model)
    session = Session(methods, shares=layouts[0].enters_unconditioned)
    if not methods:
        return Handle(models, session, ((),))
    blocks: list[Sequence[BlockHook | Seam | Around]] = []
    try:
        for where in layouts:
            blocks.append(_register(where, session) if where.family is None else seam(where, session, grid))
    except BaseException:
        for model in models:
            detach(model)
        raise
    handle = Handle(models, session, blocks)
    if layouts[0].family is not None and any(blocks):
        session.told = handle.tell
    return handle


def remove(pipe_or_model: object) -> None:
    """Takes every hook of this package off a pipeline's model, or off a model.

    A UserWarning where there was none: nothing was applied, or the pipeline holds another model since, in which case
    `Handle.remove` reaches the compressed one.
    """
    models = find_models(pipe_or_model)
    if not any([detach(model) for model in models]):
        warnings.warn(
            f"remove() must be given what apply() was given, not a {type(models[0]).__name__} on which nothing is "
            f"applied: if the pipeline's model was exchanged since, call remove() on the handle",
            stacklevel=2,
        )


@contextmanager
def compressed(pipe_or_model: object, method: Applicable) -> Iterator[Handle]:
    """``apply`` for the length of a with-block, without its warning.

    Example:
        >>> with bigain.compressed(pipe, "iekvd-2"):
        ...     image = pipe("a photo of a cat").images[0]
    """
    with apply(pipe_or_model, method) as handle:
        handle.session.told = None
        yield handle


@contextmanager
def recorded(pipe_or_model: object, method: Applicable, note: Callable[[Seen], object]) -> Iterator[Handle]:
    """``compressed``, which calls ``note`` in every forward with each layer in which a method acts, in order."""
    with compressed(pipe_or_model, method) as handle:
        handle.session.observer = note
        yield handle


@contextmanager
def row_keys(
    pipe_or_model: object,
    image: Tensor,
    draw: Tensor | None = None,
    alike: Tensor | None = None,
    timesteps: Iterable[float] | None = None,
) -> Iterator[None]:
    """Tells the forwards inside which image each row of the batch shows, for methods that draw at random.

    Without it all rows count as one image. Nothing happens if no method is applied. A ValueError unless the keys are
    one-dimensional and as many as each other and the batch.

    Args:
        image: (B,) int64, equal for rows of the same image; a forward of 2B rows, as guidance stacks them, repeats it.
        draw: (B,) int64, on which what is redrawn in every forward depends too, such as a sampler's step.
        alike: (B,) int64, equal for rows of the same noised sample and timestep: what is decided before class or prompt
            reach the tokens is decided once for those.
        timesteps: of the forwards inside, in training timesteps, where they are at hand: for methods that act in a
            range of t, which otherwise wait for the device to tell them, and could not in a compiled graph. A
            ValueError where they lie on both sides of a bound.
    """
    for name, keys in (("image", image), ("draw", draw), ("alike", alike)):
        if keys is not None and (keys.ndim != 1 or len(keys) != len(image)):
            raise ValueError(f"{name} must hold one key per row, not have the shape {tuple(keys.shape)}")
    sessions = _sessions(pipe_or_model)
    before = [(one.image_keys, one.draw_keys, one.alike, one.resting) for one in sessions]
    told = None if timesteps is None else [*timesteps] if any(one.methods.follows_t for one in sessions) else []
    resting = [None if told is None else one.methods.resting(told) for one in sessions]
    for session, own in zip(sessions, resting, strict=True):
        session.image_keys, session.draw_keys, session.alike, session.resting = image, draw, alike, own
    try:
        yield
    finally:
        for session, old in zip(sessions, before, strict=True):
            session.image_keys, session.draw_keys, session.alike, session.resting = old


def applied_to(pipe_or_model: object) -> Compression:
    """The methods that are applied to a pipeline's models, or to a model; none where it is not compressed."""
    return Compression([method for session in _sessions(pipe_or_model) for method in session.methods])


def _sessions(pipe_or_model: object) -> list[Session]:
    """Of all models that denoise, each once: two that were compressed together share one."""
    found = [session for model in find_models(pipe_or_model) if (session := session_of(model)) is not None]
    return [session for place, session in enumerate(found) if all(session is not one for one in found[:place])]


def session_of(model: nn.Module) -> Session | None:
    """The session of a compressed model, or None."""
    registry: HookRegistry | None = getattr(model, "_diffusers_hook", None)
    hook = registry.get_hook(NAME) if registry is not None else None
    return hook.session if isinstance(hook, RootHook) else None


def _register(where: Layout, session: Session) -> list[BlockHook]:
    blocks = []
    for number, layer in enumerate(where.layers):
        block, name = layer.block, layer.name
        if not any(method.includes(layer.level, number) for method in session.methods):
            continue
        hook = BlockHook(session, layer, number)
        attach(block, hook, NAME)
        for part in ("attn1", "attn2"):
            if getattr(block, part) is not None:
                attach(getattr(block, part), AttentionHook(hook, f"{name}.{part}"), NAME)
        attach(block.ff, MLPHook(hook), NAME)
        blocks.append(hook)
    # What is registered last runs first: the root, the grid, the entry of a level, then its block.
    matched = {hook.level for hook in blocks for _, merging in hook.mergings if merging.features == "first"}
    for level in sorted(matched):
        first = next(layer.block for layer in where.layers if layer.level == level)
        attach(first, EnteringHook(session, first, partial(see_entry, level)), ENTRY)
    for module, patch in where.grids:
        attach(module, EnteringHook(session, module, partial(see_grid, patch)), GRID)
    attach(where.model, RootHook(session, where.model, where.sample), NAME)
    HookRegistry.check_if_exists_or_initialize(where.model).invalidate_child_registries_cache()
    return blocks


def _check_methods(methods: tuple[Method, ...], where: Layout) -> None:
    """Refuses methods that do not fit a model or each other."""
    for method in methods:
        _check_method(method, where)
    for number, layer in enumerate(where.layers):
        acting = [method for method in methods if method.includes(layer.level, number)]
        if acting and where.family is None:
            _check_attention(layer)
            for at_once in _acting_at_once(acting):
                _check_layer(layer, at_once)
        elif acting and where.family is not None:
            check_together(layer, acting)
            for at_once in _acting_at_once(acting):
                check_seam(layer, at_once, where.family)


def _check_method(method: Method, where: Layout) -> None:
    """Refuses what a model does not have, or does not do."""
    _check_places(method, where)
    if method.over_time and not (where.family is not None and where.family.video):
        raise ValueError(f"{method} must not act over time in a {type(where.model).__name__}, which has no frames")
    alone = isinstance(method, TokenMerging) and "self_attention" not in method.locations
    if where.family is None and isinstance(method, TokenMerging) and alone:
        raise ValueError(
            f"locations of {method} must hold 'self_attention' in a {type(where.model).__name__}, where it always "
            f"merges, not only {method.locations}"
        )
    if where.family is None and getattr(method, "pool_at", None) == "attention":
        raise ValueError(
            f"pool_at must be 'projection' in a {type(where.model).__name__}, whose keys and values are always "
            f"projected from pooled tokens, not 'attention'"
        )
    if where.grid is not None:
        _check_fits(method, where.grid)


def _acting_at_once(methods: Sequence[Method]) -> list[list[Method]]:
    """Those of a layer's methods that act together, at some t each."""
    # What acts changes just above a range's lower end, and above its upper one; 0 is in the lowest.
    ends = {end for method in methods for end in method.timesteps or ()}
    groups = [[method for method in methods if method.acts_at(t)] for t in (0, *(end + 0.5 for end in sorted(ends)))]
    return [group for group in groups if group]


def _check_fits(method: Method, grid: Grid) -> None:
    """Refuses what does not fit a grid, and a ratio of less than a token of it, unless schedule or threshold decide."""
    method.check(grid)
    decided = method.is_identity or method.is_scheduled
    if isinstance(method, TokenMerging) and not decided and method.most_merged(grid) == 0:
        raise ValueError(
            f"ratio must be at least 1/{grid.tokens} in {method}, one token of a {grid.height}x{grid.width} "
            f"grid, not {method.ratio}: nothing would be compressed by it"
        )


def _check_places(method: Method, where: Layout) -> None:
    """Refuses levels and layers that a model does not have, and cross-attention where it has none."""
    kind = type(where.model).__name__
    levels = sorted(level for level in method.levels if level > where.levels)
    if levels:
        raise ValueError(
            f"levels must lie in 1 to {where.levels}, the finest grid with attention to the coarsest of this {kind}, "
            f"not {levels}"
        )
    layers = sorted(layer for layer in method.layers or () if layer >= len(where.layers))
    if layers:
        raise ValueError(
            f"layers must lie in 0 to {len(where.layers) - 1}, the transformer blocks of this {kind}, not {layers}"
        )
    blocks = [layer.block for number, layer in enumerate(where.layers) if method.includes(layer.level, number)]
    crossed = isinstance(method, TokenMerging) and "cross_attention" in method.locations
    if crossed and all(getattr(block, "attn2", None) is None for block in blocks):
        raise ValueError(
            f"locations of {method} must do without 'cross_attention', which this {kind} does not have in its layers"
        )


def _check_layer(layer: Layer, methods: list[Method]) -> None:
    """Refuses methods that do not go together in a layer, or not with its attention."""
    merging = [method for method in methods if isinstance(method, TokenMerging)]
    downsampling = [method for method in methods if isinstance(method, TokenDownsampling)]
    if len(merging) > 1 or len(downsampling) > 1:
        raise ValueError(
            f"methods must be at most one merging and one downsampling in a layer at a timestep, not "
            f"{Compression(methods).text} in {layer.name}"
        )
    if downsampling and any(method.size_aware for method in merging):
        raise ValueError(
            f"size_aware must be False where {downsampling[0]} replaces the merged keys that it weighs, not True in "
            f"{layer.name}"
        )
    full = any(method.queries == "full" for method in merging)
    if full and downsampling:
        raise ValueError(
            f"queries must be 'merged' where {downsampling[0]} makes the keys and values, not 'full' in {layer.name}"
        )
    if full or downsampling:
        check_not_fused(layer.block.attn1, f"{layer.name}.attn1")


def _check_attention(layer: Layer) -> None:
    """Refuses a layer without self-attention, or where that would normalise merged or pooled tokens apart."""
    if layer.block.only_cross_attention:
        raise ValueError(
            f"{layer.name} must have self-attention to be compressed, not only_cross_attention: leave it out, by "
            f"levels or layers"
        )
    for part in ("group_norm", "spatial_norm", "norm_cross"):
        if getattr(layer.block.attn1, part, None) is not None:
            raise ValueError(
                f"{layer.name}.attn1 must not normalise tokens inside the attention to be compressed, but has a {part}"
            )
