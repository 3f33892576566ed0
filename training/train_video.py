"""Trains the embedded text-to-video model: `python training/train_video.py --help`.

A small Wan: self-attention over all tokens of a video, cross-attention to the text of a T5 encoder, rotary positions
in time, height and width, flow matching. Both networks train together, from scratch, on the latents of the autoencoder
that `train_video_autoencoder.py` trains: first on stills (`--frames 1`), then, with the weights of that run
(`--start-from`), on videos of one coloured letter that moves in a named direction. A tenth of the captions is empty,
for guidance. Frames of a video show much the same, so it is seen through more noise, and noise levels are shifted
(`--shift`). The whole `WanPipeline` is exported, in float16 and in files under 10 MB.
"""

from __future__ import annotations

import argparse
import json
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

import encoders
import tokenizer as vocabulary
from bigain.data.moving import FRAMES, MovingLetters
from bigain.run.files import fingerprint
from captions import VIDEO_WORDS, vary_moving
from images import videos
from train_video_autoencoder import SIZE, frames_first
from trainer import Trainer, options, train

LENGTH = 16  # tokens of text; the longest caption has 12
WAN: dict[str, Any] = dict(
    patch_size=(1, 2, 2),
    num_attention_heads=6,
    attention_head_dim=32,
    in_channels=4,
    out_channels=4,
    text_dim=encoders.WIDTH,
    freq_dim=128,
    ffn_dim=768,
    num_layers=8,
    rope_max_seq_len=64,
)


class TextToVideo(nn.Module):
    """Text encoder and transformer as one function, so that they train together."""

    def __init__(self, tokenizer: T5Tokenizer) -> None:
        super().__init__()
        self.text_encoder = UMT5EncoderModel(UMT5Config(**encoders.t5(tokenizer)))
        self.transformer = WanTransformer3DModel(**WAN)

    def forward(self, latents: Tensor, level: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """The velocity of latents (B, 4, T, h, w) at noise levels (B,), told by tokens (B, L) where the mask is 1."""
        told = self.text_encoder(tokens, mask)[0] * mask[..., None]  # zeros after the text, as the pipeline has them
        return self.transformer(latents, 1000 * level, told.to(latents.dtype), return_dict=False)[0]


def encoded(data: np.ndarray, vae: AutoencoderKLWan, device: str, folder: Path) -> Tensor:
    """Normalised latents (N, 4, T, h, w) of videos; float16, made once per autoencoder and kept on disk."""
    path = folder / f"latents-moving-{data.shape[1]}-{len(data)}-{fingerprint(vae)}.npy"
    if not path.exists():
        mean, deviation = (torch.tensor(x).view(-1, 1, 1, 1) for x in (vae.config.latents_mean, vae.config.latents_std))
        vae = vae.to(device)
        with torch.no_grad():
            parts = [
                (
                    (vae.encode(frames_first(data[i : i + 16]).to(device)).latent_dist.mean.cpu() - mean) / deviation
                ).half()
                for i in range(0, len(data), 16)
            ]
        partial_path = path.with_suffix(".partial.npy")
        np.save(partial_path, torch.cat(parts).numpy())
        partial_path.rename(path)
    return torch.from_numpy(np.load(path))


def levels(count: int, shift: float, generator: torch.Generator) -> Tensor:
    """Noise levels (count,) in (0, 1), one in each of as many equal spans, in random order, shifted."""
    uniform = (torch.randperm(count, generator=generator) + torch.rand(count, generator=generator)) / count
    return shift * uniform / (1 + (shift - 1) * uniform)


def export(
    trainer: Trainer, tokenizer: T5Tokenizer, vae: AutoencoderKLWan, args: argparse.Namespace, folder: Path
) -> None:
    """Writes the pipeline with the averaged weights, in float16 but for the text encoder."""
    model = TextToVideo(tokenizer)
    trainer.average_into(model)
    pipe = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=model.text_encoder,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=args.shift),
        transformer=model.transformer.half(),
    )
    pipe.save_pretrained(folder, safe_serialization=True, max_shard_size="9MB")
    usual = {"image_size": SIZE, "frames": args.frames}
    (folder / "sample.json").write_text(json.dumps(usual) + "\n", encoding="utf-8")


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser, images=100_000, decay=40_000, folder="runs/glyphs-video")
    parser.add_argument("--frames", type=int, default=FRAMES, help="1 for stills")
    parser.add_argument("--shift", type=float, default=1.0, help="of the noise levels; 1 leaves them uniform")
    parser.add_argument("--start-from", type=Path, help="a trained pipeline whose weights to begin with")
    parser.add_argument("--vae", type=Path, default=Path("runs/glyphs-video-vae/export"), help="the autoencoder")
    parser.add_argument("--drop-captions", type=float, default=0.1, help="share of captions replaced by none")
    parser.add_argument("--train-length", type=int, default=8_000, help="videos, or stills, to draw")
    args = parser.parse_args()

    cache = args.folder.parent / "cache"
    vae = AutoencoderKLWan.from_pretrained(args.vae, use_safetensors=True)
    vae.register_to_config(_name_or_path="")  # else the export would tell of this machine's folders
    data = encoded(videos("train", SIZE, args.frames, args.train_length, cache), vae, args.device, cache)
    layouts = MovingLetters("train", SIZE)
    tokenizer = vocabulary.build_t5(VIDEO_WORDS, LENGTH)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(args.seed)
        model = TextToVideo(tokenizer)
    if args.start_from is not None:
        pipe = WanPipeline.from_pretrained(args.start_from, use_safetensors=True)
        for name, part in model.named_children():
            part.load_state_dict(getattr(pipe, name).state_dict())
    trainer = Trainer(model, _is_hidden, args)
    forward = torch.compile(trainer.model) if args.compile else trainer.model
    slow = trainer.dtype == torch.bfloat16 and args.device == "cpu"  # to differentiate PyTorch's fused attention
    exact = partial(sdpa_kernel, SDPBackend.MATH) if slow else nullcontext

    def loss_of(generator: torch.Generator) -> Tensor:
        index = torch.randint(args.train_length, (args.batch,), generator=generator)
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        captions = [vary_moving(layouts.shows(i), args.frames > 1, rng) for i in index.tolist()]
        kept = rng.random(args.batch) >= args.drop_captions
        read = tokenizer(
            [caption if keep else "" for caption, keep in zip(captions, kept, strict=True)],
            padding="max_length", truncation=True, return_tensors="pt",
        ).to(args.device)  # fmt: skip
        level = levels(args.batch, args.shift, generator).to(args.device)
        latents = data[index].to(args.device).float()
        noise = torch.randn(latents.shape, generator=generator).to(args.device)
        s = level.view(-1, 1, 1, 1, 1)
        noised = ((1 - s) * latents + s * noise).to(trainer.dtype)
        with exact():
            velocity = forward(noised, level, read.input_ids, read.attention_mask)
        return (velocity.float() - (noise - latents)).square().mean()

    train(trainer, args, loss_of, partial(export, trainer, tokenizer, vae, args, args.folder / "export"))


def _is_hidden(name: str, p: Tensor) -> bool:
    """Whether Muon trains a matrix: those of the blocks, not what gives positions."""
    return "block" in name and "relative_attention_bias" not in name


if __name__ == "__main__":
    main()
