"""``bigain tune``: finds a method and its settings for a model and a target."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bigain.cli import options

if TYPE_CHECKING:
    from bigain.evaluate import Trial

_SEARCH = "The search"


@options.reported
def tune(
    target: Annotated[
        list[str],
        typer.Option(
            "--target",
            "-t",
            help="What to keep: speed-up=1.3, accuracy-loss=2 (points) or psnr=25 (dB, to the uncompressed images); "
            "may be given several times.",
        ),
    ],
    model: options.Model = "glyphs-dit",
    data: options.Data = "glyphs",
    split: options.UnseenSplit = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder; runs/tune/MODEL if left out. A search that is there goes on where it was stopped."),
    ] = None,
    trials: Annotated[int, typer.Option(min=1, help="In all.", rich_help_panel=_SEARCH)] = 60,
    cost: Annotated[
        str,
        typer.Option(
            help="What a speed-up is of: time, measured here; or flops, counted, which repeats.",
            rich_help_panel=_SEARCH,
        ),
    ] = "time",
    classify: Annotated[
        int, typer.Option(min=0, help="Images to classify per trial; 0 for none.", rich_help_panel=_SEARCH)
    ] = 50,
    generate: Annotated[
        int, typer.Option(min=0, help="Images to generate per trial; 0 for none.", rich_help_panel=_SEARCH)
    ] = 8,
    classes: options.Classes = None,
    prompts_csv: options.PromptsCsv = None,
    bad_images: options.BadImages = "raise",
    to_keep: options.ToKeep = "3 1",
    n_samples: options.NSamples = "2 8",
    steps: options.Steps = 12,
    guidance: options.Guidance = None,
    sampler: options.Sampler = None,
    seed: Annotated[int, typer.Option(help="Of the search and of all noise.")] = 1,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    variant: options.Variant = None,
    threads: options.Threads = None,
    batch_size: options.BatchSize = 64,
    timing_batch: Annotated[
        int, typer.Option(min=1, help="Images of a timed forward; speed depends on it.", rich_help_panel=_SEARCH)
    ] = 16,
    quiet: options.Quiet = False,
) -> None:
    """Searches methods, their strengths and their layers until a target is kept at the best that is left.

    First it measures what every layer offers, as bigain allocate does: 29 candidates x layers x 64 forwards.

    With a speed-up among the targets, the choice is the truest trial that reaches it (accuracy, then PSNR); otherwise
    the fastest that loses no more than is allowed. Few images make a noisy choice: judge it afterwards with bigain
    evaluate on a split that the search has not seen, as the test split of embedded data is.

    OUT/preset.json is what --preset and bigain.apply take; OUT/tune.png shows all trials. Needs Optuna:
    pip install "bigain\\[tune]".

    [bold]Examples[/]

      bigain tune -t speed-up=1.2

      bigain tune -t accuracy-loss=2 -t psnr=20 --trials 100 --out runs/tune-careful

      bigain evaluate --preset runs/tune/glyphs-dit/preset.json --classify 500 --generate 500
    """
    from tqdm.auto import tqdm

    from bigain.evaluate import Settings, choose, front, parse_target
    from bigain.evaluate import tune as search
    from bigain.evaluate.engine import versions
    from bigain.evaluate.export import write_whole
    from bigain.methods import preset_file
    from bigain.report import draw_search

    targets = [parse_target(text) for text in target]
    out = options.folder(out, "tune", model)
    options.use_threads(threads)
    settings = Settings(
        model=model,
        variant=variant,
        data=data,
        split=split,
        classes=None if classes is None else str(classes),
        prompts_csv=None if prompts_csv is None else str(prompts_csv),
        on_bad_image=bad_images,  # type: ignore[arg-type]
        classify=classify,
        generate=generate,
        to_keep=options.whole_numbers("--to-keep", to_keep),
        n_samples=options.whole_numbers("--n-samples", n_samples),
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        seed=seed,
        dtype=dtype,
        features="none",
        batch_size=batch_size,
        timing_batch=timing_batch,
        device=device or options.default_device(),
    )
    if split is None and settings.is_embedded:
        settings = settings.with_split("validation")
    with tqdm(total=trials, disable=quiet, unit="trial", desc="tune") as bar:

        def done(trial: Trial) -> None:
            bar.set_postfix_str(f"{trial.method} {trial.speed_up:.2f}x")

        def offered(done: int, of: int) -> None:
            bar.set_postfix_str(f"offers of the layers: {done}/{of}")

        found = search(
            settings, targets, out, trials=trials, cost=cost, done=done, counted=bar.update, offers_counted=offered
        )
    screen = options.console()
    screen.print(_table(front(found), cost))
    try:
        chosen = choose(found, targets)
    except ValueError:
        draw_search(found, None, targets, out / "tune.png")
        raise
    draw_search(found, chosen, targets, out / "tune.png")
    about = {
        "targets": [str(each) for each in targets],
        "found": {name: value for name, value in vars(chosen).items() if name != "method" and value is not None},
        "cost": cost,
        "timing_batch": timing_batch,
        "model": model,
        "data": data,
        "images": {"classified": classify, "generated": generate},
        "trials": trials,
        "seed": seed,
        "versions": versions(),
    }
    write_whole(out / "preset.json", preset_file(chosen.method, about))
    screen.print(f"Chosen: {chosen.method}", highlight=False)
    screen.print(f"In {out}: preset.json, tune.png, results.sqlite, tune.sqlite, offers.json", highlight=False)


def _table(trials: list[Trial], cost: str) -> object:
    """The front as a table, fastest first."""
    from rich.table import Table

    table = Table("method", f"speed-up ({cost})", "accuracy, %", "change, points", "PSNR, dB", title="The front")
    for trial in trials:
        table.add_row(
            trial.method,
            f"{trial.speed_up:.2f}",
            *(
                "" if value is None else f"{scale * value:{form}}"
                for value, scale, form in (
                    (trial.accuracy, 100, ".1f"),
                    (trial.change, 100, "+.1f"),
                    (trial.psnr, 1, ".1f"),
                )
            ),
        )
    return table
