"""``bigain allocate``: gives every layer the method that costs least in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bigain.cli import options
from bigain.run.settings import DataSettings, ModelSettings, ProbeSettings, TimingSettings
from bigain.search.target import TargetSettings

_TIMING = TimingSettings()


def allocate(
    target: TargetSettings,
    model: Annotated[ModelSettings, options.Without("variant", "threads")],
    data: Annotated[DataSettings, options.Without("classes", "prompts_csv", "bad_images")],
    probe: Annotated[ProbeSettings, options.Without("loss")],
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            help="Methods that a layer may take, with commas or spaces between; their layers and levels are replaced. "
            "A good mixture if left out."
        ),
    ] = None,
    timing: Annotated[TimingSettings, options.Without("timing_batch")] = _TIMING,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; runs/allocate/MODEL if left out. What was measured there is not measured again."),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Gives every layer the method that changes the predictions least, for a target.

    The target is a share of the FLOPs to save (--save), a speed (--speed-up), or what may be lost: points of accuracy
    (--lose-at-most), decibels of generated images (--psnr), or both. What each candidate costs in each layer alone is
    estimated on a few images, under the true class and another; then the layers' choices are put together so that the
    sum of their costs is least, measured as a whole, and corrected once. Takes (candidates + 5) x images x timesteps x
    2 forwards and backward passes, once: another target is answered from what was measured. With --exact each candidate
    is measured in each layer, which takes layers x candidates x images x timesteps x 2 forwards. Judge the result with
    bigain evaluate, on images that it has not seen: embedded data's validation split is taken where none is named.

    With --ranges each layer chooses in each range of t, weighed by the timesteps of the classifier, the sampler or both
    (--for).

    With --speed-up every candidate is also timed in every layer, and time is saved instead of FLOPs; the result is
    timed as a whole. Takes 2 x candidates x (rounds + 1) forwards of a batch, once. Times depend on --batch-size.

    With --lose-at-most or --psnr the largest saving that keeps the target is found in 6 steps of bisection, each a row
    of a joint run of --classify and --generate images. What counts is the measured value, not its interval.

    OUT/preset.json is what --methods, --preset and bigain.apply take; OUT/offers.json holds what every layer offers,
    OUT/times.json the times and OUT/results.sqlite the steps.

    [bold]Examples[/]

      bigain allocate --save 0.25

      bigain allocate --speed-up 1.15 --dtype bfloat16 --batch-size 32

      bigain allocate --lose-at-most 2 --psnr 25

      bigain allocate --save 0.25 --ranges 3 --for classify

      bigain evaluate --preset runs/allocate/glyphs-dit/preset.json --classify 500 --generate 500

      bigain allocate --save 0.2 --model stabilityai/stable-diffusion-2-base --data pets:/data/pets --dtype bfloat16
    """
    target.check()
    given = None if candidates is None else options.method_texts(candidates, "candidates")

    from bigain.report.allocation import allocation
    from bigain.search.choice import choose

    out = options.folder(out, "allocate", model.model)
    choice = choose(
        target,
        out,
        model=model,
        data=data,
        probe=probe,
        candidates=given,
        timing_rounds=timing.timing_rounds,
        progress=not quiet,
    )
    screen = options.console()
    screen.print(allocation(choice))
    screen.print(f"Chosen: {choice.allocation.methods.text}", highlight=False)
    screen.print(f"In {out}: {', '.join(choice.files)}", highlight=False)
