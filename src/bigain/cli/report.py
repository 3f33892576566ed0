"""``bigain report``: tables and pictures again, from what was found before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bigain.cli import options

if TYPE_CHECKING:
    from bigain.run.summary import Results, Timings

    Run = tuple[Results, Timings | None]


@options.reported
def report(
    source: Annotated[Path, typer.Argument(help="A results.sqlite, or a .json that was exported from one.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for the tables and pictures. A .sqlite file's own folder if left out."),
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option(help="Write FILE.json, FILE.csv and FILE.timings.json, to be committed (from a .sqlite file)."),
    ] = None,
    add_to: Annotated[
        Path | None,
        typer.Option(
            help="Add the methods of SOURCE (a .sqlite file) that this exported .json lacks; what it has stays. For "
            "methods that were measured on another machine, with those again that they are compared with."
        ),
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods",
            "-m",
            help="Presets or specs that the table has, printed and for --readme; all that are there if left out. The "
            "files of the folder, and what is exported, always have all.",
        ),
    ] = None,
    readme: Annotated[
        Path | None,
        typer.Option(
            help="Put the table between '<!-- NAME: begin -->' and '<!-- NAME: end -->' of this file; NAME is that of "
            "the .json (SOURCE, --export or --add-to) without its ending, or side-by-side with --beside. What was "
            "compared with --against goes between the markers NAME-against, where the file has them."
        ),
    ] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Presets or specs that are in SOURCE (a .sqlite file): compare each with every other method there, "
            "paired, with intervals, and keep that in what is exported."
        ),
    ] = None,
    beside: Annotated[
        list[Path] | None,
        typer.Option(
            help="An exported .json of another model; may be given several times. The table for --readme is then that "
            "of the methods that all have, a few columns for each model."
        ),
    ] = None,
) -> None:
    """Draws the tables and pictures of a run from its results: no model, no data, no forward.

    [bold]Examples[/]

      bigain report runs/full/results.sqlite

      bigain report runs/full/results.sqlite --export results/glyphs-dit.json

      bigain report runs/full/results.sqlite --against "glyphs-dit/fast abm-0.5" --export results/glyphs-dit.json

      bigain report runs/more/results.sqlite --add-to results/glyphs-dit.json

      bigain report results/glyphs-dit.json --readme docs/results.md

      bigain report results/glyphs-sd.json --beside results/glyphs-dit.json -m "lgtm-0.5 iekvd-2" --readme README.md
    """
    from rich.markdown import Markdown

    from bigain.methods import parse, spec
    from bigain.report.folder import write_folder
    from bigain.report.pictures import draw_front
    from bigain.report.table import markdown, terminal
    from bigain.run.export import add_results, read_results, write_results, write_whole
    from bigain.run.settings import split_specs
    from bigain.run.store import Store
    from bigain.run.summary import summarise, timings
    from bigain.zoo.presets import text_of
    from experiments.readme.against import against as against_table
    from experiments.readme.against import against_verdicts
    from experiments.readme.markers import has_markers, put_between
    from experiments.readme.side_by_side import side_by_side

    if export is not None and add_to is not None:
        raise ValueError("--export replaces a file, --add-to adds to one: give one of them")
    if export is not None and export.suffix != ".json":
        raise ValueError(f"--export must end in .json, not {export}")
    if beside and readme is None:
        raise ValueError("--beside makes a table for --readme: say which file")
    if source.suffix == ".json":
        for option, given in (("--export", export), ("--add-to", add_to), ("--against", against)):
            if given:
                raise ValueError(f"{option} needs the .sqlite file: a .json is exported already")
        results, times = read_results(source)
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)
            write_whole(out / "table.md", markdown(results, times))
            if results.comparisons:
                write_whole(out / "against.md", against_table(results) + "\n")
            if any(row.accuracy is not None or row.fid is not None for row in results.rows):
                draw_front(results, times, out / "front.png")
    else:
        compared = [spec(parse(text_of(text))) for text in split_specs(against or [])]
        with Store(source) as store:
            if (export is None and add_to is None) or out is not None:
                results, times = write_folder(store, out or source.parent, compared)
            else:
                results, times = summarise(store, compared), timings(store)
        if add_to is not None:
            results, times = add_results(add_to, results, times)
        if export is not None:
            export.parent.mkdir(parents=True, exist_ok=True)
            write_results(export, results, times)
    runs = [(results, times), *(read_results(path) for path in beside or ())]
    if methods:
        runs = _with_methods(runs, {text: spec(parse(text_of(text))) for text in split_specs(methods)})
    if readme is not None:
        name = (add_to or export or source).stem
        text = side_by_side(runs) if beside else markdown(*runs[0])
        put_between(readme, "side-by-side" if beside else name, text)
        if results.comparisons and not (beside or methods) and has_markers(readme, f"{name}-against"):
            put_between(readme, f"{name}-against", against_table(results))
    screen = options.console()
    screen.print(terminal(*runs[0], screen.width))
    if results.comparisons and not methods:
        screen.print(Markdown(against_verdicts(results)))


def _with_methods(runs: list[Run], methods: dict[str, str]) -> list[Run]:
    """The runs with the rows of ``methods`` and of no compression alone; one that some run lacks is left out there.

    Args:
        methods: specs, by what was typed.
    """
    there = {row.method for results, _ in runs for row in results.rows}
    lacking = [text for text, method in methods.items() if method not in there]
    if lacking:
        raise ValueError(
            f"--methods has {' '.join(lacking)}, not in these results: they have {' '.join(sorted(there))}"
        )
    shown = {"none", *methods.values()}
    return [
        (results.with_rows(tuple(row for row in results.rows if row.method in shown)), times) for results, times in runs
    ]
