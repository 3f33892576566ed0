"""Fewer keys and values in attentions whose queries stay whole, between rotary embedding and softmax."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.hooks import HookRegistry
from torch import Tensor, nn

from bigain.backbones.arguments import text_of
from bigain.backbones.attachment import NAME, attach
from bigain.backbones.families import Layout
from bigain.backbones.hooks import EnteringHook, NothingCompressedError, RootHook, without_autocast
from bigain.backbones.joint import Family, Grids, Site, grids_of_ids
from bigain.backbones.state import Forward, Seen, Session
from bigain.backbones.twin import forget, twin_of
from bigain.methods import Compression, Context, Method, TokenDownsampling, TokenMerging
from bigain.operators.assignment import group_sizes, merge
from bigain.operators.grid import Grid


@dataclass
class _Fewer:
    """What takes the place of the tokens of a grid, in one attention.

    Args:
        key, value: (B, M, H, D).
        sizes: (M,) or (B, M) float32, the tokens that each stands for; 0 for an empty one.
        kept: (M,) or (B, M) int64, the token of the grid whose column of a mask it takes.
    """

    key: Tensor
    value: Tensor
    sizes: Tensor
    kept: Tensor


class Seam:
    """Stands in one attention's processor, and compresses the keys and values of its image tokens."""

    def __init__(self, session: Session, family: Family, site: Site) -> None:
        self.session = session
        self.family = family
        self.name = site.name
        self.attention: Any = site.attention
        self.layer = site.layer
        self.merging, self.merging_number = session.acting(TokenMerging, 1, site.layer)
        self.downsampling, self.downsampling_number = session.acting(TokenDownsampling, 1, site.layer)
        self.features: Tensor | None = None  # the attention's input in the forward in progress
        # Token counts of the latest forward, for the summary; written, never read, by the hooks.
        self.grid: Grid | None = None
        self.grids: Grids = ()
        self.queries = self.keys_before = self.keys = self.width = 0
        self.original = self.attention.processor
        self.twin = twin_of(self.original, self.through, self.name)
        self.attention.processor = self.twin

    @property
    def is_in_place(self) -> bool:
        """Whether nobody has exchanged the processor since."""
        return self.attention.processor is self.twin

    def undo(self) -> None:
        """Puts the processor back, unless somebody has put another there."""
        if self.is_in_place:
            self.attention.processor = self.original
        forget(self.twin)

    def see(self, entering: Tensor, forward: Forward) -> None:
        """Keeps what enters the attention, by which tokens are matched."""
        self.features = entering if self.merging is not None else None

    def through(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, axis: int
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Fewer keys and values, and the mask for them; all in the layout in which they came."""
        forward = self.session.current()
        if forward.arrived.get(self.name):  # the second attention of a processor is over other keys
            return key, value, mask
        forward.arrived[self.name] = True
        if axis == 2:
            fewer_key, fewer_value, mask = self._fewer(forward, key.transpose(1, 2), value.transpose(1, 2), mask)
            key, value = fewer_key.transpose(1, 2), fewer_value.transpose(1, 2)
        else:
            key, value, mask = self._fewer(forward, key, value, mask)
        self.queries, self.width = query.shape[axis], query.shape[3 - axis] * query.shape[3]
        return key, value, mask

    def _fewer(
        self, forward: Forward, key: Tensor, value: Tensor, mask: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of keys and values (B, S, H, D)."""
        length, tokens = key.shape[1], sum(grid.tokens for grid in forward.grids)
        if length < tokens:
            raise ValueError(f"{self.name} must attend to the {tokens} tokens of its grids, not to {length} in all")
        start = self._start(length, tokens)
        parts = [_whole(key, value, 0, start)]
        begin = start
        for grid in forward.grids:
            end = begin + grid.tokens
            own = None if self.features is None else self.features[:, self._start(self.features.shape[1], tokens) :]
            part = self._compressed(
                forward,
                grid,
                key[:, begin:end],
                value[:, begin:end],
                None if own is None else own[:, begin - start : end - start],
            )
            part.kept = part.kept + begin
            parts.append(part)
            begin = end
        self.features = None
        parts.append(_whole(key, value, begin, length))
        parts = [part for part in parts if part.key.shape[1]]
        self.grid, self.grids, self.keys_before = forward.grids[0], forward.grids, length
        self.keys = sum(part.key.shape[1] for part in parts)
        number = self.merging_number if self.downsampling is None else self.downsampling_number
        forward.note(number, self.keys < length)
        mask = _mask(mask, parts, self._size_aware(forward, length, tokens), key.dtype)
        return torch.cat([part.key for part in parts], 1), torch.cat([part.value for part in parts], 1), mask

    def _start(self, length: int, tokens: int) -> int:
        """Where the image's tokens begin in a sequence."""
        return 0 if self.family.image == "first" else length - tokens

    def _size_aware(self, forward: Forward, length: int, tokens: int) -> bool:
        """Whether groups weigh by their size: as asked, else where they share the softmax with what is no group."""
        method = self.merging if self.downsampling is None else self.downsampling
        assert method is not None  # or there is no seam
        if method.size_aware is not None:
            return method.size_aware
        if length > tokens or len(forward.grids) > 1 or isinstance(method, TokenMerging):
            return True
        grid = forward.grids[0]
        return bool(grid.height % method.factor or grid.width % method.factor)

    def _compressed(self, forward: Forward, grid: Grid, key: Tensor, value: Tensor, features: Tensor | None) -> _Fewer:
        """Of the tokens of one grid, frame by frame."""
        frames, frame = grid.frames, grid.frame
        context = Context(
            frame,
            self.layer,
            *(_per_frame(one, frames) for one in (forward.timestep, forward.image_keys, forward.draw_keys)),
        )
        heads = key.shape[2:]
        flat_key, flat_value = (_frames(x.flatten(2), frames) for x in (key, value))
        if self.downsampling is not None:
            method = self.downsampling
            method.check(frame)
            with without_autocast(key):
                pooled_key, pooled_value = method.pool(flat_key, context), method.pool(flat_value, context)
            sizes = method.sizes(frame, key.device).repeat(frames)
            kept = method.kept(frame, key.device)
            shift = torch.arange(frames, device=key.device)[:, None] * frame.tokens
            part = _Fewer(pooled_key, pooled_value, sizes, (kept + shift).flatten())
            self._observe(method, flat_key, context, None)
        else:
            assert features is not None  # `see` ran before
            part = self._merged(context, flat_key, flat_value, _frames(features, frames), frames)
        batch = key.shape[0]
        part.key, part.value = (x.reshape(batch, -1, *heads) for x in (part.key, part.value))
        return part

    def _merged(self, context: Context, key: Tensor, value: Tensor, features: Tensor, frames: int) -> _Fewer:
        """Of keys and values (B * frames, N, C), matched by the attention's input there."""
        method = self.merging
        assert method is not None  # or there is nothing to match
        method.check(context.grid)
        with without_autocast(features):
            assignment = method.assign(features.detach(), context)
        self._observe(method, features, context, assignment)
        batch = features.shape[0] // frames
        shift = (torch.arange(frames, device=key.device) * context.grid.tokens).repeat(batch)[:, None]
        return _Fewer(
            merge(key, assignment, method.operator),
            merge(value, assignment, method.operator),
            group_sizes(assignment).reshape(batch, -1),
            (assignment.kept + shift).reshape(batch, -1),
        )

    def _observe(self, method: Any, tokens: Tensor, context: Context, assignment: Any) -> None:
        if self.session.observer is not None:
            features = None if assignment is None else tokens.detach()
            self.session.observer(Seen(self.name, method, tokens.detach(), features, context, assignment))


def _whole(key: Tensor, value: Tensor, begin: int, end: int) -> _Fewer:
    """Tokens that stay: text, registers, padding."""
    own = torch.arange(begin, end, device=key.device)
    return _Fewer(key[:, begin:end], value[:, begin:end], torch.ones_like(own, dtype=torch.float32), own)


def _mask(mask: Tensor | None, parts: list[_Fewer], size_aware: bool, dtype: torch.dtype) -> Tensor | None:
    """The columns of a mask that are left, plus the log of what each key stands for; None where that is nothing."""
    batch = parts[0].key.shape[0]
    per_row = any(part.sizes.dim() == 2 for part in parts)

    def joined(name: str) -> Tensor:
        values = [getattr(part, name) for part in parts]
        return torch.cat([x.expand(batch, -1) if per_row and x.dim() == 1 else x for x in values], -1)

    sizes = joined("sizes")
    if mask is not None and mask.shape[-1] > 1:
        kept = joined("kept")
        if per_row:
            kept = kept[:, None, None, :].expand(batch, *mask.shape[1:3], -1)
            mask = mask.expand(batch, -1, -1, -1).gather(-1, kept)
        else:
            mask = mask.index_select(-1, kept)
    if not size_aware:
        if not per_row:
            return mask
        sizes = sizes.clamp(max=1)  # an empty group has no weight at all
    bias = sizes.log().to(dtype)
    bias = bias[:, None, None, :] if per_row else bias[None, None, None, :]
    if mask is None:
        return bias
    if mask.dtype == torch.bool:
        return torch.where(mask, bias, bias.new_tensor(float("-inf")))
    return mask + bias


def _frames(x: Tensor, frames: int) -> Tensor:
    """Tokens (B, T * N, C) as (B * T, N, C)."""
    return x.reshape(x.shape[0] * frames, x.shape[1] // frames, x.shape[2])


def _per_frame(values: Tensor | None, frames: int) -> Tensor | None:
    return None if values is None else values.repeat_interleave(frames)


class SeamRootHook(RootHook):
    """Begins a forward with the grids of its image tokens."""

    def __init__(
        self, session: Session, module: nn.Module, family: Family, seams: Sequence[Seam], grid: Grid | None
    ) -> None:
        super().__init__(session, module, family.sample, family.timestep)
        self.family = family
        self.seams = seams
        self.hint = grid
        self.parameters = list(inspect.signature(type(module).forward).parameters)[1:]
        self.read: tuple[Tensor, Grids] | None = None  # the latest img_ids, and the grids that they name

    def undo(self) -> None:
        """Puts all processors back."""
        for seam in self.seams:
            seam.undo()

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """As of any root; tells once what the size of the image means for the method."""
        output = super().new_forward(module, *args, **kwargs)
        if not torch.compiler.is_compiling() and self.session.told is not None:
            told, self.session.told = self.session.told, None
            told()
        return output

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Forward:
        for seam in self.seams:
            if not seam.is_in_place:
                raise NothingCompressedError(
                    f"{seam.name} must have the attention processor that apply() gave it, not another that was set "
                    f"since: call remove(), then apply() again"
                )
        forward = super()._begin(module, args, kwargs)
        if forward.timestep is not None:
            forward.timestep = self.family.level(forward.timestep)
        given = dict(zip(self.parameters, args, strict=False)) | kwargs
        forward.grids = self._grids(module, given)
        self.session.size = sum(grid.tokens for grid in forward.grids), text_of(given)
        return forward

    def _grids(self, module: nn.Module, given: dict[str, Any]) -> Grids:
        grids, ids, kind = self.family.grids(module, given), given.get("img_ids"), type(module).__name__
        if self.hint is not None:
            tokens = given[self.family.sample].shape[1]
            if self.hint.tokens != tokens if grids is None else grids != (self.hint,):
                shown = f"{tokens} tokens" if grids is None else " and ".join(map(str, grids))
                raise ValueError(f"grid must be what this {kind} is given, {shown}, not {self.hint}")
            return (self.hint,)
        if grids is not None:
            return grids
        if ids is None or torch.compiler.is_compiling():
            raise ValueError(
                f"grid must be given to apply() for this {kind}, the height and width in tokens such as "
                f"grid=(64, 64): this forward, {'without img_ids' if ids is None else 'compiled'}, does not show it"
            )
        if self.read is None or self.read[0] is not ids:
            self.read = ids, grids_of_ids(ids)
        return self.read[1]


def check_seam(name: str, methods: Sequence[Method]) -> None:
    """Refuses methods that do not go with each other, or with queries that stay whole, in the layer ``name``."""
    if len(methods) > 1:
        raise ValueError(f"methods must be one in a layer of this model, not {Compression(methods).text} in {name}")
    [method] = methods
    if not isinstance(method, TokenMerging):
        return
    if method.queries != "full":
        raise ValueError(f"queries must be 'full' in a layer that attends jointly or over video, not in {method}")
    for field, usual in (("features", "block"), ("cached", False)):
        if getattr(method, field) != usual:
            raise ValueError(f"{field} must be {usual!r} in {name} of this model, not {getattr(method, field)!r}")


def seam(where: Layout, session: Session, grid: tuple[int, ...] | None) -> list[Seam]:
    """Puts seams into the attentions of the layers in which a method acts, and hooks on these and the model."""
    assert where.family is not None
    hint = None
    if grid is not None:
        if len(grid) not in (2, 3):
            raise ValueError(f"grid must be (height, width) or (frames, height, width) in tokens, not {grid}")
        hint = Grid(grid[-2], grid[-1], *grid[:-2])
    sites = [
        site
        for site in where.sites
        if any(method.includes(1, site.layer) and not method.is_identity for method in session.methods)
    ]
    for site in sites:
        processor: Any = site.attention.processor
        if getattr(processor, "_parallel_config", None) is not None:
            raise ValueError(f"{site.name} must not be run context-parallel to be compressed, but its processor is")
    seams: list[Seam] = []
    try:
        for site in sites:
            seams.append(Seam(session, where.family, site))
    except BaseException:
        for one in seams:
            one.undo()
        raise
    for one in seams:
        attach(one.attention, EnteringHook(session, one.attention, one.see), NAME)
    attach(where.model, SeamRootHook(session, where.model, where.family, seams, hint), NAME)
    HookRegistry.check_if_exists_or_initialize(where.model).invalidate_child_registries_cache()
    return seams
