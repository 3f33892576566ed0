"""``bigain report``: tables and pictures again, from what was found before."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bigain.cli import options

if TYPE_CHECKING:
    from bigain.run.results import Results, Timings

    Run = tuple[Results, Timings | None]

_EXPORT_HELP = (
    "From a .sqlite file: write FILE.json, FILE.csv and FILE.timings.json, a row per method; or FILE.parquet and "
    "FILE.generated.parquet, a row per image."
)


def report(
    source: Annotated[Path, typer.Argument(help="A results.sqlite, or a .json that was exported from one.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the tables and pictures. A .sqlite file's own folder if left out.")
    ] = None,
    export: Annotated[Path | None, typer.Option(help=_EXPORT_HELP)] = None,
    html: Annotated[
        Path | None,
        typer.Option(
            help="One page to write (.html), and nothing else: it opens without a network. Needs bigain[html]"
        ),
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Another run, .sqlite or .json: the page tells what changed from it.")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--methods", "-m", help="Methods that the printed table has; all if left out. The files always have all."
        ),
    ] = None,
) -> None:
    """Draws the tables and pictures of a run from its results: no model, no data, no forward.

    [bold]Examples[/]

      bigain report runs/evaluate/glyphs-dit/results.sqlite

      bigain report runs/evaluate/glyphs-dit/results.sqlite --export results/mine.json

      bigain report runs/evaluate/glyphs-dit/results.sqlite --export mine.parquet

      bigain report results/glyphs-dit.json -m "lgtm-0.5 iekvd-2"

      bigain report runs/evaluate/glyphs-dit/results.sqlite --html report.html --against results/glyphs-dit.json
    """
    shown = None if methods is None else {"none", *(one.text for one in options.read_methods(methods))}
    if export is not None and export.suffix not in (".json", ".parquet"):
        raise ValueError(f"export must end in .json or .parquet, not {export}")
    if source.suffix == ".json" and export is not None:
        raise ValueError(f"export must be left out for {source}, which is exported already")
    if html is not None:
        return _write_page(html, source, against)
    if against is not None:
        raise ValueError(f"against must be left out without --html, which tells what changed, not {against}")
    results, times = _from_json(source, out) if source.suffix == ".json" else _from_store(source, out, export)
    if shown is not None:
        rows = {row.method: row for row in results.rows}
        if lacking := sorted(shown - rows.keys() - {"none"}):
            raise ValueError(f"methods must be among those of these results, {' '.join(rows)}, not {' '.join(lacking)}")
        results = replace(results, rows=tuple(row for row in results.rows if row.method in shown))

    from bigain.report.table import terminal

    screen = options.console()
    screen.print(terminal(results, times, screen.width))


def _write_page(html: Path, source: Path, against: Path | None) -> None:
    """The page of a run; what each layer costs is in it where `bigain allocate` left that beside the results."""
    if html.suffix != ".html":
        raise ValueError(f"html must end in .html, not {html}")
    from bigain.report.html import Run, write_page

    offers = source.parent / "offers.json"
    with ExitStack() as opened:

        def read(path: Path) -> Run:
            from bigain.run.results import read_results

            if path.suffix == ".json":
                return Run(*read_results(path))
            from bigain.run.store import Store
            from bigain.run.summary import summarise, timings

            store = opened.enter_context(Store(path))
            return Run(summarise(store), timings(store), store)

        other = None if against is None else read(against)
        write_page(html, read(source), other, offers if offers.is_file() else None)
    typer.echo(f"In {html}: open it in a browser")


def _from_json(source: Path, out: Path | None) -> Run:
    """The exported results; their table and front go into ``out``, if that is given."""
    from bigain.run.results import read_results

    results, times = read_results(source)
    if out is not None:
        from bigain.report.pictures import write_table

        write_table(results, times, out)
    return results, times


def _from_store(source: Path, out: Path | None, export: Path | None) -> Run:
    """The results of a run; all files go into its folder or ``out``, unless it is to be exported alone."""
    from bigain.report.parquet import export_parquet
    from bigain.report.pictures import write_folder
    from bigain.run.results import write_results
    from bigain.run.store import Store
    from bigain.run.summary import summarise, timings

    with Store(source) as store:
        if export is not None:
            export.parent.mkdir(parents=True, exist_ok=True)
            if export.suffix == ".parquet":
                export_parquet(store, export)
        alone = export is not None and out is None
        run = (summarise(store), timings(store)) if alone else write_folder(store, out or source.parent)
    if export is not None and export.suffix == ".json":
        write_results(export, *run)
    return run
