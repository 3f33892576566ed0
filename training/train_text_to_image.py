"""Trains the embedded text-to-image model: `python training/train_text_to_image.py --help`.

A latent diffusion model of the make of Stable Diffusion 2: a CLIP text encoder and a U-Net with cross-attention, both
from scratch and together, on the latents of the autoencoder that `train_autoencoder.py` trains. Half of a batch shows
one letter, "a photo of the letter A"; the other half shows scenes of several, with captions that name some or all of
the letters, with or without their colours and places. A tenth of the captions is empty, for guidance. The whole
`StableDiffusionPipeline` is exported, in float16 and in files under 10 MB.
"""

from __future__ import annotations

import argparse
import copy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn
from transformers import CLIPTokenizer

import encoders
import tokenizer as vocabulary
from bigain.data.glyphs import CLASSES
from bigain.data.prompts import LETTER
from bigain.data.scenes import Scenes
from bigain.run.files import fingerprint
from captions import vary
from images import letters, scenes, to_pixels
from train_autoencoder import SIZE
from trainer import Trainer, options, train

UNET: dict[str, Any] = dict(
    sample_size=16,
    in_channels=4,
    out_channels=4,
    down_block_types=("CrossAttnDownBlock2D",) * 2,
    up_block_types=("CrossAttnUpBlock2D",) * 2,
    block_out_channels=(64, 128),
    layers_per_block=1,
    norm_num_groups=16,
    attention_head_dim=(2, 4),  # diffusers' old name for the number of heads
    cross_attention_dim=encoders.WIDTH,
    use_linear_projection=True,
)


def scheduler() -> EulerDiscreteScheduler:
    """The scheduler that ships with the model: Stable Diffusion's betas, noise prediction."""
    return EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, timestep_spacing="trailing"
    )


class TextToNoise(nn.Module):
    """Text encoder and U-Net as one function, so that they train together."""

    def __init__(self, tokenizer: CLIPTokenizer) -> None:
        super().__init__()
        self.text_encoder = encoders.clip(tokenizer, layers=3)
        self.unet = UNet2DConditionModel(**UNET)

    def forward(self, latents: Tensor, timestep: Tensor, tokens: Tensor) -> Tensor:
        """The noise in latents (B, 4, 16, 16) at ``timestep`` (B,), described by tokens (B, L)."""
        states = self.text_encoder(tokens)[0]
        return self.unet(latents, timestep, encoder_hidden_states=states, return_dict=False)[0]


def encoded(name: str, images: np.ndarray, vae: AutoencoderKL, device: str, folder: Path) -> Tensor:
    """Latents (N, 4, 16, 16) of images, of unit variance; float16, made once per autoencoder and kept on disk."""
    path = folder / f"latents-{name}-{len(images)}-{fingerprint(vae)}.npy"
    if not path.exists():
        encoder = copy.deepcopy(vae).to(device, torch.bfloat16, memory_format=torch.channels_last)
        with torch.no_grad():
            parts = [
                encoder.encode(to_pixels(images[i : i + 64]).to(device, torch.bfloat16)).latent_dist.mean.float().cpu()
                for i in range(0, len(images), 64)
            ]
        partial_path = path.with_suffix(".partial.npy")
        np.save(partial_path, (torch.cat(parts) * vae.config.scaling_factor).half().numpy())
        partial_path.rename(path)
    return torch.from_numpy(np.load(path))


def export(trainer: Trainer, tokenizer: CLIPTokenizer, vae: AutoencoderKL, folder: Path) -> None:
    """Writes the pipeline with the averaged weights, in float16.

    The text encoder stays in float32: transformers opens a model in the dtype that its config names, diffusers in
    float32, and a pipeline that is opened without a dtype must fit together.
    """
    model = TextToNoise(tokenizer)
    trainer.average_into(model)
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=tokenizer,
        unet=model.unet,
        scheduler=scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(torch.float16)
    pipe.text_encoder.float()
    pipe.save_pretrained(folder, safe_serialization=True, max_shard_size="9MB")


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser, images=200_000, decay=100_000, folder="runs/glyphs-sd")
    parser.add_argument("--vae", type=Path, default=Path("runs/glyphs-vae/export"), help="the trained autoencoder")
    parser.add_argument("--drop-captions", type=float, default=0.1, help="share of captions replaced by none")
    parser.add_argument("--train-length", type=int, default=25_000, help="single letters, and scenes, to draw")
    args = parser.parse_args()

    cache = args.folder.parent / "cache"
    vae = AutoencoderKL.from_pretrained(args.vae)
    vae.register_to_config(_name_or_path="")  # else the export would tell of this machine's folders
    data = [
        encoded(name, draw("train", SIZE, args.train_length, cache), vae, args.device, cache)
        for name, draw in (("letters", letters), ("scenes", scenes))
    ]
    layouts = Scenes("train", SIZE)
    tokenizer = vocabulary.build()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(args.seed)
        model = TextToNoise(tokenizer).to(memory_format=torch.channels_last)
    if args.device == "cpu":  # PyTorch's fused attention is slow to differentiate on CPU
        model.unet.set_attn_processor(AttnProcessor())
        model.text_encoder.set_attn_implementation("eager")
    trainer = Trainer(model, _is_hidden, args)
    forward = torch.compile(trainer.model) if args.compile else trainer.model
    alphas = scheduler().alphas_cumprod.to(args.device)

    def loss_of(generator: torch.Generator) -> Tensor:
        half = args.batch // 2
        index = torch.randint(args.train_length, (args.batch,), generator=generator)
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        captions = [LETTER.format(CLASSES[i % len(CLASSES)]) for i in index[:half].tolist()]
        captions += [vary(layouts.letters(i), rng) for i in index[half:].tolist()]
        dropped = rng.random(args.batch) < args.drop_captions
        captions = ["" if drop else caption for caption, drop in zip(captions, dropped, strict=True)]
        tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
        # Stratified timesteps: one in each of `batch` equal spans, in random order over the two halves.
        spans = torch.randperm(args.batch, generator=generator) + torch.rand(args.batch, generator=generator)
        t = (spans / args.batch * len(alphas)).long().to(args.device)
        latents = torch.cat([data[0][index[:half]], data[1][index[half:]]]).to(args.device).float()
        noise = torch.randn(latents.shape, generator=generator).to(args.device)
        a = alphas[t].view(-1, 1, 1, 1)
        noised = (a.sqrt() * latents + (1 - a).sqrt() * noise).to(trainer.dtype, memory_format=torch.channels_last)
        return (forward(noised, t, tokens.to(args.device)).float() - noise).square().mean()

    train(trainer, args, loss_of, partial(export, trainer, tokenizer, vae, args.folder / "export"))


def _is_hidden(name: str, p: Tensor) -> bool:
    """Whether Muon trains a matrix: those inside, not the embeddings and not the first and last convolution."""
    return not any(part in name for part in ("embedding", "conv_in", "conv_out"))


if __name__ == "__main__":
    main()
