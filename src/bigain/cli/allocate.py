"""``bigain allocate``: gives every layer the method that costs least in it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bigain.cli import options

if TYPE_CHECKING:
    from bigain.evaluate import Allocation, Offers


@options.reported
def allocate(
    save: Annotated[
        float | None, typer.Option(help="Share of a forward's FLOPs to save, such as 0.25.", rich_help_panel="Target")
    ] = None,
    flops_of: Annotated[
        str | None,
        typer.Option(help="Or a method whose FLOPs are not to be exceeded, such as iekvd-2.", rich_help_panel="Target"),
    ] = None,
    contrast: Annotated[
        float,
        typer.Option(
            min=0,
            help="Weight of what tells classes apart: the cost is the change of the prediction + this x the change of "
            "its difference between two classes. 0 looks at the prediction alone.",
            rich_help_panel="Target",
        ),
    ] = 3.0,
    model: options.Model = "glyphs-dit",
    data: options.Data = "glyphs",
    split: options.UnseenSplit = None,
    candidates: Annotated[
        list[str] | None,
        typer.Option(
            help="Presets or specs that a layer may take, with commas or spaces between; their layers and levels are "
            "replaced. A good mixture if left out.",
            rich_help_panel=options.MEASURED,
        ),
    ] = None,
    images: Annotated[
        int, typer.Option(min=2, help="The first that have a label.", rich_help_panel=options.MEASURED)
    ] = 8,
    timesteps: Annotated[int, typer.Option(min=1, help="Evenly spaced.", rich_help_panel=options.MEASURED)] = 4,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; runs/allocate/MODEL if left out. What was measured there is not measured again."),
    ] = None,
    classes: options.Classes = None,
    prompts_csv: options.PromptsCsv = None,
    bad_images: options.BadImages = "raise",
    seed: Annotated[int, typer.Option(help="Of the noise.")] = 1,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    variant: options.Variant = None,
    threads: options.Threads = None,
    batch_size: options.BatchSize = 64,
    quiet: options.Quiet = False,
) -> None:
    """Gives every layer the method that changes the predictions least, for the FLOPs that are to be saved.

    Each candidate is tried in each layer alone, on a few images, under the true class and another; then the layers'
    choices are put together so that what they cost adds up to the least. Takes layers x candidates x images x timesteps
    x 2 forwards, once: another --save or --contrast is answered from what was measured. Judge the result with bigain
    evaluate, on images that it has not seen.

    OUT/preset.json is what --preset and bigain.apply take; OUT/offers.json holds what every layer offers.

    [bold]Examples[/]

      bigain allocate --save 0.25

      bigain allocate --flops-of iekvd-2 --model glyphs-sd

      bigain evaluate --preset runs/allocate/glyphs-dit/preset.json --classify 500 --generate 500

      bigain allocate --save 0.2 --model stabilityai/stable-diffusion-2-base --data pets:/data/pets --dtype bfloat16
    """
    from tqdm.auto import tqdm

    from bigain.evaluate import CANDIDATES, Settings, measure_offers, split_specs
    from bigain.evaluate import allocate as choose
    from bigain.evaluate.engine import versions
    from bigain.evaluate.export import write_whole
    from bigain.evaluate.timing import flops
    from bigain.methods import preset_file, spec

    if (save is None) == (flops_of is None):
        raise ValueError("give either --save, such as --save 0.25, or --flops-of, such as --flops-of iekvd-2")
    if save is not None and not 0 < save < 1:
        raise ValueError(f"--save must lie between 0 and 1, not {save:g}")
    if not math.isfinite(contrast):
        raise ValueError(f"--contrast must be finite, not {contrast}")
    out = options.folder(out, "allocate", model)
    settings = Settings(
        model=model,
        variant=variant,
        data=data,
        split=split,
        classes=None if classes is None else str(classes),
        prompts_csv=None if prompts_csv is None else str(prompts_csv),
        on_bad_image=bad_images,  # type: ignore[arg-type]
        generate=0,
        seed=seed,
        dtype=dtype,
        features="none",
        batch_size=batch_size,
        device=device or options.default_device(),
    )
    if split is None and settings.is_embedded:
        settings = settings.with_split("validation")
    denoiser = options.open_denoiser(model, dtype, settings.device, variant, threads)
    wanted = None if flops_of is None else flops(denoiser, flops_of, 0 if denoiser.kind == "class" else "")
    with tqdm(disable=quiet, unit="offer", desc="allocate") as bar:

        def counted(done: int, of: int) -> None:
            bar.total = of
            bar.update(done - bar.n)

        offers = measure_offers(
            settings,
            denoiser,
            out / "offers.json",
            candidates=split_specs(candidates) if candidates else CANDIDATES,
            images=images,
            timesteps=timesteps,
            counted=counted,
        )
    saving = round(save * offers.flops) if save is not None else offers.flops - (wanted or 0)
    if saving < 1:
        raise ValueError(f"{flops_of} saves no FLOPs in this model: name a method that does, or give --save")
    chosen = choose(offers.offers, saving, contrast)
    about = {
        "saved": round(chosen.saved / offers.flops, 4),
        "change": chosen.change,
        "contrast": chosen.contrast,
        "contrast_weight": contrast,
        "model": model,
        "dtype": dtype,
        "data": data,
        "split": settings.split,
        "images": images,
        "timesteps": timesteps,
        "seed": seed,
        "versions": versions(),
    }
    write_whole(out / "preset.json", preset_file(spec(chosen.methods), about))
    screen = options.console()
    screen.print(_table(offers, chosen))
    screen.print(f"Chosen: {spec(chosen.methods)}", highlight=False)
    screen.print(f"In {out}: preset.json, offers.json", highlight=False)


def _table(offers: Offers, chosen: Allocation) -> object:
    """What each layer takes."""
    from rich.table import Table

    from bigain.report import label

    title = "What each layer takes; changes: mean squares, of the prediction and of the difference between two classes"
    columns = ("layer", "method", "FLOPs saved, %", "change x 1000", "of the difference")
    table = Table(*columns, title=title, title_justify="left")
    taken = {offer.layer: offer for offer in chosen.offers}
    for layer in sorted({offer.layer for offer in offers.offers}):
        if layer not in taken:
            table.add_row(str(layer), "none", "0.0", "0.00", "0.00")
            continue
        offer = taken[layer]
        share = 100 * offer.saved / offers.flops
        costs = (f"{1e3 * offer.change:.2f}", f"{1e3 * offer.contrast:.2f}")
        table.add_row(str(layer), str(label(offer.candidate)), f"{share:.1f}", *costs)
    table.add_section()
    costs = (f"{1e3 * chosen.change:.2f}", f"{1e3 * chosen.contrast:.2f}")
    table.add_row("", "together", f"{100 * chosen.saved / offers.flops:.1f}", *costs)
    return table
