"""Our ToMe against tomesd 0.1.3, the same merging in one run: `python -m benchmarks.peer --help`.

A U-Net of random weights with the widths of Stable Diffusion's finest level; both merge with the first token of each
cell as destination, and the outputs are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import copy
from contextlib import nullcontext
from statistics import median

import tomesd
import torch
from diffusers import UNet2DConditionModel

import bigain
from benchmarks.interleaved import interleaved, speed_up


def unet(size: int) -> UNet2DConditionModel:
    """One level with attention at 320 channels, the other without."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        return UNet2DConditionModel(
            sample_size=size,
            layers_per_block=1,
            block_out_channels=(320, 320),
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=64,
            attention_head_dim=8,
        ).eval()


@torch.no_grad()
def compare(size: int, args: argparse.Namespace, device: torch.device) -> None:
    """Prints the times at one size of latents."""
    plain = unet(size).to(device)
    theirs = tomesd.apply_patch(copy.deepcopy(plain), ratio=args.ratio, max_downsample=1, use_rand=False)
    ours = copy.deepcopy(plain)
    bigain.apply(ours, bigain.ToMe(ratio=args.ratio, destinations="first"))
    noise = torch.Generator().manual_seed(0)
    inputs = (
        torch.randn(args.batch, 4, size, size, generator=noise).to(device),
        500,
        torch.randn(args.batch, 77, 64, generator=noise).to(device),
    )
    outputs = [model(*inputs, return_dict=False)[0] for model in (ours, theirs)]
    torch.testing.assert_close(*outputs, atol=1e-4, rtol=0)
    models = {"no compression": plain, "tomesd": theirs, "bigain": ours}
    times = interleaved(
        {name: (nullcontext, lambda m=m: m(*inputs)) for name, m in models.items()}, args.rounds, device
    )
    print(f"{size} x {size} latents, batch {args.batch}, ratio {args.ratio}, on {device}")
    for name, own in times.items():
        middle, low, high = speed_up(times["no compression"], own)
        print(f"  {name:15} {median(own):8.1f} ms   speed-up {middle:.2f} ({low:.2f} to {high:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, nargs="+", default=[32, 64], help="height and width of the latents")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    device = torch.device(args.device)
    for size in args.size:
        compare(size, args, device)


if __name__ == "__main__":
    main()
