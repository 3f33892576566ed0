"""``bigain reproduce``: a table of the paper, asked of any model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bigain.cli import options

_WHAT = "What to ask"


@options.reported
def reproduce(
    table: Annotated[
        str, typer.Argument(help="6, 7, 8, 11, 12, 15, 16 or 17: a table of the paper; or all. 11 stands for 18 too.")
    ],
    model: options.Model = "glyphs-dit",
    data: options.Data = "glyphs",
    ratio: Annotated[float, typer.Option(help="Share of the tokens that is merged.", rich_help_panel=_WHAT)] = 0.7,
    factor: Annotated[int, typer.Option(min=2, help="Of downsampling.", rich_help_panel=_WHAT)] = 2,
    classify: Annotated[int, typer.Option(min=0, help="Images to classify.", rich_help_panel=_WHAT)] = 200,
    generate: Annotated[int, typer.Option(min=0, help="Images to generate.", rich_help_panel=_WHAT)] = 200,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder; runs/reproduce/MODEL if left out. One results file for all tables, so that no method is "
            "measured twice."
        ),
    ] = None,
    page: Annotated[
        Path | None,
        typer.Option(
            help="Where the page goes with the verdicts and what they rest on; claims.md in OUT if left out, or "
            "claims-N.md for one table."
        ),
    ] = None,
    split: options.Split = None,
    classes: options.Classes = None,
    prompts_csv: options.PromptsCsv = None,
    to_keep: options.ToKeep = "3 1",
    n_samples: options.NSamples = "2 8",
    loss: options.Loss = "l2",
    steps: options.Steps = 20,
    guidance: options.Guidance = None,
    sampler: options.Sampler = None,
    features: options.Features = "auto",
    seed: options.Seed = 0,
    dtype: options.Dtype = "float32",
    device: options.Device = None,
    variant: options.Variant = None,
    threads: options.Threads = None,
    batch_size: options.BatchSize = 64,
    timing_rounds: Annotated[
        int, typer.Option(min=0, help="Timed forwards; 6 at least for an interval.", rich_help_panel=_WHAT)
    ] = 9,
    timing_batch: Annotated[int, typer.Option(min=1, help="Images of a timed forward.", rich_help_panel=_WHAT)] = 16,
    quiet: options.Quiet = False,
) -> None:
    """Runs what a table of the paper compares, and sets what is found beside what it claims.

    Each claim gets a verdict by the 95% interval of the paired difference: agrees, disagrees, or cannot tell. Tables:
    6 where tokens are merged, 7 the cost of the assignment, 8 the token score, 11 (and 18) FLOPs and time, 12 keys and
    values of high or low frequency alone, 15 α in classification, 16 α in generation, 17 merging and downsampling
    together.

    [bold]Examples[/]

      bigain reproduce 15

      bigain reproduce all --ratio 0.5 --classify 500 --generate 500 --page claims.md

      bigain reproduce 8 --model stabilityai/stable-diffusion-2-base --data pets:/data/pets --dtype bfloat16
    """
    from rich.table import Table

    from bigain.report.table import terminal
    from bigain.run.engine import run
    from bigain.run.files import write_whole
    from bigain.run.paired import Paired
    from bigain.run.settings import Settings
    from bigain.run.store import Store
    from bigain.run.summary import summarise, timings
    from experiments.paper.claims import asks_for_text, paper_tables
    from experiments.paper.page import reproduction_page, rows_of, verdict_cells
    from experiments.paper.verdicts import judge

    tables = paper_tables(ratio, factor)
    if table != "all" and table not in tables:
        raise ValueError(f"the table must be one of {', '.join(tables)} or all, not {table!r}")
    chosen = list(tables.values()) if table == "all" else [tables[table]]
    denoiser = options.open_denoiser(model, dtype, device, variant, threads)
    methods = dict.fromkeys(method for each in chosen for method in each.methods)
    left_out = [method for method in methods if denoiser.kind == "class" and asks_for_text(method)]
    screen = options.console()
    for method in left_out:
        screen.print(f"Left out, as this model has no cross-attention: {method}", highlight=False)
    settings = Settings(
        model=model,
        variant=variant,
        data=data,
        split=split,
        classes=None if classes is None else str(classes),
        prompts_csv=None if prompts_csv is None else str(prompts_csv),
        methods=tuple(method for method in methods if method not in left_out),
        classify=classify,
        generate=generate,
        to_keep=options.whole_numbers("--to-keep", to_keep),
        n_samples=options.whole_numbers("--n-samples", n_samples),
        loss=loss,
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        seed=seed,
        dtype=dtype,
        features=features,
        batch_size=batch_size,
        device=device or options.default_device(),
        timing_rounds=timing_rounds,
        timing_batch=timing_batch,
    )
    out = options.folder(out, "reproduce", model)
    page = page or out / ("claims.md" if table == "all" else f"claims-{table}.md")
    page.parent.mkdir(parents=True, exist_ok=True)
    path = out / "results.sqlite"
    run(settings, path, progress=not quiet, denoiser=denoiser)
    with Store(path) as store:
        results, times = summarise(store), timings(store)
        paired = Paired(store)
        found = {each: [judge(paired, claim) for claim in each.claims] for each in chosen}
    for each, verdicts in found.items():
        screen.print(f"Table {each.number}: {each.title}", style="bold")
        screen.print(terminal(results.with_rows(rows_of(each, results)), times, screen.width))
        if verdicts:
            shown = Table("claim", "better by, 95% interval", "verdict")
            for verdict in verdicts:
                shown.add_row(*verdict_cells(verdict))
            screen.print(shown)
    write_whole(page, reproduction_page(found, results, times, f"merging {ratio:g}, downsampling {factor}×"))
    screen.print(f"In {out}: results.sqlite; the verdicts in {page}", highlight=False)
