"""The supported model families: which blocks take part, on which resolution level, and where the grid is seen.

A family of diffusers' `BasicTransformerBlock` is one entry of `SUPPORTED`, another one of `bigain.backbones.joint`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from diffusers import DiTTransformer2DModel, PixArtTransformer2DModel, Transformer2DModel, UNet2DConditionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.utils.torch_utils import unwrap_module as unwrap_compiled
from torch import nn

from bigain.backbones.joint import FAMILIES, Family, Site
from bigain.operators.grid import Grid


@dataclass(frozen=True)
class Layer:
    """One transformer block: its name in the model, its resolution level (1 = finest with attention) and itself."""

    name: str
    level: int
    block: Any


@dataclass(frozen=True)
class Layout:
    """What hooks need to know of a model.

    Args:
        model: the root, on whose forward a state begins and ends.
        sample: name of the root's argument that holds the (B, C, H, W) sample.
        grids: modules whose input (B, C, h, w) shows the token grid, with the patch size that divides it.
        layers: the transformer blocks in order of the forward.
        grid: of all layers, where the model takes samples of one size only; None where a forward shows it.
        enters_unconditioned: whether tokens enter the first layer before class or prompt are told to the model.
        family, sites: of attentions whose keys and values are reached in their processors; None in the other families.
    """

    model: nn.Module
    sample: str
    grids: tuple[tuple[nn.Module, int], ...]
    layers: tuple[Layer, ...]
    grid: Grid | None = None
    enters_unconditioned: bool = False
    family: Family | None = None
    sites: tuple[Site, ...] = ()

    @property
    def levels(self) -> int:
        """Number of resolution levels that have attention."""
        return max(layer.level for layer in self.layers)


def _unet(model: UNet2DConditionModel) -> Layout:
    # Stages in order of the forward, with how often the sample was halved before each.
    last = len(model.down_blocks) - 1
    stages = [(i, f"down_blocks.{i}", stage) for i, stage in enumerate(model.down_blocks)]
    stages += [] if model.mid_block is None else [(last, "mid_block", model.mid_block)]
    stages += [(last - i, f"up_blocks.{i}", stage) for i, stage in enumerate(model.up_blocks)]
    transformers: list[tuple[int, str, Transformer2DModel]] = []
    for depth, name, stage in stages:
        for number, module in enumerate(getattr(stage, "attentions", None) or ()):
            if not isinstance(module, Transformer2DModel):
                raise ValueError(
                    f"{name}.attentions.{number} must be a Transformer2DModel, as in Stable Diffusion 1.x, 2.x and XL, "
                    f"not a {type(module).__name__}"
                )
            transformers.append((depth, f"{name}.attentions.{number}", module))
    depths = sorted({depth for depth, _, _ in transformers})
    layers = [
        Layer(f"{name}.transformer_blocks.{index}", depths.index(depth) + 1, block)
        for depth, name, module in transformers
        for index, block in enumerate(module.transformer_blocks)
    ]
    return Layout(model, "sample", tuple((module, 1) for _, _, module in transformers), tuple(layers))


def _isotropic(model: Any) -> Layout:
    layers = [Layer(f"transformer_blocks.{i}", 1, block) for i, block in enumerate(model.transformer_blocks)]
    return Layout(model, "hidden_states", ((model, model.config.patch_size),), tuple(layers), enters_unconditioned=True)


def _dit(model: DiTTransformer2DModel) -> Layout:
    side = model.config.sample_size // model.config.patch_size
    return replace(_isotropic(model), grid=Grid(side, side))


def _jointly(family: Family, model: nn.Module) -> Layout:
    layers = [Layer(name, 1, block) for name, block in family.each_block(model)]
    return Layout(model, family.sample, (), tuple(layers), family=family, sites=tuple(family.sites(model)))


SUPPORTED: dict[type[nn.Module], Callable[..., Layout]] = {
    UNet2DConditionModel: _unet,
    DiTTransformer2DModel: _dit,
    PixArtTransformer2DModel: _isotropic,
    **{model: partial(_jointly, family) for model, family in FAMILIES.items()},
}


def find_model(pipe_or_model: object) -> nn.Module:
    """The denoising model that is meant, not compiled; a TypeError lists the classes that are supported."""
    model = pipe_or_model
    if not isinstance(model, nn.Module):
        parts = (getattr(pipe_or_model, name, None) for name in ("unet", "transformer", "model"))
        model = next((part for part in parts if part is not None), None)  # a compiled module has no truth value
    inner: Any = unwrap_compiled(model) if isinstance(model, nn.Module) else model
    if any(isinstance(inner, family) for family in SUPPORTED):
        return inner
    given = type(pipe_or_model).__name__
    if model is not pipe_or_model and model is not None:
        given = f"{given} with a {type(inner).__name__}"
    names = ", ".join(family.__name__ for family in SUPPORTED)
    raise TypeError(
        f"pipe_or_model must be one of {names}, or hold one as its unet, transformer or model, not a {given}"
    )


def find_models(pipe_or_model: object) -> tuple[nn.Module, ...]:
    """All that denoise, as :func:`find_model` finds the first: Wan 2.2 has one for much noise, one for little."""
    second = None
    if not isinstance(pipe_or_model, nn.Module):
        several = getattr(pipe_or_model, "models", None)
        if isinstance(several, tuple):
            return tuple(map(find_model, several))
        second = getattr(pipe_or_model, "transformer_2", None)
    first = find_model(pipe_or_model)
    return (first,) if second is None else (first, find_model(second))


def layout(model: nn.Module) -> Layout:
    """The layout of a supported model; a ValueError where it has no attention that can be compressed."""
    family = next(family for family in SUPPORTED if isinstance(model, family))
    result = SUPPORTED[family](model)
    if not result.layers:
        raise ValueError(f"model must have transformer blocks to compress, and this {type(model).__name__} has none")
    for layer in result.layers:
        if result.family is None and not isinstance(layer.block, BasicTransformerBlock):
            raise ValueError(f"{layer.name} must be a BasicTransformerBlock, not a {type(layer.block).__name__}")
    return result
