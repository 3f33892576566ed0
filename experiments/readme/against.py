"""Some methods against all that save no more FLOPs than they do: by how much they are better, in each measure."""

from __future__ import annotations

from bigain.report.style import label
from bigain.report.table import NOTHING
from bigain.run.results import Comparison, Gain, Results

_SLACK = 0.005  # of the FLOPs of no compression: what counts as saving the same
_UNITS = (("accuracy", 100, 1, " points"), ("fid", 1, 2, " FID"), ("psnr", 1, 1, " dB"))  # scale, digits


def against(results: Results) -> str:
    """A Markdown table of ``results.comparisons``: a row for each other method, a column for each that is compared.

    A method that saves more FLOPs, beyond half a point of those of no compression, is not compared: the cell says so.
    A pair that was not measured together has a dash and is not counted below. One whose FLOPs are not known is left
    out. Below the table stands how often each is better in every measure.

    Raises:
        ValueError: the results have no comparisons, or no FLOPs of what is compared.
    """
    methods, rivals, saved = _compared(results)
    found = {(each.method, each.other): each for each in results.comparisons}
    lines = [["method", "FLOPs", *(f"{label(method)} ({_share(saved[method])})" for method in methods)]]
    lines.append(["---", "---:", *["---:"] * len(methods)])
    for other in rivals:
        cells = [
            _cell(found.get((method, other))) if _is_fair(saved, method, other) else "saves more" for method in methods
        ]
        lines.append([str(label(other)), _share(saved[other]), *cells])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{table}\n\n{against_verdicts(results)}"


def against_verdicts(results: Results) -> str:
    """Markdown: of each method that is compared, how often it is better in every measure, and the exceptions.

    Raises:
        ValueError: as ``against``.
    """
    methods, rivals, saved = _compared(results)
    found = {(each.method, each.other): each for each in results.comparisons}
    pairs = [[(method, other) for other in rivals if _is_fair(saved, method, other)] for method in methods]
    return "\n\n".join(
        _verdict(method, [found[pair] for pair in those if pair in found])
        for method, those in zip(methods, pairs, strict=True)
    )


def _compared(results: Results) -> tuple[list[str], list[str], dict[str, float]]:
    """What is compared, with what, in the order of the FLOPs that these save, and the share that each saves."""
    if not results.comparisons:
        raise ValueError("these results compare no methods: export them with --against")
    methods = list(dict.fromkeys(each.method for each in results.comparisons))
    saved = {row.method: -row.flops_change for row in results.rows if row.flops_change is not None}
    for method in methods:
        if method not in saved:
            raise ValueError(f"{method} has no FLOPs in these results, so it is not known which methods save no more")
    return methods, sorted(saved.keys() - {"none", *methods}, key=lambda name: (saved[name], name)), saved


def _is_fair(saved: dict[str, float], method: str, other: str) -> bool:
    return saved[other] <= saved[method] + _SLACK


def _verdict(method: str, comparisons: list[Comparison]) -> str:
    """Against how many it is surely better in everything, and where not."""
    short = [each for each in comparisons if _lacking(each)]
    text = (
        f"{label(method)}: of {len(comparisons)} settings that save as much (to half a point) or less, it is better "
        f"than {len(comparisons) - len(short)} in accuracy, FID and PSNR alike, each by its own 95% interval"
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


def _cell(comparison: Comparison | None) -> str:
    if comparison is None:
        return NOTHING
    gains = comparison.gains
    return "<br>".join(_written(gains[name], scale, digits, unit) for name, scale, digits, unit in _UNITS)


def _written(gain: Gain | None, scale: float, digits: int, unit: str) -> str:
    if gain is None:
        return NOTHING
    value, low, high = (f"{scale * number:+.{digits}f}" for number in (gain.value, gain.low, gain.high))
    return f"{value}{unit} ({low} to {high})"


def _share(saved: float) -> str:
    return f"{-100 * saved:+.1f}%"
