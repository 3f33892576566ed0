"""Trains the embedded text-to-video model: `python training/train_video.py --help`.

A small Wan: self-attention over all tokens of a video, cross-attention to the text of a T5 encoder, rotary positions
in time, height and width, flow matching. Both networks train together, from scratch, on the latents of the autoencoder
that `train_video_autoencoder.py` trains: first on stills (`--frames 1`), then, with the weights of that run
(`--start-from`), on videos of one coloured letter that moves in a named direction. A tenth of the captions is empty,
for guidance. The transformer attends to padding as to text, and where captions are padded it learns to look at nothing
else, before it learns what letters are called: so they are not, until the last run (`--pad`).

Frames of a video show much the same, so it is seen through more noise, as large images are, and noise levels are
shifted with the number of tokens. With `--for-size` and `--for-frames` small videos, or stills, stand for those that
the model is for: tokens lie as far apart as what they stand for, and the model is told the noise level at which this
shows as much. The whole `WanPipeline` is exported, in float16 and in files under 10 MB.
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
from transformers import T5Tokenizer, UMT5Config, UMT5EncoderModel

import encoders
import tokenizer as vocabulary
from attention import quick
from bigain.data.moving import FRAMES, MovingLetters
from bigain.run.files import fingerprint
from captions import VIDEO_WORDS, of_moving
from images import videos
from levels import levels, shifted
from train_video_autoencoder import SIZE, frames_first
from trainer import Trainer, options, train

UNSHIFTED = 32  # pixels of a still whose noise levels are uniform: it has as many latents as 64 have in train_flux.py
LENGTH = 12  # tokens of text, as many as the longest caption has
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


class Spaced(nn.Module):
    """Rotary positions ``time`` and ``space`` apart, in the place of the ones that a transformer has."""

    def __init__(self, rope: nn.Module, time: int, space: int) -> None:
        super().__init__()
        self.rope, self.time, self.space = rope, time, space

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines (1, tokens, 1, D), for latents (B, C, T, h, w)."""
        _, channels, frames, height, width = latents.shape
        frames, height, width = (frames - 1) * self.time + 1, height * self.space, width * self.space
        whole = self.rope(latents.new_empty(1, channels, frames, height, width))
        grid, apart = (frames, height // 2, width // 2), slice(None, None, self.space)
        return tuple(part.unflatten(1, grid)[:, :: self.time, apart, apart].flatten(1, 3) for part in whole)


class TextToVideo(nn.Module):
    """Text encoder and transformer as one function, so that they train together."""

    def __init__(self, tokenizer: T5Tokenizer) -> None:
        super().__init__()
        self.text_encoder = UMT5EncoderModel(UMT5Config(**encoders.t5(tokenizer)))
        self.transformer = WanTransformer3DModel(**WAN)

    def forward(self, latents: Tensor, level: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """The velocity of latents (B, 4, T, h, w), told by tokens (B, L) where the mask is 1.

        ``level`` is the noise level of a video (B,), or of each frame (B, T).
        """
        told = self.text_encoder(tokens, mask)[0] * mask[..., None]  # zeros after the text, as the pipeline has them
        if level.ndim == 2:  # the transformer has one of each token then
            _, height, width = self.transformer.config.patch_size
            level = level.repeat_interleave(latents[0, 0, 0, ::height, ::width].numel(), dim=1)
        return self.transformer(latents, 1000 * level, told.to(latents.dtype), return_dict=False)[0]


def encoded(data: np.ndarray, vae: AutoencoderKLWan, device: str, folder: Path) -> Tensor:
    """Normalised latents (N, 4, T, h, w) of videos; float16, made once per autoencoder and kept on disk.

    Each frame is encoded alone, as the autoencoder sees it, so that there may be any number of frames.
    """
    count, frames, size = data.shape[:3]
    path = folder / f"latents-moving-{size}-{frames}-{count}-{fingerprint(vae)}.npy"
    if not path.exists():
        mean, deviation = (torch.tensor(x).view(-1, 1, 1, 1) for x in (vae.config.latents_mean, vae.config.latents_std))
        vae = vae.to(device)
        with torch.no_grad():
            parts = []
            for i in range(0, count, 16):
                stills = frames_first(data[i : i + 16].reshape(-1, 1, size, size, 3))
                latents = (vae.encode(stills.to(device)).latent_dist.mean.cpu() - mean) / deviation
                parts.append(latents.squeeze(2).unflatten(0, (-1, frames)).transpose(1, 2).half())
        partial_path = path.with_suffix(".partial.npy")
        np.save(partial_path, torch.cat(parts).numpy())
        partial_path.rename(path)
    return torch.from_numpy(np.load(path))


def export(
    trainer: Trainer, tokenizer: T5Tokenizer, vae: AutoencoderKLWan, shift: float, usual: dict[str, int], folder: Path
) -> None:
    """Writes the pipeline with the averaged weights, in float16 but for the text encoder."""
    model = TextToVideo(tokenizer)
    trainer.average_into(model)
    pipe = WanPipeline(
        tokenizer=tokenizer,
        text_encoder=model.text_encoder,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=shift),
        transformer=model.transformer.half(),
    )
    pipe.save_pretrained(folder, safe_serialization=True, max_shard_size="9MB")
    (folder / "sample.json").write_text(json.dumps(usual) + "\n", encoding="utf-8")


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser, images=100_000, decay=40_000, folder="runs/glyphs-video")
    parser.set_defaults(muon_rate=0.008)  # more, and the loss stands still
    parser.add_argument("--frames", type=int, default=FRAMES, help="1 for stills")
    parser.add_argument("--size", type=int, default=SIZE, help="of a frame in pixels; a token is 4 x 4 of them")
    parser.add_argument("--for-size", type=int, help="of the frames that these stand for; --size where not given")
    parser.add_argument("--for-frames", type=int, help="that these stand for; --frames where not given")
    parser.add_argument("--shift", type=float, help="of the noise levels; that of the size and the frames if left out")
    parser.add_argument("--start-from", type=Path, help="a trained pipeline whose weights to begin with")
    parser.add_argument("--vae", type=Path, default=Path("runs/glyphs-video-vae/export"), help="the autoencoder")
    parser.add_argument("--pad", action="store_true", help="captions to full length, as the pipeline does: at the end")
    parser.add_argument(
        "--apart", type=float, default=0.0, help="share of batches whose frames have levels of their own"
    )
    parser.add_argument("--drop-captions", type=float, default=0.1, help="share of captions replaced by none")
    parser.add_argument("--train-length", type=int, default=8_000, help="videos, or stills, to draw")
    args = parser.parse_args()
    space, left = divmod(args.for_size or args.size, args.size)
    if space < 1 or left:
        parser.error(f"--size must divide --for-size, not {args.size}, {args.for_size}")
    frames = args.for_frames or args.frames
    time, left = divmod(frames - 1, args.frames - 1) if args.frames > 1 else (1, 0)
    if time < 1 or left:
        parser.error(f"--frames after the first must divide those of --for-frames, not {args.frames}, {frames}")
    shift = args.size / UNSHIFTED * args.frames**0.5
    drawn = shift if args.shift is None else args.shift
    if drawn <= 0:
        parser.error(f"--shift must be above 0, not {args.shift}")
    if not 0 <= args.apart <= (args.frames > 1):
        parser.error(f"--apart must be from 0 to 1, and 0 for stills, not {args.apart}")
    more = space * (frames / args.frames) ** 0.5

    cache = args.folder.parent / "cache"
    vae = AutoencoderKLWan.from_pretrained(args.vae, use_safetensors=True)
    vae.register_to_config(_name_or_path="")  # else the export would tell of this machine's folders
    data = encoded(videos("train", args.size, args.frames, args.train_length, cache), vae, args.device, cache)
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
    trainer.model.transformer.rope = Spaced(trainer.model.transformer.rope, time, space)
    if args.compile:
        trainer.model.transformer.compile_repeated_blocks()

    def loss_of(generator: torch.Generator) -> Tensor:
        index = torch.randint(args.train_length, (args.batch,), generator=generator)
        rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
        # Captions of a batch are alike in length, so little is padded.
        coins = (rng.random(2) < (0.5, 0.9)).tolist()
        captions = [of_moving(layouts.shows(i), args.frames > 1, *coins) for i in index.tolist()]
        kept = rng.random(args.batch) >= args.drop_captions
        read = tokenizer(
            [caption if keep else "" for caption, keep in zip(captions, kept, strict=True)],
            padding="max_length" if args.pad else True, truncation=True, return_tensors="pt",
        ).to(args.device)  # fmt: skip
        each = args.frames if rng.random() < args.apart else 1
        level = levels(args.batch * each, drawn, generator).view(args.batch, each).to(args.device)
        latents = data[index].to(args.device).float()
        noise = torch.randn(latents.shape, generator=generator).to(args.device)
        s = level[:, None, :, None, None]
        noised = ((1 - s) * latents + s * noise).to(trainer.dtype)
        told = shifted(level, more).squeeze(1)
        velocity = trainer.model(noised, told, read.input_ids, read.attention_mask)
        return (velocity.float() - (noise - latents)).square().mean()

    usual = {"image_size": args.size, "frames": args.frames}
    with quick() if args.device == "cpu" else nullcontext():
        train(trainer, args, loss_of, partial(export, trainer, tokenizer, vae, shift, usual, args.folder / "export"))


def _is_hidden(name: str, p: Tensor) -> bool:
    """Whether Muon trains a matrix: those of the transformer's blocks. Under it the text encoder's output explodes."""
    return name.startswith("transformer.blocks.")


if __name__ == "__main__":
    main()
