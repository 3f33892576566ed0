"""The root's hook of models whose attentions have seams, and the seams put in place."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.hooks import HookRegistry
from torch import Tensor, nn

from bigain.backbones.attachment import NAME, attach
from bigain.backbones.families import Layout
from bigain.backbones.hooks import EnteringHook, NothingCompressedError, RootHook
from bigain.backbones.joint import Family, Grids, Site, first_frame_is_clean, grids_of_ids
from bigain.backbones.projections import PROJECTIONS, ProjectionHook, check_projections
from bigain.backbones.seam import Seam
from bigain.backbones.state import Forward, Session
from bigain.methods import Compression, Method, TokenDownsampling, TokenMerging
from bigain.operators.grid import Grid


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
        frame = forward.grids[0].frame.tokens
        if self.family.video and forward.grids[0].frames > 1:
            replaced = getattr(module.config, "image_condition_type", None) == "token_replace"  # of HunyuanVideo
            forward.whole_frames = int(replaced or first_frame_is_clean(given.get(self.family.timestep), frame))
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
        _check_site(site, session)
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
        for name in PROJECTIONS if one.at_projections else ():
            attach(getattr(one.attention, name), ProjectionHook(one), NAME)
    attach(where.model, SeamRootHook(session, where.model, where.family, seams, hint), NAME)
    HookRegistry.check_if_exists_or_initialize(where.model).invalidate_child_registries_cache()
    return seams


def _check_site(site: Site, session: Session) -> None:
    """Refuses an attention that cannot be compressed as its method asks."""
    processor: Any = getattr(site.attention, "processor", None)
    if getattr(processor, "_parallel_config", None) is not None:
        raise ValueError(f"{site.name} must not be run context-parallel to be compressed, but its processor is")
    method = session.acting_alone(site.layer)[1]
    if isinstance(method, TokenDownsampling) and method.pool_at == "projection":
        check_projections(site, method)
