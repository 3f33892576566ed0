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
import math
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from diffusers import DDIMScheduler, DiTTransformer2DModel
from diffusers.models.attention_processor import AttnProcessor
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from bigain.data.glyphs import CLASSES, Glyphs

CONFIG = dict(
    num_attention_heads=2,
    attention_head_dim=64,
    activation_fn="gelu",  # exact: PyTorch's CPU kernel for the tanh approximation is several times slower in bfloat16
    in_channels=3,
    out_channels=3,
    num_layers=6,
    sample_size=32,
    patch_size=2,
    num_embeds_ada_norm=len(CLASSES),
)


def scheduler() -> DDIMScheduler:
    """The scheduler that ships with the model: cosine betas, noise prediction."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="epsilon", clip_sample=True, timestep_spacing="trailing"
    )


def _draw(span: tuple[str, int, int, int]) -> np.ndarray:
    split, size, first, last = span
    data = Glyphs(split, size)
    return np.stack([data[i][0] for i in range(first, last)])


def cached_images(split: str, size: int, length: int, folder: Path) -> np.ndarray:
    """The first ``length`` images of a split as uint8 (length, size, size, 3), drawn once and kept on disk."""
    path = folder / f"glyphs-{split}-{size}-{length}.npy"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        spans = [(split, size, i, min(i + 500, length)) for i in range(0, length, 500)]
        with ProcessPoolExecutor() as pool:
            images = np.concatenate(list(pool.map(_draw, spans)))
        partial = path.with_suffix(".partial.npy")
        np.save(partial, images)
        partial.rename(path)
    return np.load(path, mmap_mode="r")


class Trainer:
    """bfloat16 model, float32 masters, their average, and the optimisers over the masters."""

    def __init__(self, device: str, learning_rate: float, muon_rate: float, ema_decay: float) -> None:
        torch.manual_seed(0)
        model = DiTTransformer2DModel(**CONFIG)
        self.device = device
        self.masters = {name: p.detach().clone().to(device) for name, p in model.named_parameters()}
        self.ema = {name: p.clone() for name, p in self.masters.items()}
        self.model = model.to(device, torch.bfloat16).eval()  # eval: the labels are dropped here, not by the model
        if device == "cpu":  # PyTorch's fused attention is slow to differentiate on CPU
            for block in self.model.transformer_blocks:
                block.attn1.set_processor(AttnProcessor())
        self.ema_decay = ema_decay
        for p in self.masters.values():
            p.requires_grad_(True)
        hidden = [
            p
            for name, p in self.masters.items()
            if p.ndim == 2 and "transformer_blocks" in name and "embed" not in name
        ]
        rest = [p for p in self.masters.values() if all(p is not h for h in hidden)]
        self.optimizers = [torch.optim.AdamW(rest, lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.0)]
        if muon_rate > 0:
            self.optimizers.append(torch.optim.Muon(hidden, lr=muon_rate, weight_decay=0.01, momentum=0.95))
        else:
            self.optimizers[0].add_param_group({"params": hidden})
        self.rates = [[g["lr"] for g in o.param_groups] for o in self.optimizers]
        self.step = 0

    def update(self, rate_scale: float) -> None:
        """One step of all optimisers from the model's gradients, with their learning rates times ``rate_scale``."""
        for name, p in self.model.named_parameters():
            self.masters[name].grad = p.grad.float()
            p.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters.values(), 1.0)
        for optimizer, rates in zip(self.optimizers, self.rates, strict=True):
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate * rate_scale
            optimizer.step()
        self.step += 1
        decay = min(self.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.ema.values()), list(self.masters.values()), 1 - decay)
            torch._foreach_copy_(list(self.model.parameters()), list(self.masters.values()))

    def save(self, path: Path) -> None:
        """Writes masters, average, optimiser state and step; a file that is there is replaced whole or not at all."""
        tensors = {f"master.{n}": p.detach() for n, p in self.masters.items()}
        tensors |= {f"ema.{n}": p for n, p in self.ema.items()}
        for number, optimizer in enumerate(self.optimizers):
            for index, state in optimizer.state_dict()["state"].items():
                for key, value in state.items():
                    tensors[f"optimizer.{number}.{index}.{key}"] = torch.as_tensor(value)
        partial = path.with_suffix(".partial")
        save_file({k: v.contiguous().clone() for k, v in tensors.items()}, partial, metadata={"step": str(self.step)})
        partial.rename(path)

    def load(self, path: Path) -> None:
        """The reverse of ``save``."""
        with safe_open(path, "pt") as file:
            self.step = int(file.metadata()["step"])
        tensors = load_file(path)
        with torch.no_grad():
            for name, p in self.model.named_parameters():
                self.masters[name].copy_(tensors[f"master.{name}"])
                self.ema[name].copy_(tensors[f"ema.{name}"])
                p.copy_(self.masters[name])
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer.{number}."):
                    _, _, index, field = key.split(".")
                    state.setdefault(int(index), {})[field] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

    def export(self, folder: Path) -> None:
        """Writes the averaged weights and the scheduler in diffusers' format."""
        model = DiTTransformer2DModel(**CONFIG)
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(self.ema[name])
        model.save_pretrained(folder / "transformer", safe_serialization=True)
        scheduler().save_pretrained(folder / "scheduler")


def rate_at(images: int, total: int, warmup: int, decay: int) -> float:
    """Linear warm-up, constant, linear decay over the last ``decay`` images."""
    return min(1.0, (images + 1) / warmup, max(0.0, (total - images) / decay))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=250_000, help="images to train on in all")
    parser.add_argument("--decay-images", type=int, default=122_000, help="over the last of which the rate falls to 0")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="AdamW's")
    parser.add_argument("--muon-rate", type=float, default=0.02, help="Muon's; 0 trains everything with AdamW")
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--drop-labels", type=float, default=0.1, help="share of labels replaced by the null class")
    parser.add_argument("--train-length", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--folder", type=Path, default=Path("runs/glyphs-dit"), help="checkpoint, log and export")
    args = parser.parse_args()

    images = cached_images("train", CONFIG["sample_size"], args.train_length, args.folder.parent / "cache")
    trainer = Trainer(args.device, args.learning_rate, args.muon_rate, args.ema)
    args.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = args.folder / "checkpoint.safetensors"
    if checkpoint.exists():
        trainer.load(checkpoint)
        print(f"going on at step {trainer.step}")
    alphas = scheduler().alphas_cumprod.to(args.device)
    forward = torch.compile(trainer.model) if args.compile else trainer.model
    losses: list[float] = []
    started, since = time.time(), trainer.step
    while trainer.step * args.batch < args.images:
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + trainer.step)
        index = torch.randint(len(images), (args.batch,), generator=generator)
        # Stratified timesteps: one in each of `batch` equal spans, which lowers the gradient's variance.
        t = (torch.arange(args.batch) + torch.rand(args.batch, generator=generator)) / args.batch * 1000
        t = t.long().to(args.device)
        shape = (args.batch, 3, CONFIG["sample_size"], CONFIG["sample_size"])
        noise = torch.randn(shape, generator=generator).to(args.device)
        drop = torch.rand(args.batch, generator=generator) < args.drop_labels
        labels = torch.where(drop, len(CLASSES), index % len(CLASSES)).to(args.device)
        x0 = torch.from_numpy(images[index.numpy()]).to(args.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        a = alphas[t].view(-1, 1, 1, 1)
        noised = (a.sqrt() * x0 + (1 - a).sqrt() * noise).bfloat16()
        prediction = forward(noised, timestep=t, class_labels=labels, return_dict=False)[0]
        loss = (prediction.float() - noise).square().mean()
        loss.backward()
        trainer.update(rate_at(trainer.step * args.batch, args.images, 200 * args.batch, args.decay_images))
        losses.append(loss.item())
        if trainer.step % 100 == 0:
            rate = (trainer.step - since) * args.batch / (time.time() - started)
            entry = {
                "step": trainer.step,
                "images": trainer.step * args.batch,
                "loss": round(float(np.mean(losses)), 5),
                "images_per_second": round(rate, 1),
            }
            print(json.dumps(entry), flush=True)
            with open(args.folder / "log.jsonl", "a") as log:
                log.write(json.dumps(entry) + "\n")
            losses.clear()
        if trainer.step % 250 == 0:
            trainer.save(checkpoint)
            trainer.export(args.folder / "export")
        if not math.isfinite(loss.item()):
            raise RuntimeError(
                f"the loss is {loss.item()} at step {trainer.step}; lower --learning-rate or --muon-rate"
            )
    trainer.save(checkpoint)
    trainer.export(args.folder / "export")
    print(f"done: {trainer.step} steps in this and earlier runs, weights in {args.folder / 'export'}")


if __name__ == "__main__":
    main()
