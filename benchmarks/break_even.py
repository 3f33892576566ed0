"""From how many tokens on does a method save time? `python -m benchmarks.break_even --help`.

Times transformer blocks of random weights (a DiT without much around them) under each method, over numbers of tokens
and batch sizes, against no compression. FLOPs always fall; time falls only where attention outweighs the matching.
"""

from __future__ import annotations

import argparse
import json
import math
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from diffusers import DiTTransformer2DModel

import bigain
from benchmarks.interleaved import Visit, interleaved, speed_up
from bigain.report.style import label
from bigain.run.cost import environment
from experiments.tables import put_between

METHODS = ("tome:ratio=0.5,destinations=random", "lgtm-0.5", "abm-0.5", "sito-0.5", "todo-2", "avgpool-2", "iekvd-2")


def blocks(tokens: int, width: int, heads: int, layers: int) -> DiTTransformer2DModel:
    """Random transformer blocks over a square grid of ``tokens``."""
    side = math.isqrt(tokens)
    if side * side != tokens:
        raise ValueError(f"--tokens must be square numbers, not {tokens}")
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return DiTTransformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=width // heads,
            num_layers=layers,
            in_channels=4,
            out_channels=4,
            sample_size=2 * side,
            patch_size=2,
            activation_fn="gelu",
            num_embeds_ada_norm=10,
        ).eval()


@torch.no_grad()
def times_at(tokens: int, batch: int, args: argparse.Namespace) -> dict[str, list[float]]:
    """Milliseconds per forward, by method, "none" among them."""
    device, dtype = torch.device(args.device), getattr(torch, args.dtype)
    model = blocks(tokens, args.width, args.heads, args.layers).to(device, dtype)
    side = 2 * math.isqrt(tokens)
    x = torch.randn(batch, 4, side, side, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    inputs = {
        "timestep": torch.full((batch,), 500, device=device),
        "class_labels": torch.zeros_like(x[:, 0, 0, 0]).long(),
    }

    def visit(method: str) -> Visit:
        applied = nullcontext if method == "none" else partial(bigain.compressed, model, method)
        return applied, lambda: model(x, **inputs)

    return interleaved({name: visit(name) for name in ("none", *args.methods)}, args.rounds, device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, nargs="+", default=[256, 1024, 4096])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--width", type=int, default=320)
    parser.add_argument("--heads", type=int, default=5)
    parser.add_argument("--layers", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=Path("results/break-even.json"))
    parser.add_argument("--docs", type=Path, help="also put the table between the break-even markers of this file")
    args = parser.parse_args()

    points = [(tokens, batch) for tokens in args.tokens for batch in args.batch]
    found: list[dict[str, Any]] = []
    for tokens, batch in points:
        times = times_at(tokens, batch, args)
        for method in args.methods:
            found.append(
                {
                    "tokens": tokens,
                    "batch": batch,
                    "method": method,
                    "none_ms": round(median(times["none"]), 3),
                    "ms": round(median(times[method]), 3),
                    "speed_up": [round(value, 3) for value in speed_up(times["none"], times[method])],
                }
            )
    settings = {name: getattr(args, name) for name in ("width", "heads", "layers", "rounds", "dtype")}
    where = environment(torch.device(args.device), settings)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"environment": where, "points": found}, indent=1) + "\n")
    text = table(found, where)
    print(text)
    if args.docs is not None:
        put_between(args.docs, "break-even", text)


def table(found: list[dict[str, Any]], where: dict[str, Any]) -> str:
    """Markdown: a row per method, a column per tokens x batch, speed-ups with their lowest and highest round."""
    points = list(dict.fromkeys((point["tokens"], point["batch"]) for point in found))
    cells = {(point["method"], point["tokens"], point["batch"]): point["speed_up"] for point in found}
    lines = [
        f"| tokens × batch | {' | '.join(f'{tokens} × {batch}' for tokens, batch in points)} |",
        "|---" * (len(points) + 1) + "|",
    ]
    for method in dict.fromkeys(point["method"] for point in found):
        row = ("{:.2f} ({:.2f}–{:.2f})".format(*cells[(method, *point)]) for point in points)
        lines.append(f"| {label(method)} | {' | '.join(row)} |")
    about = (
        f"Speed-up over no compression: median (lowest to highest) of {where['rounds']} rounds. "
        f"{where['layers']} blocks of {where['width']} channels, {where['heads']} heads, {where['dtype']}, "
        f"{where['device_name']}, {where['threads']} CPU threads, torch {where['torch']}."
    )
    return "\n".join([*lines, "", about])


if __name__ == "__main__":
    main()
