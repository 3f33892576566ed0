"""What the diffusion models' training programs share: float32 masters, their average, checkpoints, the loop."""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


def rate_at(images: int, total: int, warmup: int, decay: int) -> float:
    """Linear warm-up, constant, linear decay over the last ``decay`` images."""
    return min(1.0, (images + 1) / warmup, max(0.0, (total - images) / decay))


class Trainer:
    """A model in `--dtype`, its weights once more in float32, their moving average, and the optimisers over them.

    Matrices that ``hidden`` picks are trained with Muon (Jordan 2024), convolutions among them as matrices of
    (outputs, inputs · kernel); everything else with AdamW.

    Args:
        model: its parameters are set to what a checkpoint holds, or trained from what they are.
        hidden: whether Muon trains the parameter of this name.
        args: of `options`.
    """

    def __init__(self, model: nn.Module, hidden: Callable[[str, Tensor], bool], args: argparse.Namespace) -> None:
        self.device = args.device
        self.dtype: torch.dtype = getattr(torch, args.dtype)
        masters = {name: _matrix(p.detach().float()).clone() for name, p in model.named_parameters()}
        self.masters = {name: p.to(self.device) for name, p in masters.items()}
        self.ema = {name: p.clone() for name, p in self.masters.items()}
        self.model = model.to(self.device, self.dtype)
        self.ema_decay = args.ema
        for p in self.masters.values():
            p.requires_grad_(True)
        chosen = {name for name, p in self.masters.items() if args.muon_rate > 0 and p.ndim == 2 and hidden(name, p)}
        rest = [p for name, p in self.masters.items() if name not in chosen]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(rest, lr=args.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)
        ]
        if chosen:
            matrices = [self.masters[name] for name in self.masters if name in chosen]
            self.optimizers.append(torch.optim.Muon(matrices, lr=args.muon_rate, weight_decay=0.01, momentum=0.95))
        self.rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]
        self.step = 0

    def update(self, rate_scale: float) -> None:
        """One step of all optimisers from the model's gradients, with their learning rates times ``rate_scale``."""
        for name, p in self.model.named_parameters():
            if p.grad is None:
                raise RuntimeError(f"{name} has no gradient: every parameter must take part in the loss")
            self.masters[name].grad = _matrix(p.grad).float()
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
            for name, p in self.model.named_parameters():
                p.copy_(self.masters[name].view_as(p))

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
                p.copy_(self.masters[name].view_as(p))
        for number, optimizer in enumerate(self.optimizers):
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                if key.startswith(f"optimizer.{number}."):
                    _, _, index, field = key.split(".")
                    state.setdefault(int(index), {})[field] = value
            optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

    def average_into(self, model: nn.Module) -> nn.Module:
        """Sets a float32 model's parameters to the moving average, and returns it."""
        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(self.ema[name].view_as(p))
        return model


def _matrix(p: Tensor) -> Tensor:
    """The weight of a convolution as a matrix, for Muon; anything else as it is."""
    return p.flatten(1) if p.ndim in (4, 5) else p


def options(parser: argparse.ArgumentParser, images: int, decay: int, folder: str) -> None:
    """Adds the options that all programs have."""
    parser.add_argument("--images", type=int, default=images, help="images to train on in all")
    parser.add_argument("--decay-images", type=int, default=decay, help="over the last of which the rate falls to 0")
    parser.add_argument("--warmup-steps", type=int, default=200, help="over which the rate rises from 0, from 1")
    parser.add_argument("--stop-after", type=int, help="steps of this run; the schedule stays that of --images")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="AdamW's")
    parser.add_argument("--muon-rate", type=float, default=0.02, help="Muon's; 0 trains everything with AdamW")
    parser.add_argument("--ema", type=float, default=0.999)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        default="bfloat16",
        help="that the model runs in; float32 may be the faster on a CPU without AMX",
    )
    parser.add_argument("--compile", action="store_true", help="torch.compile the model")
    parser.add_argument("--folder", type=Path, default=Path(folder), help="checkpoint, log and export")


def train(
    trainer: Trainer, args: argparse.Namespace, loss_of: Callable[[torch.Generator], Tensor], export: Callable[[], None]
) -> None:
    """Trains until ``args.images``, from the checkpoint in ``args.folder`` where there is one.

    Args:
        loss_of: the loss of one batch, drawn from a generator that depends on (seed, step) alone.
        export: called with each checkpoint.

    Raises:
        RuntimeError: the loss is not finite.
    """
    args.folder.mkdir(parents=True, exist_ok=True)
    checkpoint = args.folder / "checkpoint.safetensors"
    if checkpoint.exists():
        trainer.load(checkpoint)
        print(f"going on at step {trainer.step}", flush=True)
    losses: list[float] = []
    started, since = time.time(), trainer.step
    while trainer.step * args.batch < args.images and trainer.step - since != args.stop_after:
        loss = loss_of(torch.Generator().manual_seed(args.seed * 1_000_003 + trainer.step))
        if not math.isfinite(loss.item()):
            raise RuntimeError(f"the loss must be finite, not {loss.item()} at step {trainer.step}: lower the rates")
        loss.backward()
        trainer.update(
            rate_at(trainer.step * args.batch, args.images, args.warmup_steps * args.batch, args.decay_images)
        )
        losses.append(loss.item())
        if trainer.step % 100 == 0:
            entry = {
                "step": trainer.step,
                "images": trainer.step * args.batch,
                "loss": round(float(np.mean(losses)), 5),
                "images_per_second": round((trainer.step - since) * args.batch / (time.time() - started), 1),
            }
            print(json.dumps(entry), flush=True)
            with open(args.folder / "log.jsonl", "a") as log:
                log.write(json.dumps(entry) + "\n")
            losses.clear()
        if trainer.step % 250 == 0:
            trainer.save(checkpoint)
            export()
    trainer.save(checkpoint)
    export()
    print(f"done: {trainer.step} steps in this and earlier runs, weights in {args.folder / 'export'}")
