"""Families that attend over images or videos and text together, or over videos alone: where, and on which grid.

A family is one entry of `FAMILIES`: the lists of its blocks in the order of the forward, their attentions, where the
image lies among the keys, how the grids follow from the arguments of a forward, and how its timestep is counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import diffusers
import torch
from torch import Tensor, nn

from bigain.operators.grid import Grid

Arguments = Mapping[str, Any]  # of a forward, by name
Grids = tuple[Grid, ...]  # of the image tokens in their order: what is denoised, then references


@dataclass(frozen=True)
class Site:
    """One attention: its name in the model, itself, and the number of its block in the order of the forward."""

    name: str
    attention: nn.Module
    layer: int


@dataclass(frozen=True)
class PerToken:
    """An argument of blocks that has a row for each token, such as rotary embedding.

    Args:
        name: of the argument; a block without it has none.
        axis: along which the tokens lie.
        shared: whether it has no batch dimension, so that all rows of a batch take the same.
        first: whether it is several tensors, of which only the first is the image's.
    """

    name: str
    axis: int
    shared: bool = False
    first: bool = False


@dataclass(frozen=True)
class Family:
    """What hooks need to know of a family.

    Args:
        blocks: names of the model's lists of blocks that take part, in the order of the forward.
        attentions: names of the attentions in a block; one that a block lacks is left out.
        image: where the image's tokens lie among the keys, "first" or "last"; others are text, registers and padding.
        grids: of the image's tokens, from the model and the arguments of a forward; None where those do not show them.
        sample: name of the argument that holds the sample.
        timestep: name of the argument that holds the timestep.
        level: the timestep as given to one of a thousand, 0 being the clean image.
        mlp: name of the MLP in a block; where a block lacks it, it is one with the attention's projections.
        tokens: name of a block's argument that holds the image's tokens, alone or with text.
        output: place of these among the tensors that a block returns, where it returns several.
        per_token: arguments of blocks with a row for each token.
        video: whether it makes videos, of whose latent frames the first stands for one frame, the others for several.
    """

    blocks: tuple[str, ...]
    attentions: tuple[str, ...]
    image: Literal["first", "last"]
    grids: Callable[[Any, Arguments], Grids | None]
    sample: str = "hidden_states"
    timestep: str = "timestep"
    level: Callable[[Tensor], Tensor] = lambda t: t
    mlp: str = "ff"
    tokens: str = "hidden_states"
    output: int = -1
    per_token: tuple[PerToken, ...] = ()
    video: bool = False

    def each_block(self, model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
        """The blocks by name, in the order of the forward."""
        for blocks in self.blocks:
            for number, block in enumerate(getattr(model, blocks, None) or ()):
                yield f"{blocks}.{number}", block

    def sites(self, model: nn.Module) -> Iterator[Site]:
        """The attentions, in the order of the forward."""
        for layer, (name, block) in enumerate(self.each_block(model)):
            for part in self.attentions:
                if getattr(block, part, None) is not None:
                    yield Site(f"{name}.{part}", getattr(block, part), layer)


def _of_image(model: Any, given: Arguments) -> Grids:
    """From a sample (B, C, H, W)."""
    height, width = given["hidden_states"].shape[-2:]
    return (Grid(height // model.config.patch_size, width // model.config.patch_size),)


def _of_lumina(model: Any, given: Arguments) -> Grids:
    """From a sample (B, C, H, W); captions are as long as each other, as the image begins where its caption ends."""
    lengths = given["encoder_attention_mask"].sum(1).tolist()
    if len(set(lengths)) > 1:
        raise ValueError(
            f"encoder_attention_mask must show captions of one length in a compressed forward, not of {lengths}"
        )
    return _of_image(model, given)


def _of_video(model: Any, given: Arguments) -> Grids:
    """From a sample (B, C, T, H, W), or (B, T, C, H, W) where the model patches no time."""
    frames, height, width = given["hidden_states"].shape[-3:]
    patch = model.config.patch_size
    if not isinstance(patch, int):
        return (Grid(height // patch[1], width // patch[2], frames // patch[0]),)
    return (Grid(height // patch, width // patch, frames // model.config.patch_size_t),)


def _of_cogvideo(model: Any, given: Arguments) -> Grids:
    """From a sample (B, T, C, H, W)."""
    frames, _, height, width = given["hidden_states"].shape[-4:]
    patch = model.config.patch_size
    return (Grid(height // patch, width // patch, frames // (model.config.patch_size_t or 1)),)


def _of_sizes(_: Any, given: Arguments) -> Grids | None:
    """From the arguments num_frames, height and width."""
    if any(given.get(name) is None for name in ("height", "width", "num_frames")):
        return None
    return (Grid(given["height"], given["width"], given["num_frames"]),)


def _of_shapes(_: Any, given: Arguments) -> Grids | None:
    """From img_shapes: per row a (frames, height, width) for each image, or one of these alone."""
    rows = given.get("img_shapes")
    if not rows:
        return None
    rows = [[row] if isinstance(row[0], int) else row for row in rows]
    if any(list(map(tuple, row)) != list(map(tuple, rows[0])) for row in rows):
        raise ValueError(f"img_shapes must be the same for all rows of a compressed forward, not {rows}")
    return tuple(Grid(height, width, frames) for frames, height, width in rows[0])


def _of_list(_: Any, given: Arguments) -> Grids:
    """From a list of samples (C, F, H, W)."""
    samples = given["x"]
    if not all(isinstance(sample, Tensor) for sample in samples):
        raise ValueError("x must be one image for each row of a compressed forward, not several")
    if len({sample.shape for sample in samples}) > 1:
        sizes = ", ".join(sorted({str(tuple(sample.shape)) for sample in samples}))
        raise ValueError(f"x must have images of one size in a compressed forward, not {sizes}")
    _, frames, height, width = samples[0].shape
    patch, patch_of_frames = given.get("patch_size", 2), given.get("f_patch_size", 1)
    return (Grid(height // patch, width // patch, frames // patch_of_frames),)


def _of_flux2(_: Any, given: Arguments) -> None:
    """img_ids show it; keys that are kept from one forward to the next are joined to the others out of reach."""
    if given.get("kv_cache_mode") is not None:
        raise ValueError(f"kv_cache_mode must be None in a compressed forward, not {given['kv_cache_mode']!r}")


def first_frame_is_clean(timestep: Tensor | None, frame: int) -> bool:
    """Whether the first frame conditions a video: its tokens' timesteps, among those (B, S) of all, are 0.

    ``frame`` is the number of tokens of a frame. It waits for the device, where there is a timestep for each token
    (Wan 2.2 TI2V, LTX-Video from an image). ValueError in a compiled forward, and where rows differ.
    """
    if timestep is None or timestep.dim() != 2 or timestep.shape[1] <= frame:
        return False
    if torch.compiler.is_compiling():
        raise ValueError(
            f"timestep must be one for each row where the whole model is compiled, not {tuple(timestep.shape)}, which "
            f"must be read: compile its blocks instead, by compile_repeated_blocks()"
        )
    clean = timestep == 0
    conditions = (clean[:, :frame].all(1) & ~clean[:, frame:].any(1)).tolist()
    if any(conditions) != all(conditions):
        raise ValueError(
            f"timestep must condition all rows of a compressed forward by their first frame, not {conditions}"
        )
    return all(conditions)


def grids_of_ids(ids: Tensor) -> Grids:
    """From img_ids (N, 3) or (N, 4), whose first column tells the images apart; it waits for the device.

    ValueError where the tokens of an image are no grid in raster order.
    """
    rows = (ids if ids.dim() == 2 else ids[0]).detach().cpu()
    grids, start = [], 0
    breaks = (rows[1:, 0] != rows[:-1, 0]).nonzero().flatten() + 1
    for end in [*breaks.tolist(), len(rows)]:
        row, column = rows[start:end, 1].unique(), rows[start:end, 2].unique()
        grid = Grid(len(row), len(column))
        if not torch.equal(torch.cartesian_prod(row, column).reshape(-1, 2), rows[start:end, 1:3]):
            raise ValueError(
                f"img_ids must name the tokens of a grid row by row, which tokens {start} to {end - 1} do not: give "
                f"apply() the grid, such as grid=(64, 64)"
            )
        grids.append(grid)
        start = end
    return tuple(grids)


_THOUSANDTHS: Callable[[Tensor], Tensor] = lambda t: 1000 * t  # noqa: E731
_REVERSED: Callable[[Tensor], Tensor] = lambda t: 1000 * (1 - t)  # noqa: E731
_DUAL_AND_SINGLE = ("transformer_blocks", "single_transformer_blocks")
_FLUX_ROPE = PerToken("image_rotary_emb", 0, shared=True)
_FLUX = Family(_DUAL_AND_SINGLE, ("attn",), "last", lambda *_: None, level=_THOUSANDTHS, per_token=(_FLUX_ROPE,))

_BY_NAME: dict[str, Family] = {
    "SD3Transformer2DModel": Family(("transformer_blocks",), ("attn", "attn2"), "first", _of_image),
    "FluxTransformer2DModel": _FLUX,
    "ChromaTransformer2DModel": replace(_FLUX, per_token=(_FLUX_ROPE, PerToken("attention_mask", 1))),
    "Flux2Transformer2DModel": replace(_FLUX, grids=_of_flux2),
    "QwenImageTransformer2DModel": Family(
        ("transformer_blocks",),
        ("attn",),
        "last",
        _of_shapes,
        level=_THOUSANDTHS,
        mlp="img_mlp",
        per_token=(PerToken("image_rotary_emb", 0, shared=True, first=True),),
    ),
    "ZImageTransformer2DModel": Family(
        ("noise_refiner", "layers"),
        ("attention",),
        "first",
        _of_list,
        "x",
        "t",
        level=_REVERSED,
        mlp="feed_forward",
        tokens="x",
        per_token=(PerToken("freqs_cis", 1), PerToken("attn_mask", 1)),
    ),
    "WanTransformer3DModel": Family(
        ("blocks",),
        ("attn1",),
        "first",
        _of_video,
        mlp="ffn",
        per_token=(PerToken("rotary_emb", 1), PerToken("temb", 1)),
        video=True,
    ),
    "LTXVideoTransformer3DModel": Family(
        ("transformer_blocks",),
        ("attn1",),
        "first",
        _of_sizes,
        per_token=(PerToken("image_rotary_emb", 1), PerToken("temb", 1)),
        video=True,
    ),
    "HunyuanVideoTransformer3DModel": Family(
        _DUAL_AND_SINGLE,
        ("attn",),
        "first",
        _of_video,
        output=0,
        per_token=(
            PerToken("freqs_cis", 0, shared=True),  # of blocks with two streams
            PerToken("image_rotary_emb", 0, shared=True),  # and with one
            PerToken("attention_mask", 3),
        ),
        video=True,
    ),
    "CogVideoXTransformer3DModel": Family(
        ("transformer_blocks",),
        ("attn1",),
        "last",
        _of_cogvideo,
        output=0,
        per_token=(PerToken("image_rotary_emb", 0, shared=True),),
        video=True,
    ),
    "AuraFlowTransformer2DModel": Family(
        ("joint_transformer_blocks", "single_transformer_blocks"), ("attn",), "last", _of_image, level=_THOUSANDTHS
    ),
    "Lumina2Transformer2DModel": Family(
        ("noise_refiner", "layers"),
        ("attn",),
        "last",
        _of_lumina,
        level=_REVERSED,
        mlp="feed_forward",
        per_token=(PerToken("image_rotary_emb", 1), PerToken("attention_mask", 1)),
    ),
    "PRXTransformer2DModel": Family(
        ("blocks",), ("attention",), "last", _of_image, level=_THOUSANDTHS, per_token=(PerToken("image_rotary_emb", 2),)
    ),
}
FAMILIES: dict[type[nn.Module], Family] = {
    getattr(diffusers, name): family for name, family in _BY_NAME.items() if hasattr(diffusers, name)
}
"""The families by class, of those that the installed diffusers has."""
