"""The root's hook of models whose attentions have seams, and the seams put in place."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from diffusers.hooks import HookRegistry
from torch import Tensor, nn

from bigain.backbones.arguments import text_of
from bigain.backbones.around import Around, JointMLPHook, WholeBlockHook
from bigain.backbones.attachment import NAME, attach
from bigain.backbones.families import Layer, Layout
from bigain.backbones.hooks import EnteringHook, NothingCompressedError, RootHook
from bigain.backbones.joint import Family, Grids, Site, first_frame_is_clean, grids_of_ids
from bigain.backbones.projections import PROJECTIONS, ProjectionHook, check_projections
from bigain.backbones.seam import Seam
from bigain.backbones.spans import place_of, pools_first
from bigain.backbones.state import Forward, Session
from bigain.methods import Compression, Method, TokenMerging
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

    def _end(self, module: nn.Module, forward: Forward) -> None:
        """As of any root; tells once what the size of the image means for the methods, where all of them act."""
        super()._end(module, forward)
        if torch.compiler.is_compiling() or self.session.told is None or forward.resting or not forward.compressed:
            return
        told, self.session.told = self.session.told, None
        told()

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
        self.session.size = forward.image_tokens, text_of(given)
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


def check_together(layer: Layer, methods: Sequence[Method]) -> None:
    """Refuses methods that take turns in a layer of such a model around its MLP and around all of it."""
    if {"mlp", "block"} <= {place_of(method) for method in methods if not method.is_identity}:
        raise ValueError(
            f"locations must be 'mlp' or 'block' in a layer of this model, in all ranges of t, not both as of "
            f"{Compression(methods).text} in {layer.name}"
        )


def check_seam(layer: Layer, methods: Sequence[Method], family: Family) -> None:
    """Refuses methods that act at one t and do not go with each other, or with a layer of such a model."""
    if len(methods) > 1:
        raise ValueError(
            f"methods must be one in a layer of this model at a timestep, not {Compression(methods).text} in "
            f"{layer.name}"
        )
    [method] = methods
    if not isinstance(method, TokenMerging):
        return
    if "self_attention" in method.locations and method.queries != "full":
        raise ValueError(
            f"queries must be 'full' in a layer that attends jointly or over video, not in {method}: or locations 'mlp'"
            f" or 'block'"
        )
    for field, usual in (("features", "block"), ("cached", False)):
        if getattr(method, field) != usual:
            raise ValueError(f"{field} must be {usual!r} in {layer.name} of this model, not {getattr(method, field)!r}")
    if method.locations == ("mlp",) and not isinstance(getattr(layer.block, family.mlp, None), nn.Module):
        raise ValueError(
            f"{layer.name} must have an MLP that is one module for locations=('mlp',), not one that is part of a "
            f"{type(layer.block).__name__}: use locations=('block',), or leave it out by layers"
        )


def seam(where: Layout, session: Session, grid: tuple[int, ...] | None) -> list[Seam | Around]:
    """Hooks the layers in which a method acts, and the model; what shows of each layer in a summary, in order."""
    family = where.family
    assert family is not None
    acting = {
        number
        for number in range(len(where.layers))
        if any(method.includes(1, number) and not method.is_identity for method in session.methods)
    }
    places = {number: {place_of(method) for _, method in session.taking_turns(number)} for number in sorted(acting)}
    arounds = {
        number: Around(session, family, where.layers[number], number)
        for number, own in places.items()
        if own != {"attention"}
    }
    sites = [site for site in where.sites if site.layer in acting and places[site.layer] != {"mlp"}]
    for site in sites:
        _check_site(site, session)
    seams: list[Seam] = []
    try:
        for site in sites:
            seams.append(Seam(session, family, site))
    except BaseException:
        for one in seams:
            one.undo()
        raise
    for one in seams:
        _hook_attention(one)
    for around in arounds.values():
        _hook_block(around, [one for one in seams if one.layer == around.layer])
    attach(where.model, SeamRootHook(session, where.model, family, seams, _hint(grid)), NAME)
    HookRegistry.check_if_exists_or_initialize(where.model).invalidate_child_registries_cache()
    shown: list[Seam | Around] = [*(one for one in seams if one.shortens), *arounds.values()]
    return sorted(shown, key=lambda one: one.layer)


def _hint(grid: tuple[int, ...] | None) -> Grid | None:
    if grid is None:
        return None
    if len(grid) not in (2, 3):
        raise ValueError(f"grid must be (height, width) or (frames, height, width) in tokens, not {grid}")
    return Grid(grid[-2], grid[-1], *grid[:-2])


def _hook_attention(one: Seam) -> None:
    if not one.shortens:
        return
    attach(one.attention, EnteringHook(one.session, one.attention, one.see), NAME)
    for name in PROJECTIONS if one.at_projections else ():
        attach(getattr(one.attention, name), ProjectionHook(one), NAME)


def _hook_block(around: Around, seams: list[Seam]) -> None:
    if around.whole:
        around.seams = seams
        attach(around.block, WholeBlockHook(around), NAME)
        return
    attach(around.block, EnteringHook(around.session, around.block, around.assign, around.family.tokens), NAME)
    attach(getattr(around.block, around.family.mlp), JointMLPHook(around), NAME)


def _check_site(site: Site, session: Session) -> None:
    """Refuses an attention that cannot be compressed as its method asks."""
    processor: Any = getattr(site.attention, "processor", None)
    if getattr(processor, "_parallel_config", None) is not None:
        raise ValueError(f"{site.name} must not be run context-parallel to be compressed, but its processor is")
    for _, method in session.taking_turns(site.layer):
        if pools_first(method):
            check_projections(site, method)
