"""The same methods, or presets of the same name, on several models, side by side."""

from __future__ import annotations

from collections.abc import Sequence

from bigain.report.style import PRESET, label
from bigain.report.table import NOTHING, Line, accuracy_cell, accuracy_heading, caption_parts, fixed, lines_of
from bigain.run.results import Results, Timings


def side_by_side(runs: Sequence[tuple[Results, Timings | None]]) -> str:
    """A Markdown table of the methods that all runs have, in the order of the first, and what it was measured on.

    Per model: accuracy with its interval, FID, the change of the FLOPs, and the speed against no compression.

    Raises:
        ValueError: fewer than two runs, two runs of one model, or no method besides "none" that all have.
    """
    models = [results.settings["model"] for results, _ in runs]
    if len(runs) < 2 or len({*models}) < len(models):
        raise ValueError(f"side by side go two models at least, each once, not {', '.join(models) or 'none'}")
    lines = [{_key(line.row.method): line for line in lines_of(results, times)} for results, times in runs]
    shared = [method for method in lines[0] if all(method in of_model for of_model in lines)]
    if shared in ([], ["none"]):
        raise ValueError(f"{', '.join(models)} have no method in common besides no compression")
    headings = ["method"]
    for results, _ in runs:
        headings += [f"{results.settings['model']}: {accuracy_heading(results)}", "FID", "FLOPs", "speed"]
    rows = [headings, ["---", *["---:"] * (len(headings) - 1)]]
    for method in shared:
        cells = [cell or NOTHING for of_model in lines for cell in _cells(of_model[method])]
        rows.append([str(label(lines[0][method].row.method)), *cells])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return "\n\n".join([table, *_captions([caption_parts(results, times) for results, times in runs])]) + "\n"


def _captions(runs: Sequence[list[str]]) -> list[str]:
    """What holds for all models once, then of each what is its own."""
    shared = [part for part in runs[0] if all(part in parts for parts in runs)]
    own = [" ".join(part for part in parts if part not in shared) for parts in runs]
    return [" ".join(shared), *own] if shared else own


def _key(method: str) -> str:
    """Its spec; the name of a preset, which stands for other methods in each model."""
    shown = label(method)
    return str(shown) if shown.name == PRESET else method


def _cells(line: Line) -> tuple[str, str, str, str]:
    change = "" if line.row.flops_change is None else f"{100 * line.row.flops_change:+.1f}%"
    return accuracy_cell(line), fixed(line.row.fid), change, line.speed
