"""``bigain allocate``: gives every layer the method that costs least in it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bigain.cli import options
from bigain.run.settings import DataSettings, Group, ModelSettings, ProbeSettings, TimingSettings, setting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from bigain.diffusion import Denoiser
    from bigain.search.allocation import Allocation, Offer
    from bigain.search.clock import Clocked
    from bigain.search.offers import Offers

_TIMING = TimingSettings()


@dataclass(frozen=True, kw_only=True)
class TargetSettings(Group):
    """What is to be reached."""

    save: float | None = setting(None, "Share of a forward's FLOPs to save, such as 0.25.")
    flops_of: str | None = setting(None, "Or a method whose FLOPs are not to be exceeded, such as iekvd-2.")
    speed_up: float | None = setting(
        None,
        "Or how many times as fast a forward is to be, such as 1.2: time, measured on this machine in batches of "
        "--batch-size.",
    )
    contrast: float = setting(
        3.0,
        "Weight of what tells classes apart: the cost is the change of the prediction + this x the change of its "
        "difference between two classes. 0 looks at the prediction alone.",
        low=0,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.save is not None and not 0 < self.save < 1:
            raise ValueError(f"save must lie between 0 and 1, not {self.save:g}")
        if self.speed_up is not None and not (math.isfinite(self.speed_up) and self.speed_up > 1):
            raise ValueError(f"speed_up must be above 1, not {self.speed_up:g}")

    def check(self) -> None:
        """Raises ValueError unless one target is given."""
        if [self.save, self.flops_of, self.speed_up].count(None) != 2:
            raise ValueError(
                "give one of --save, such as --save 0.25, --flops-of, such as --flops-of iekvd-2, and --speed-up, such "
                "as --speed-up 1.2"
            )


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
    """Gives every layer the method that changes the predictions least, for the FLOPs that are to be saved.

    Each candidate is tried in each layer alone, on a few images, under the true class and another; then the layers'
    choices are put together so that what they cost adds up to the least. Takes layers x candidates x images x timesteps
    x 2 forwards, once: another --save or --contrast is answered from what was measured. Judge the result with bigain
    evaluate, on images that it has not seen: embedded data's validation split is taken where none is named.

    FLOPs saved are not time saved. With --speed-up every candidate is also timed in every layer, and the time is what
    is saved; the result is timed as a whole. Takes 2 x candidates x (rounds + 1) forwards of a batch, once. What is
    saved in time depends on --batch-size.

    OUT/preset.json is what --methods, --preset and bigain.apply take; OUT/offers.json holds what every layer offers,
    and OUT/times.json the times.

    [bold]Examples[/]

      bigain allocate --save 0.25

      bigain allocate --flops-of iekvd-2 --model glyphs-sd

      bigain allocate --speed-up 1.15 --dtype bfloat16 --batch-size 32

      bigain evaluate --preset runs/allocate/glyphs-dit/preset.json --classify 500 --generate 500

      bigain allocate --save 0.2 --model stabilityai/stable-diffusion-2-base --data pets:/data/pets --dtype bfloat16
    """
    target.check()
    given = None if candidates is None else options.method_texts(candidates, "candidates")

    from bigain.backbones import preset_file
    from bigain.methods import spec
    from bigain.run.cost import flops
    from bigain.run.engine import versions
    from bigain.run.export import write_whole
    from bigain.search.allocation import allocate as choose
    from bigain.search.clock import clock_offers, kept_times
    from bigain.search.offers import CANDIDATES, measure_offers

    out = options.folder(out, "allocate", model.model)
    data = data.unseen()
    denoiser = model.open()
    if target.flops_of is not None:
        reference = options.read_method([target.flops_of], "none")
        plain, least = (flops(denoiser, text, denoiser.any_condition) for text in ("none", reference))
        saving = plain - least
        if saving < 1:
            raise ValueError(
                f"flops_of must be a method that saves FLOPs in this model, not {target.flops_of}, which saves none"
            )
    if target.speed_up is not None:  # what does not compare is refused now rather than at the end
        kept_times(denoiser, out / "times.json", dtype=model.dtype, batch_size=model.batch_size)
    with options.counting(quiet, "offer", "allocate") as counted:
        offers = measure_offers(
            denoiser,
            out / "offers.json",
            model=model,
            data=data,
            settings=probe,
            candidates=CANDIDATES if given is None else given,
            counted=counted,
        )
    clocked: Clocked | None = None
    if target.speed_up is not None:
        with options.counting(quiet, "forward", "time") as counted:
            clocked = clock_offers(
                denoiser,
                offers.offers,
                out / "times.json",
                dtype=model.dtype,
                batch_size=model.batch_size,
                rounds=timing.timing_rounds,
                counted=counted,
            )
        in_time, nanoseconds = clocked.in_time(offers.offers), clocked.saving(offers.offers, target.speed_up)
        chosen = _in_flops(choose(in_time, nanoseconds, target.contrast), offers)
    else:
        if target.save is not None:
            saving = round(target.save * offers.flops)
        chosen = choose(offers.offers, saving, target.contrast)
    about: dict[str, object] = {
        "saved": round(chosen.saved / offers.flops, 4),
        "change": chosen.change,
        "contrast": chosen.contrast,
        "contrast_weight": target.contrast,
        "split": data.split,
        "images": probe.images,
        "timesteps": probe.timesteps,
        "seed": probe.seed,
        "versions": versions(),
    }
    screen = options.console()
    screen.print(_table(offers, chosen, clocked))
    if target.speed_up is not None and clocked is not None:
        about["speed_up"] = _timed_together(screen, denoiser, chosen, clocked, target.speed_up, timing.timing_rounds)
    content = preset_file(chosen.methods, denoiser.model, name=model.model, data=data.data, about=about)
    write_whole(out / "preset.json", content)
    screen.print(f"Chosen: {spec(chosen.methods)}", highlight=False)
    files = "preset.json, offers.json" + (", times.json" if clocked is not None else "")
    screen.print(f"In {out}: {files}", highlight=False)


def _in_flops(chosen: Allocation, offers: Offers) -> Allocation:
    """The same choice, with the FLOPs that its offers save."""
    known = {offer.method: offer for offer in offers.offers}
    return replace(chosen, offers=tuple(known[offer.method] for offer in chosen.offers))


def _timed_together(
    screen: Console, denoiser: Denoiser, chosen: Allocation, clocked: Clocked, asked: float, rounds: int
) -> dict[str, object]:
    """Times the choice as a whole, beside no compression, and says what came of the target."""
    from statistics import median

    from bigain.methods import spec
    from bigain.run.cost import measure

    text, batch_size = spec(chosen.methods), clocked.environment["batch_size"]
    times = measure(denoiser, ["none", text], denoiser.any_condition, batch_size=batch_size, rounds=rounds)
    measured = median(a / b for a, b in zip(times["none"], times[text], strict=True))
    saved = sum(clocked.saved[offer.method] for offer in chosen.offers)
    expected = clocked.forward / (clocked.forward - saved)
    screen.print(
        f"Speed, batches of {batch_size}: {measured:.2f}x as measured together, {expected:.2f}x by the layers alone, "
        f"{asked:.2f}x asked for",
        highlight=False,
    )
    if measured < asked:
        screen.print(
            "That is less than was asked for: ask for more, or time it again on an idle machine", style="yellow"
        )
    found = {"asked": asked, "expected": round(expected, 4), "measured": round(measured, 4)}
    return {**found, **clocked.environment}


def _table(offers: Offers, chosen: Allocation, clocked: Clocked | None) -> object:
    """What each layer takes."""
    from rich.table import Table

    from bigain.report.labels import label

    title = "What each layer takes; changes: mean squares, of the prediction and of the difference between two classes"
    timed = () if clocked is None else ("time saved, %",)
    columns = ("layer", "method", "FLOPs saved, %", *timed, "change x 1000", "of the difference")
    table = Table(*columns, title=title, title_justify="left")

    def row(layer: str, method: str, taken: Sequence[Offer]) -> None:
        shares = [f"{100 * sum(offer.saved for offer in taken) / offers.flops:.1f}"]
        if clocked is not None:
            shares.append(f"{100 * sum(clocked.saved[offer.method] for offer in taken) / clocked.forward:.1f}")
        costs = [sum(offer.change for offer in taken), sum(offer.contrast for offer in taken)]
        table.add_row(layer, method, *shares, *(f"{1e3 * cost:.2f}" for cost in costs))

    by_layer = {offer.layer: offer for offer in chosen.offers}
    for layer in sorted({offer.layer for offer in offers.offers}):
        taken = [by_layer[layer]] if layer in by_layer else []
        row(str(layer), str(label(taken[0].candidate)) if taken else "none", taken)
    table.add_section()
    row("", "together", chosen.offers)
    return table
