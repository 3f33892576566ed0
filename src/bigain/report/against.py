"""Some methods against all that save no more FLOPs than they do: by how much they are better, in each measure."""

from __future__ import annotations

from bigain.evaluate import Comparison, Gain, Results
from bigain.report.labels import label
from bigain.report.table import NOTHING

_SLACK = 0.005  # of the FLOPs of no compression: what counts as saving the same
_UNITS = (("accuracy", 100, " points"), ("fid", 1, " FID"), ("psnr", 1, " dB"))


def against(results: Results) -> str:
    """A Markdown table of ``results.comparisons``: a row for each other method, a column for each that is compared.

    A cell is empty where the other method saves more FLOPs, so that nothing is said of unequal budgets in favour of
    what is compared; below the table stands how often it is better in every measure.

    Raises:
        ValueError: the results have no comparisons.
    """
    if not results.comparisons:
        raise ValueError("these results compare no methods: export them with --against")
    methods = list(dict.fromkeys(each.method for each in results.comparisons))
    found = {(each.method, each.other): each for each in results.comparisons}
    saved = {row.method: -(row.flops_change or 0.0) for row in results.rows}
    lines = [["method", "FLOPs", *(f"{label(method)} ({_share(saved[method])})" for method in methods)]]
    lines.append(["---", "---:", *["---:"] * len(methods)])
    rivals = [row.method for row in results.rows if row.method not in ("none", *methods)]
    fair = {method: [other for other in rivals if saved[other] <= saved[method] + _SLACK] for method in methods}
    for other in sorted(rivals, key=lambda name: saved[name]):
        cells = [_cell(found[method, other]) if other in fair[method] else "saves more" for method in methods]
        lines.append([str(label(other)), _share(saved[other]), *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return "\n\n".join(
        [table, *(_verdict(method, [found[method, other] for other in fair[method]]) for method in methods)]
    )


def _verdict(method: str, comparisons: list[Comparison]) -> str:
    """Against how many it is surely better in everything, and where not."""
    short = [each for each in comparisons if _lacking(each)]
    text = (
        f"{label(method)}: of {len(comparisons)} settings that save as much or less, it is better than "
        f"{len(comparisons) - len(short)} in accuracy, FID and PSNR alike, by intervals that exclude 0"
    )
    if not short:
        return f"{text}."
    exceptions = [f"{label(each.other)} ({', '.join(_lacking(each))})" for each in short]
    return f"{text}. The others, and in what it is not seen to be better: {'; '.join(exceptions)}."


def _lacking(comparison: Comparison) -> list[str]:
    return [
        name.upper() if name != "accuracy" else name
        for name, gain in comparison.gains.items()
        if gain is None or not gain.is_certain
    ]


def _cell(comparison: Comparison) -> str:
    gains = comparison.gains
    return "<br>".join(_written(gains[name], scale, unit) for name, scale, unit in _UNITS)


def _written(gain: Gain | None, scale: float, unit: str) -> str:
    if gain is None:
        return NOTHING
    value, low, high = (f"{scale * number:+.1f}" for number in (gain.value, gain.low, gain.high))
    return f"{value}{unit} ({low} to {high})"


def _share(saved: float) -> str:
    return f"{-100 * saved:+.1f}%"
