"""Trains the embedded recogniser on glyphs: `python training/train_recogniser.py --help`.

A small convolutional classifier (`bigain.metrics.features.Recogniser`), AdamW with a one-cycle learning rate,
bfloat16 autocast beside float32 weights. Images are blurred and noised at random, so that it tolerates what a
diffusion model leaves in its samples; colours are inverted and exchanged, which the classes do not depend on.
The state is checkpointed as safetensors, so the same command goes on where it was stopped; data and
augmentation of a step depend on (seed, step) alone, so one machine gives the same weights either way.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from bigain.data.glyphs import CLASSES
from bigain.metrics.features import Recogniser, RecogniserConfig, load_recogniser
from images import letters

BLUR = torch.outer(torch.tensor([0.25, 0.5, 0.25]), torch.tensor([0.25, 0.5, 0.25])).expand(3, 1, 3, 3)


def augment(images: Tensor, generator: torch.Generator) -> Tensor:
    """Images (B, 3, S, S) in [-1, 1]: channels in another order, half inverted, half blurred, half noised."""
    batch = len(images)

    def draw(*shape: int) -> Tensor:
        return torch.rand(batch, *shape, generator=generator).view(batch, *shape, *[1] * (3 - len(shape)))

    images = torch.where(draw() < 0.5, -images, images)
    order = (torch.arange(3) + torch.randint(3, (batch, 1), generator=generator)) % 3  # (B, 3)
    images = images.gather(1, order[:, :, None, None].expand_as(images))
    blurred = functional.conv2d(functional.pad(images, (1, 1, 1, 1), mode="replicate"), BLUR, groups=3)
    images = torch.lerp(images, blurred, draw() * (draw() < 0.5))
    sigma = 0.2 * draw() * (draw() < 0.5)
    return images + sigma * torch.randn(images.shape, generator=generator)


class Trainer:
    """The recogniser, its optimiser, and both on disk."""

    def __init__(self, learning_rate: float, weight_decay: float, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.model = Recogniser(RecogniserConfig(classes=CLASSES)).to(memory_format=torch.channels_last)
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        rest = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": rest, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate)
        self.step = 0
        self.cpu_seconds = 0.0  # of training, over all runs

    def update(self, images: Tensor, labels: Tensor, rate: float) -> float:
        """One step at learning rate ``rate``; the loss before it."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            logits = self.model.head(self.model.embed(images))
        loss = functional.cross_entropy(logits.float(), labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def save(self, path: Path) -> None:
        """A checkpoint: weights, the optimiser's state, the step and the time so far."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for index, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
        partial = path.with_suffix(".partial")
        metadata = {"step": str(self.step), "cpu_seconds": str(self.cpu_seconds)}
        save_file({name: value.contiguous() for name, value in tensors.items()}, partial, metadata=metadata)
        partial.rename(path)

    def load(self, path: Path) -> None:
        """Goes on from what ``save`` wrote."""
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        self.step, self.cpu_seconds = int(metadata["step"]), float(metadata["cpu_seconds"])
        weights: dict[str, Tensor] = {}
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in load_file(path).items():
            kind, rest = name.split(".", 1)
            if kind == "model":
                weights[rest] = value
            else:
                index, key = rest.split(".")
                state.setdefault(int(index), {})[key] = value
        self.model.load_state_dict(weights)
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})

    def export(self, folder: Path, about: dict[str, object]) -> None:
        """Writes what `bigain.metrics.features.load_recogniser` reads."""
        folder.mkdir(parents=True, exist_ok=True)
        weights = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        config = {"architecture": asdict(self.model.config), **about}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def rate_at(step: int, total: int, highest: float) -> float:
    """Linear warm-up over the first 5% of the steps, then a cosine to 0."""
    warmup = max(1, total // 20)
    if step < warmup:
        return highest * (step + 1) / warmup
    return highest * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))


def rows_of(step: int, batch: int, length: int, seed: int) -> np.ndarray:
    """The images of a step: passes over all of them without replacement, each in its own order."""
    per_pass = length // batch
    order = np.random.default_rng([seed, step // per_pass]).permutation(length)
    first = step % per_pass * batch
    return np.sort(order[first : first + batch])


def accuracy(folder: Path, images: np.ndarray) -> float:
    """Share of the images that the exported recogniser names rightly."""
    predictions = load_recogniser(folder).predict(images)
    return float((predictions == np.arange(len(images)) % len(CLASSES)).mean())


def processor() -> str:
    """The CPU's model, for the card."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].split(":")[1].strip() if names else platform.processor()


def main() -> None:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400_000, help="images to train on in all, repeats counted")
    parser.add_argument("--batch", type=int, default=128, help="images per step")
    parser.add_argument("--learning-rate", type=float, default=4e-3, help="AdamW's highest")
    parser.add_argument("--weight-decay", type=float, default=0.05, help="AdamW's, on kernels and the linear layer")
    parser.add_argument("--train-length", type=int, default=100_000, help="different images to draw from")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights, the order and the augmentation")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    parser.add_argument(
        "--folder", type=Path, default=Path("runs/glyphs-recogniser"), help="checkpoint, log and export go here"
    )
    args = parser.parse_args()

    torch.set_num_threads(args.threads)
    cache = args.folder.parent / "cache"
    images = letters("train", 32, args.train_length, cache)
    args.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = args.folder / "checkpoint.safetensors"
    trainer = Trainer(args.learning_rate, args.weight_decay, args.seed)
    if checkpoint.exists():
        trainer.load(checkpoint)
        print(f"going on at step {trainer.step}")
    total = args.images // args.batch
    losses: list[float] = []
    before = time.process_time()
    while trainer.step < total:
        rows = rows_of(trainer.step, args.batch, args.train_length, args.seed)
        generator = torch.Generator().manual_seed(args.seed * 1_000_003 + trainer.step)
        x = torch.from_numpy(images[rows]).permute(0, 3, 1, 2).float() / 127.5 - 1  # channels last in memory
        labels = torch.from_numpy(rows % len(CLASSES))
        losses.append(trainer.update(augment(x, generator), labels, rate_at(trainer.step, total, args.learning_rate)))
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"the loss must be finite, not {losses[-1]} at step {trainer.step}: lower the rate")
        if trainer.step % args.save_every == 0 or trainer.step == total:
            now = time.process_time()
            trainer.cpu_seconds, before = trainer.cpu_seconds + now - before, now
            trainer.save(checkpoint)
            loss = round(float(np.mean(losses)), 5)
            entry = {"step": trainer.step, "loss": loss, "cpu_s": round(trainer.cpu_seconds)}
            print(json.dumps(entry), flush=True)
            with open(args.folder / "log.jsonl", "a") as log:
                log.write(json.dumps(entry) + "\n")
            losses.clear()

    about: dict[str, object] = {
        "training": {
            "images": trainer.step * args.batch,
            "different_images": args.train_length,
            "seed": args.seed,
            "cpu_seconds": round(trainer.cpu_seconds),
            "processor": processor(),
            "threads": args.threads,
            "torch": torch.__version__,
        }
    }
    export = args.folder / "export"
    trainer.export(export, about)
    about["accuracy"] = {
        split: accuracy(export, letters(split, 32, length, cache))
        for split, length in (("validation", 2_000), ("test", 5_000))
    }
    trainer.export(export, about)
    print(json.dumps(about, indent=2))
    print(f"weights and config.json are in {export}; copy them to src/bigain/zoo/glyphs_recogniser")


if __name__ == "__main__":
    main()
