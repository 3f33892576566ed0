"""The arguments of a forward of each supported class, of any size, and all but positions and masks without content.

What a forward costs follows from shapes alone, so tensors here may be made inside of ``torch.device("meta")``; or they
are filled, see `bigain.backbones.untrained`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bigain.operators.grid import Grid

Given = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """How a size in pixels becomes a grid of tokens.

    Args:
        pixels: side of what the autoencoder makes one position of.
        frames: frames of which it makes one, after the first, which stands for itself; 0 for images.
        patch: frames and side, in positions, of one token.
        halvings: how often the model halves the grid.
        usual: width, height and frames of what the model is made for.
    """

    pixels: int
    frames: int
    patch: tuple[int, int]
    halvings: int
    usual: tuple[int, int, int]

    def grid(self, width: int, height: int, frames: int = 1) -> Grid:
        """The grid of an image or a video; a ValueError where it is not whole."""
        side = self.pixels * self.patch[1]
        whole = side << self.halvings
        for name, value in (("width", width), ("height", height)):
            if value < whole or value % whole:
                raise ValueError(f"the {name} of size must be a multiple of {whole} pixels for this model, not {value}")
        if not self.frames and frames != 1:
            raise ValueError(f"frames must be 1 or left out for a model of images, not {frames}")
        if frames < 1 or (self.frames and (frames - 1) % self.frames):
            raise ValueError(f"frames must be one more than a multiple of {self.frames} for this model, not {frames}")
        latent = 1 + (frames - 1) // self.frames if self.frames else 1
        return Grid(height // side, width // side, -(-latent // self.patch[0]))


@dataclass(frozen=True)
class Arguments:
    """What the forward of a class is given, in the family's pipeline in diffusers.

    Args:
        of: the arguments by name, from the model's config, the grid of its image tokens and the tokens of its text.
        text: tokens of text; 0 where there is none.
        pixels, frames: as in `Scale`.
        usual: as in `Scale`, where the config has no sample_size.
        packed: side, in positions, of what the pipeline makes one position of.
        patch: name of the config's patch size, "" where each position is a token.
    """

    of: Callable[[Any, Grid, int], Given]
    text: int
    pixels: int = 8
    frames: int = 0
    usual: tuple[int, int, int] = (1024, 1024, 1)
    packed: int = 1
    patch: str = "patch_size"

    def scale(self, config: Any) -> Scale:
        """Of a model with that config."""
        side: Any = getattr(config, self.patch) if self.patch else 1
        time = getattr(config, "patch_size_t", None) or 1
        if not isinstance(side, int):
            time, side = (side[0], side[1]) if len(side) == 3 else (1, side[0])
        sample = getattr(config, "sample_size", None)
        usual = (sample * self.pixels, sample * self.pixels, 1) if isinstance(sample, int) else self.usual
        halvings = len(getattr(config, "block_out_channels", (0,))) - 1
        return Scale(self.pixels * self.packed, self.frames, (time, side), halvings, usual)


def text_of(given: Given) -> int:
    """Tokens of text that a forward is given."""
    captions = given.get("cap_feats")
    return given["encoder_hidden_states"].shape[1] if captions is None else max(len(one) for one in captions)


def _empty(*shape: int) -> Tensor:
    return torch.empty(1, *shape)


def _image(config: Any, grid: Grid) -> Tensor:
    """A sample (1, C, H, W)."""
    patch = getattr(config, "patch_size", 1)
    return _empty(config.in_channels, grid.height * patch, grid.width * patch)


def _mask(text: int) -> Tensor:
    return torch.ones(1, text, dtype=torch.bool)


def _unet(config: Any, grid: Grid, text: int) -> Given:
    given: Given = {
        "sample": _empty(config.in_channels, grid.height, grid.width),
        "timestep": _empty(),
        "encoder_hidden_states": _empty(text, config.cross_attention_dim),
    }
    if config.addition_embed_type == "text_time":
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        given["added_cond_kwargs"] = {"text_embeds": _empty(pooled), "time_ids": _empty(6)}
    return given


def _dit(config: Any, grid: Grid, _: int) -> Given:
    label = torch.zeros(1, dtype=torch.long)
    return {"hidden_states": _image(config, grid), "timestep": label, "class_labels": label}


def _pixart(config: Any, grid: Grid, text: int) -> Given:
    # As in the model: what the config leaves open, images of 1024 pixels have.
    conditioned = config.use_additional_conditions
    conditioned = config.sample_size == 128 if conditioned is None else conditioned
    sizes = {"resolution": _empty(2), "aspect_ratio": _empty(1)} if conditioned else {}
    return {
        "hidden_states": _image(config, grid),
        "timestep": _empty(),
        "encoder_hidden_states": _empty(text, config.caption_channels),
        "added_cond_kwargs": {"resolution": None, "aspect_ratio": None} | sizes,
    }


def _sd3(config: Any, grid: Grid, text: int) -> Given:
    return {
        "hidden_states": _image(config, grid),
        "timestep": _empty(),
        "encoder_hidden_states": _empty(text, config.joint_attention_dim),
        "pooled_projections": _empty(config.pooled_projection_dim),
    }


def _auraflow(config: Any, grid: Grid, text: int) -> Given:
    return {
        "hidden_states": _image(config, grid),
        "timestep": _empty(),
        "encoder_hidden_states": _empty(text, config.joint_attention_dim),
    }


def _lumina(config: Any, grid: Grid, text: int) -> Given:
    return {
        "hidden_states": _image(config, grid),
        "timestep": _empty(),
        "encoder_hidden_states": _empty(text, config.cap_feat_dim),
        "encoder_attention_mask": _mask(text),
    }


def _prx(config: Any, grid: Grid, text: int) -> Given:
    return {
        "hidden_states": _image(config, grid),
        "timestep": _empty(),
        "encoder_hidden_states": _empty(text, config.context_in_dim),
    }


def _tokens(config: Any, grid: Grid, text: int) -> Given:
    """Of those that are given tokens (1, N, C) instead of an image."""
    given = {
        "hidden_states": _empty(grid.tokens, config.in_channels),
        "timestep": _empty(),
        "encoder_hidden_states": _empty(text, config.joint_attention_dim),
    }
    return given | ({"guidance": _empty()} if getattr(config, "guidance_embeds", False) else {})


def _flux(config: Any, grid: Grid, text: int) -> Given:
    axes = len(config.axes_dims_rope)
    rows, columns = torch.arange(grid.height), torch.arange(grid.width)
    places = torch.cartesian_prod(torch.zeros(1, dtype=torch.long), rows, columns)
    image = functional.pad(places, (0, axes - 3))
    ids = {"img_ids": image, "txt_ids": torch.zeros(text, axes, dtype=torch.long)}
    pooled = getattr(config, "pooled_projection_dim", None)
    return _tokens(config, grid, text) | ids | ({} if pooled is None else {"pooled_projections": _empty(pooled)})


def _qwen(config: Any, grid: Grid, text: int) -> Given:
    return _tokens(config, grid, text) | {
        "encoder_hidden_states_mask": _mask(text),
        "img_shapes": [[(grid.frames, grid.height, grid.width)]],
    }


def _zimage(config: Any, grid: Grid, text: int) -> Given:
    patch = config.all_patch_size[0]
    image = torch.empty(config.in_channels, grid.frames, grid.height * patch, grid.width * patch)
    return {"x": [image], "t": _empty(), "cap_feats": [torch.empty(text, config.cap_feat_dim)]}


def _wan(config: Any, grid: Grid, text: int) -> Given:
    frames, height, width = config.patch_size
    given = {
        "hidden_states": _empty(config.in_channels, grid.frames * frames, grid.height * height, grid.width * width),
        "timestep": _empty(),
        "encoder_hidden_states": _empty(text, config.text_dim),
    }
    if config.image_dim is not None:
        given["encoder_hidden_states_image"] = _empty(257, config.image_dim)  # CLIP's of 224 pixels
    return given


def _ltx(config: Any, grid: Grid, text: int) -> Given:
    return {
        "hidden_states": _empty(grid.tokens, config.in_channels),
        "timestep": _empty(),
        "encoder_hidden_states": _empty(text, config.caption_channels),
        "encoder_attention_mask": _mask(text),
        "num_frames": grid.frames,
        "height": grid.height,
        "width": grid.width,
    }


def _hunyuan(config: Any, grid: Grid, text: int) -> Given:
    patch, frames = config.patch_size, config.patch_size_t
    given = {
        "hidden_states": _empty(config.in_channels, grid.frames * frames, grid.height * patch, grid.width * patch),
        "timestep": _empty(),
        "encoder_hidden_states": _empty(text, config.text_embed_dim),
        "encoder_attention_mask": _mask(text),
        "pooled_projections": _empty(config.pooled_projection_dim),
    }
    return given | ({"guidance": _empty()} if config.guidance_embeds else {})


def _cogvideox(config: Any, grid: Grid, text: int) -> Given:
    patch, frames = config.patch_size, config.patch_size_t or 1
    given: Given = {
        "hidden_states": _empty(grid.frames * frames, config.in_channels, grid.height * patch, grid.width * patch),
        "timestep": _empty(),
        "encoder_hidden_states": _empty(text, config.text_embed_dim),
    }
    if config.use_rotary_positional_embeddings:
        turns = torch.empty(grid.tokens, config.attention_head_dim)
        given["image_rotary_emb"] = (turns, turns)
    return given | ({"ofs": _empty()} if config.ofs_embed_dim is not None else {})


ARGUMENTS: dict[str, Arguments] = {
    "UNet2DConditionModel": Arguments(_unet, 77, patch=""),
    "DiTTransformer2DModel": Arguments(_dit, 0),
    "PixArtTransformer2DModel": Arguments(_pixart, 300),
    "SD3Transformer2DModel": Arguments(_sd3, 333),  # 77 of CLIP, 256 of T5
    "FluxTransformer2DModel": Arguments(_flux, 512, packed=2),
    "ChromaTransformer2DModel": Arguments(_flux, 512, packed=2),
    "Flux2Transformer2DModel": Arguments(_flux, 512, packed=2),
    "QwenImageTransformer2DModel": Arguments(_qwen, 128),  # as long as the prompt is: nothing pads it
    "ZImageTransformer2DModel": Arguments(_zimage, 128, patch="all_patch_size"),  # the same
    "WanTransformer3DModel": Arguments(_wan, 512, 8, 4, (1280, 720, 81)),
    "LTXVideoTransformer3DModel": Arguments(_ltx, 128, 32, 8, (1216, 704, 121)),
    "HunyuanVideoTransformer3DModel": Arguments(_hunyuan, 256, 8, 4, (1280, 720, 129)),
    "CogVideoXTransformer3DModel": Arguments(_cogvideox, 226, 8, 4, (720, 480, 49)),
    "AuraFlowTransformer2DModel": Arguments(_auraflow, 256),
    "Lumina2Transformer2DModel": Arguments(_lumina, 256),
    "PRXTransformer2DModel": Arguments(_prx, 256),
}
"""By the name of the class."""
