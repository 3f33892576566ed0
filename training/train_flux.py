"""Trains the embedded text-to-image model with joint attention: `python training/train_flux.py --help`.

A small FLUX.1: blocks with a stream each for text and image, then blocks with one for both, rotary positions, flow
matching. A T5 encoder gives the text's tokens and a CLIP text encoder the pooled text; both train with it, from
scratch, on the latents of the embedded autoencoder. Half of a batch shows one letter, the other half scenes of
several, with captions as for `train_text_to_image.py`. A tenth of the captions is empty, for guidance, and half of
what CLIP sees, so that the text's tokens tell it all.

It is trained from small images to large: each run has a size, and begins with the weights of the run before
(`--start-from`). At larger sizes as much of a scene is seen through more noise, so noise levels are shifted with the
side (Esser et al. 2024, section 5.3.2). With `--for-size` a small image stands for a large one: a token has the
position and, as a key, the weight of the tokens that it stands for, and the model is told the noise level at which
these show as much, so that little is to be learnt anew at the larger size. glyphs-sd, whose latents these are, teaches
(`--teaching`). The whole `FluxPipeline` is exported, in float16 and in files under 10 MB.
"""

from __future__ import annotations

import argparse
import json
import math
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionPipeline,
)
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d
from transformers import CLIPTokenizer, T5Config, T5EncoderModel, T5Tokenizer

import encoders
import tokenizer as vocabulary
from attention import quick
from bigain import zoo
from bigain.data.glyphs import CLASSES
from bigain.data.prompts import LETTER
from bigain.data.scenes import Scenes
from captions import vary
from images import letters, scenes
from levels import levels, shifted
from train_text_to_image import encoded
from trainer import Trainer, options, train

UNSHIFTED = 64  # pixels of a side at which noise levels are uniform
FLUX: dict[str, Any] = dict(
    in_channels=16,  # 2 x 2 latents of 4 channels
    num_layers=3,
    num_single_layers=6,
    attention_head_dim=32,
    num_attention_heads=6,
    joint_attention_dim=encoders.WIDTH,
    pooled_projection_dim=encoders.WIDTH,
    axes_dims_rope=(4, 14, 14),
)


def scheduler(size: int) -> FlowMatchEulerDiscreteScheduler:
    """The scheduler that ships with the model, whose steps are spaced as the noise levels of the training."""
    return FlowMatchEulerDiscreteScheduler(shift=size / UNSHIFTED)


def positions(length: int, side: int, spacing: int = 1) -> tuple[Tensor, Tensor]:
    """What FLUX takes as positions: zeros (length, 3) for text, 0, row and column (side², 3) for the image.

    With a ``spacing`` they are the centres of the tokens that one stands for.
    """
    along = torch.arange(side) * spacing + (spacing - 1) / 2
    return torch.zeros(length, 3), torch.cartesian_prod(torch.zeros(1), along, along)


def packed(latents: Tensor) -> Tensor:
    """Latents (B, C, H, W) as tokens (B, H · W / 4, 4 · C), each with squares of 2 x 2."""
    batch, channels, height, width = latents.shape
    squares = latents.view(batch, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width // 4, 4 * channels)


def unpacked(tokens: Tensor) -> Tensor:
    """The reverse, for square images."""
    batch, count, width = tokens.shape
    side = math.isqrt(count)
    squares = tokens.view(batch, side, side, width // 4, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(batch, width // 4, 2 * side, 2 * side)


class TextToVelocity(nn.Module):
    """Text encoders and transformer as one function, so that they train together."""

    def __init__(self, clip: CLIPTokenizer, t5: T5Tokenizer) -> None:
        super().__init__()
        self.text_encoder = encoders.clip(clip, layers=2)
        self.text_encoder_2 = T5EncoderModel(T5Config(**encoders.t5(t5)))
        self.transformer = FluxTransformer2DModel(**FLUX)

    def forward(
        self, latents: Tensor, level: Tensor, seen: Tensor, read: Tensor, ids: tuple[Tensor, Tensor], weight: float = 1
    ) -> Tensor:
        """The velocity of packed latents (B, N, 16) at noise levels (B,), for CLIP's and T5's tokens (B, L) each.

        Each image token counts ``weight`` times among the keys.
        """
        logits = torch.zeros(1, 1, 1, read.shape[1] + latents.shape[1], dtype=latents.dtype, device=latents.device)
        logits[..., read.shape[1] :] = math.log(weight)
        return self.transformer(
            latents,
            encoder_hidden_states=self.text_encoder_2(read)[0],
            pooled_projections=self.text_encoder(seen).pooler_output,
            timestep=level,
            txt_ids=ids[0],
            img_ids=ids[1],
            joint_attention_kwargs=None if weight == 1 else {"attention_mask": logits},
            return_dict=False,
        )[0]


class Teacher:
    """glyphs-sd, to follow where it knows the noised latents averaged down to its size.

    Averaged over squares of ``factor`` latents, noised latents are noised latents again, with 1 / ``factor`` of the
    noise, and nearly those of the small image where there is much noise. So what it predicts there is about the mean
    of what ours, averaged down, is to be.
    """

    def __init__(self, size: int, device: str) -> None:
        pipe = StableDiffusionPipeline.from_pretrained(zoo.path("glyphs-sd"), safety_checker=None, use_safetensors=True)
        self.factor = size // UNSHIFTED
        self.least = 0 if self.factor == 1 else 500  # below, what it knows of small images misleads
        self.text_encoder = pipe.text_encoder.to(device).eval()
        self.unet = pipe.unet.to(device, torch.bfloat16, memory_format=torch.channels_last).eval()
        alphas = pipe.scheduler.alphas_cumprod
        self.ratios = (alphas / (1 - alphas)).log().flip(0).numpy()  # rising

    @torch.no_grad()
    def noise(self, noised: Tensor, level: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What it predicts of averaged latents (B, 4, H, W), and a weight (B,): 1 / signal up to 16, or 0."""
        signal, noise = 1 - level, level / self.factor
        ratio = 2 * (signal / noise).log()
        t = np.interp(ratio.cpu().numpy(), self.ratios, np.arange(len(self.ratios))[::-1], left=np.nan, right=np.nan)
        timesteps = torch.from_numpy(t).to(level).nan_to_num(len(self.ratios) - 1)
        variance = signal**2 + noise**2
        known = torch.from_numpy(t >= self.least).to(level)
        small = avg_pool2d(noised, self.factor) / variance.sqrt().view(-1, 1, 1, 1)
        small = small.to(torch.bfloat16, memory_format=torch.channels_last)
        states = self.text_encoder(tokens)[0].to(small.dtype)
        predicted = self.unet(small, timesteps, encoder_hidden_states=states, return_dict=False)[0].float()
        return predicted, known / (signal**2 / variance).clamp(min=1 / 16)

    def loss(self, noise: Tensor, noised: Tensor, level: Tensor, tokens: Tensor) -> Tensor:
        """(B,) The weighted squared error of our predicted ``noise``, averaged, in units of averaged noise."""
        target, weight = self.noise(noised, level, tokens)
        return weight * (avg_pool2d(noise, self.factor) * self.factor - target).square().mean((1, 2, 3))


class Captions:
    """Draws captions and gives both encoders' tokens."""

    def __init__(self, clip: CLIPTokenizer, t5: T5Tokenizer, length: int, drop: float) -> None:
        self.clip, self.t5, self.drop = clip, t5, drop
        self.layouts = Scenes("train")
        self.length = length

    def __call__(self, index: Tensor, half: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """For images of these numbers, single letters in the first half: CLIP's, T5's, and the teacher's."""
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        told = [LETTER.format(CLASSES[i % len(CLASSES)]) for i in index[:half].tolist()]
        told += [vary(self.layouts.letters(i), rng) for i in index[half:].tolist()]
        kept = rng.random((2, len(told))) >= np.array([[self.drop], [0.5]])
        read = [caption if keep else "" for caption, keep in zip(told, kept[0], strict=True)]
        seen = [caption if keep else "" for caption, keep in zip(read, kept[1], strict=True)]
        how = {"padding": "max_length", "truncation": True, "return_tensors": "pt"}
        t5 = self.t5(read, max_length=self.length, **how).input_ids
        return self.clip(seen, **how).input_ids, t5, self.clip(read, **how).input_ids


def export(trainer: Trainer, parts: dict[str, Any], size: int, folder: Path) -> None:
    """Writes the pipeline with the averaged weights, in float16 but for the text encoders."""
    model = TextToVelocity(parts["tokenizer"], parts["tokenizer_2"])
    trainer.average_into(model)
    pipe = FluxPipeline(
        scheduler=scheduler(size),
        text_encoder=model.text_encoder,
        text_encoder_2=model.text_encoder_2,
        transformer=model.transformer,
        **parts,
    )
    pipe.transformer.half()
    pipe.vae.half()
    pipe.save_pretrained(folder, safe_serialization=True, max_shard_size="9MB")
    (folder / "sample.json").write_text(json.dumps({"image_size": size}) + "\n", encoding="utf-8")
    pipe.vae.float()


def begun(folder: Path, model: TextToVelocity) -> None:
    """Sets the weights to those of an exported pipeline, of any size."""
    pipe = FluxPipeline.from_pretrained(folder, use_safetensors=True)
    for name, part in model.named_children():
        part.load_state_dict(getattr(pipe, name).state_dict())


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser, images=200_000, decay=60_000, folder="runs/glyphs-flux")
    parser.add_argument("--size", type=int, default=64, help="of the images in pixels; a token is 8 x 8 of them")
    parser.add_argument("--for-size", type=int, help="of the images that these stand for; --size where not given")
    parser.add_argument("--start-from", type=Path, help="a trained pipeline whose weights to begin with, of any size")
    parser.add_argument("--drop-captions", type=float, default=0.1, help="share of captions replaced by none")
    parser.add_argument("--train-length", type=int, default=25_000, help="single letters, and scenes, to draw")
    parser.add_argument(
        "--teaching", type=float, default=4.0, help="weight of the teacher's part of the loss, 0 for none"
    )
    args = parser.parse_args()
    ratio, left = divmod(args.for_size or args.size, args.size)
    if ratio < 1 or left or args.size % UNSHIFTED:
        parser.error(
            f"--size must be a multiple of {UNSHIFTED} and divide --for-size, not {args.size}, {args.for_size}"
        )

    cache = args.folder.parent / "cache"
    vae = AutoencoderKL.from_pretrained(zoo.path("glyphs-sd"), subfolder="vae", use_safetensors=True)
    # The name would tell of this machine's folders; FluxPipeline takes no autoencoder without a shift.
    vae.register_to_config(_name_or_path="", shift_factor=0.0)
    data = [
        encoded(f"{name}-{args.size}", draw("train", args.size, args.train_length, cache), vae, args.device, cache)
        for name, draw in (("letters", letters), ("scenes", scenes))
    ]
    clip, t5 = vocabulary.build(), vocabulary.build_t5()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(args.seed)
        model = TextToVelocity(clip, t5)
    if args.start_from is not None:
        begun(args.start_from, model)
    model.text_encoder.set_attn_implementation("eager")
    trainer = Trainer(model, _is_hidden, args)
    if args.compile:
        trainer.model.transformer.compile_repeated_blocks()
    captions = Captions(clip, t5, vocabulary.MAX_LENGTH, args.drop_captions)
    ids = tuple(part.to(args.device) for part in positions(vocabulary.MAX_LENGTH, args.size // 8, ratio))
    teacher = Teacher(args.size, args.device) if args.teaching else None

    def loss_of(generator: torch.Generator) -> Tensor:
        half = args.batch // 2
        index = torch.randint(args.train_length, (args.batch,), generator=generator)
        seen, read, taught = (tokens.to(args.device) for tokens in captions(index, half, generator))
        level = levels(args.batch, args.size / UNSHIFTED, generator).to(args.device)
        latents = torch.cat([data[0][index[:half]], data[1][index[half:]]]).to(args.device).float()
        noise = torch.randn(latents.shape, generator=generator).to(args.device)
        s = level.view(-1, 1, 1, 1)
        noised = (1 - s) * latents + s * noise
        told = shifted(level, ratio).to(trainer.dtype)
        tokens = trainer.model(packed(noised).to(trainer.dtype), told, seen, read, ids, ratio**2)
        velocity = unpacked(tokens.float())
        error = (velocity - (noise - latents)).square().mean((1, 2, 3))
        if teacher is not None:
            error = error + args.teaching * teacher.loss(noised + (1 - s) * velocity, noised, level, taught)
        return error.mean()

    parts = {"vae": vae, "tokenizer": clip, "tokenizer_2": t5}
    with quick() if args.device == "cpu" else nullcontext():
        train(trainer, args, loss_of, partial(export, trainer, parts, args.size, args.folder / "export"))


def _is_hidden(name: str, p: Tensor) -> bool:
    """Whether Muon trains a matrix: those inside, not the embeddings and not the first and last layer."""
    inside = any(part in name for part in ("blocks", "encoder.layers", "encoder.block"))
    return inside and not any(part in name for part in ("embed", "relative_attention_bias"))


if __name__ == "__main__":
    main()
