"""The page that sets what a run found beside what the paper claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from bigain.report.table import caption, markdown_rows
from bigain.run.results import Results, Row, Timings
from experiments.paper.claims import PaperTable
from experiments.paper.verdicts import Verdict

_UNITS = {"accuracy": " points", "fid": " FID", "flops": "% of the FLOPs", "time": "% of the time"}
_MEANING = (
    "A claim agrees where the 95% interval of the paired difference lies above 0, disagrees where it lies below, and "
    "cannot be told where it holds 0; each interval is on its own, none is corrected for the number of claims."
)
_COUNTED = {
    "agrees": "agree",
    "disagrees": "disagree",
    "cannot tell": "cannot be told",
    "not measured": "were not measured",
}


def verdict_cells(verdict: Verdict) -> tuple[str, str, str]:
    """The claim, by how much what it calls better is better here with the 95% interval, and the word for it."""
    return verdict.claim.text, _found(verdict), verdict.word


def reproduction_page(
    found: Mapping[PaperTable, Sequence[Verdict]], results: Results, times: Timings | None, strength: str
) -> str:
    """Markdown: the verdicts, then each table of the paper as it was measured here, then what it was measured on.

    Args:
        strength: ratio and factor in words.
    """
    counts = Counter(verdict.word for verdicts in found.values() for verdict in verdicts)
    parts = [f"# What the paper claims, on {results.settings['model']}"]
    if counts:
        total = f"At {strength}, {counts.total()} claims: " + ", ".join(
            f"{counts[word]} {many}" for word, many in _COUNTED.items() if counts[word]
        )
        rows = ["| table | claim | better by, 95% interval | |", "|---|---|---:|---|"]
        rows += [
            f"| {table.number} | {' | '.join(verdict_cells(verdict))} |"
            for table, verdicts in found.items()
            for verdict in verdicts
        ]
        parts += [f"{total}. {_MEANING}", "\n".join(rows)]
    for table in found:
        measured = markdown_rows(results.with_rows(rows_of(table, results)), times)
        parts += [f"## Table {table.number}: {table.title}", measured]
    return "\n\n".join([*parts, caption(results, times)]) + "\n"


def rows_of(table: PaperTable, results: Results) -> tuple[Row, ...]:
    """No compression, and what the table compares."""
    return tuple(row for row in results.rows if row.method in ("none", *table.methods))


def _found(verdict: Verdict) -> str:
    if verdict.gain is None:
        return "–"
    scale = 100 if verdict.claim.measure in ("flops", "time") else 1
    text = f"{scale * verdict.gain:+.1f}{_UNITS[verdict.claim.measure]}"
    if verdict.low is None or verdict.high is None:
        return f"{text}, too few rounds for an interval"
    if verdict.low == verdict.high:
        return text
    return f"{text} ({scale * verdict.low:+.1f} to {scale * verdict.high:+.1f})"
