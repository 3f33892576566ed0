"""The page that sets what a run found beside what the paper claims."""

from __future__ import annotations

from collections.abc import Sequence

from bigain.evaluate import PaperTable, Results, Timings, Verdict
from bigain.report.table import markdown

_UNITS = {"accuracy": "points", "fid": "FID", "flops": "% of the FLOPs", "time": "% of the time"}


def verdict_cells(verdict: Verdict) -> tuple[str, str, str]:
    """The claim, what was found with its 95% interval, and the word for it."""
    return verdict.claim.text, _found(verdict), verdict.word


def reproduction(table: PaperTable, verdicts: Sequence[Verdict], results: Results, times: Timings | None) -> str:
    """Markdown: a table of the paper, measured here, and its claims with their verdicts."""
    lines = [f"Table {table.number} of the paper: {table.title}.", ""]
    if verdicts:
        lines += ["| claim | found here, 95% interval | |", "|---|---|---|"]
        lines += [f"| {' | '.join(verdict_cells(verdict))} |" for verdict in verdicts]
        lines.append("")
    kept = {"none", *table.methods}
    rows = tuple(row for row in results.rows if row.method in kept)
    return "\n".join([*lines, markdown(results.with_rows(rows), times)])


def _found(verdict: Verdict) -> str:
    if verdict.gain is None:
        return "–"
    scale = 100 if verdict.claim.measure in ("flops", "time") else 1
    text = f"better by {scale * verdict.gain:.1f} {_UNITS[verdict.claim.measure]}"
    if verdict.low is None or verdict.high is None:
        return f"{text}, too few rounds for an interval"
    if verdict.low == verdict.high:
        return text
    return f"{text} ({scale * verdict.low:.1f} to {scale * verdict.high:.1f})"
