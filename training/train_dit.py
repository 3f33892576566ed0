"""Trains the embedded class-conditional DiT on glyphs: `python training/train_dit.py --help`.

A `DiTTransformer2DModel` on pixels, noise prediction, cosine noise schedule. The weights run in bfloat16
beside float32 master weights; hidden matrices are trained with Muon (Jordan 2024), the rest with AdamW.
An exponential moving average of the master weights is what ships. The state is checkpointed as
safetensors, so the same command goes on where it was stopped; data, noise and timesteps of a step depend
on (seed, step) alone.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor
from torch.nn.functional import avg_pool2d

from bigain.data.glyphs import CLASSES
from images import letters, to_pixels
from trainer import Trainer, options, train


def config(size: int) -> dict[str, Any]:
    """Of the model for images of ``size`` pixels."""
    return dict(
        num_attention_heads=2,
        attention_head_dim=64,
        activation_fn="gelu",  # exact: PyTorch's CPU kernel of the approximate one is several times slower in bfloat16
        in_channels=3,
        out_channels=3,
        num_layers=6,
        sample_size=size,
        patch_size=2,
        num_embeds_ada_norm=len(CLASSES),
    )


def scheduler(size: int, cosine_at: int = 32) -> DDIMScheduler:
    """The scheduler that ships with the model: cosine betas, noise prediction.

    More pixels show a letter through more noise. Away from ``cosine_at`` pixels the cosine schedule is therefore
    shifted, so that the image averaged down to these has the same ratio of signal to noise at the same timestep
    (Hoogeboom et al. 2023, arXiv 2301.11093).
    """
    cosine = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="epsilon", clip_sample=True, timestep_spacing="trailing"
    )
    if size == cosine_at:
        return cosine
    signal = cosine.alphas_cumprod.double()
    shifted = signal / (signal + (size / cosine_at) ** 2 * (1 - signal))
    before = torch.cat([torch.ones(1, dtype=torch.float64), shifted[:-1]])
    return DDIMScheduler.from_config(cosine.config, trained_betas=(1 - shifted / before).tolist())


def export(trainer: Trainer, size: int, cosine_at: int, folder: Path) -> None:
    """Writes the averaged weights and the scheduler in diffusers' format."""
    model = trainer.average_into(DiTTransformer2DModel(**config(size)))
    model.save_pretrained(folder / "transformer", safe_serialization=True)
    scheduler(size, cosine_at).save_pretrained(folder / "scheduler")
    labels = {name: label for label, name in enumerate(CLASSES)}
    (folder / "labels.json").write_text(json.dumps(labels) + "\n", encoding="utf-8")


class Teacher:
    """A trained model of smaller images, to follow where it knows the noised image averaged down to its size.

    Averaged over squares of ``factor`` pixels a noised image is a noised image again, with 1 / ``factor`` of the noise.
    So the teacher's prediction is about the mean of what ours, averaged down, is to be: the target that the noise
    itself is, without its chance, which learns the large shapes in a fraction of the images.
    """

    def __init__(self, folder: Path, size: int, alphas: Tensor) -> None:
        model = DiTTransformer2DModel.from_pretrained(folder, subfolder="transformer")
        self.factor, left = divmod(size, model.config.sample_size)
        if left or self.factor < 2:
            raise ValueError(f"the teacher's images must be a fraction of {size} pixels, not those of {folder}")
        averaged = DDIMScheduler.from_pretrained(folder, subfolder="scheduler").alphas_cumprod
        if not torch.allclose(_averaged(alphas.cpu(), self.factor), averaged, rtol=1e-2, atol=1e-6):
            raise ValueError(f"the noise levels of {folder} must be those of averaged images here: give --cosine-at")
        self.alphas = alphas
        self.model = model.to(alphas.device, torch.bfloat16).eval().requires_grad_(False)

    def loss(self, prediction: Tensor, noised: Tensor, t: Tensor, labels: Tensor) -> Tensor:
        """(B,) The squared error of the averaged ``prediction``, in units of the averaged noise's variance."""
        a = self.alphas[t].view(-1, 1, 1, 1)
        scale = (a + (1 - a) / self.factor**2).sqrt()
        small = avg_pool2d(noised.float(), self.factor) / scale
        target = self.model(small.bfloat16(), timestep=t, class_labels=labels, return_dict=False)[0].float()
        return (avg_pool2d(prediction, self.factor) * self.factor - target).square().mean((1, 2, 3))


def _averaged(alphas: Tensor, factor: int) -> Tensor:
    """The share of signal in a noised image that is averaged over squares of ``factor`` pixels."""
    return alphas / (alphas + (1 - alphas) / factor**2)


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options(parser, images=250_000, decay=122_000, folder="runs/glyphs-dit")
    parser.add_argument("--size", type=int, default=32, help="of the images in pixels; 64 gives 32 x 32 tokens")
    parser.add_argument("--start-from", type=Path, help="a trained model whose weights to begin with, of any size")
    parser.add_argument("--drop-labels", type=float, default=0.1, help="share of labels replaced by the null class")
    parser.add_argument("--train-length", type=int, default=100_000)
    parser.add_argument("--cosine-at", type=int, default=32, help="image size of the unshifted cosine schedule")
    parser.add_argument("--weight", type=float, default=1.0, help="of a timestep at most: 1 / its signal up to this")
    parser.add_argument("--teacher", type=Path, help="a trained model of smaller images, to follow at low frequencies")
    parser.add_argument("--teaching", type=float, default=4.0, help="weight of the teacher's part of the loss")
    args = parser.parse_args()

    images = letters("train", args.size, args.train_length, args.folder.parent / "cache")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(args.seed)
        model = DiTTransformer2DModel(**config(args.size))
    if args.start_from is not None:
        start = DiTTransformer2DModel.from_pretrained(args.start_from, subfolder="transformer")
        missing, unexpected = model.load_state_dict(dict(start.named_parameters()), strict=False)
        if unexpected or set(missing) - {"pos_embed.pos_embed"}:  # the positions follow from the size
            raise ValueError(f"{args.start_from} must be the same model, not lack {missing} and have {unexpected}")
    model.eval()  # the labels are dropped here, not by the model
    if args.device == "cpu":  # PyTorch's fused attention is slow to differentiate on CPU
        for block in model.transformer_blocks:
            block.attn1.set_processor(AttnProcessor())
    trainer = Trainer(model, lambda name, p: "transformer_blocks" in name and "embed" not in name, args)
    alphas = scheduler(args.size, args.cosine_at).alphas_cumprod.to(args.device)
    teacher = None if args.teacher is None else Teacher(args.teacher, args.size, alphas)
    forward = torch.compile(trainer.model) if args.compile else trainer.model

    def loss_of(generator: torch.Generator) -> Tensor:
        index = torch.randint(len(images), (args.batch,), generator=generator)
        # Stratified timesteps: one in each of `batch` equal spans, which lowers the gradient's variance.
        t = (torch.arange(args.batch) + torch.rand(args.batch, generator=generator)) / args.batch * len(alphas)
        t = t.long().to(args.device)
        noise = torch.randn(args.batch, 3, args.size, args.size, generator=generator).to(args.device)
        drop = torch.rand(args.batch, generator=generator) < args.drop_labels
        labels = torch.where(drop, len(CLASSES), index % len(CLASSES)).to(args.device)
        x0 = to_pixels(images[index.numpy()]).to(args.device)
        a = alphas[t].view(-1, 1, 1, 1)
        noised = (a.sqrt() * x0 + (1 - a).sqrt() * noise).to(trainer.dtype)
        prediction = forward(noised, timestep=t, class_labels=labels, return_dict=False)[0]
        error = (prediction.float() - noise).square().mean((1, 2, 3))
        if teacher is not None:
            error = error + args.teaching * teacher.loss(prediction.float(), noised, t, labels)
        return (error / alphas[t].clamp(min=1 / args.weight)).mean()

    train(trainer, args, loss_of, partial(export, trainer, args.size, args.cosine_at, args.folder / "export"))


if __name__ == "__main__":
    main()
