"""Runs what tables of the paper compare, and sets what was measured beside what the paper claims.

    python -m experiments.paper.reproduce 15 --out runs/claims --model glyphs-sd --classify 200 --generate 200
    python -m experiments.paper.reproduce all --ratio 0.3 --out runs/claims --config experiments/paper/claims.toml

All other flags go to `bigain evaluate`. The verdicts, with the tables, go to OUT/claims.md or --page.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bigain.cli import app
from bigain.report.style import markdown_table
from bigain.report.table import caption, markdown_rows
from bigain.run.files import write_whole
from bigain.run.results import Results, Timings
from bigain.run.store import Store
from bigain.run.summary import Paired, summarise, timings
from experiments.paper.claims import PaperTable, asks_for_text, paper_tables
from experiments.paper.verdicts import Verdict, judge

_UNITS = {"accuracy": " points", "fid": " FID", "flops": "% of the FLOPs", "time": "% of the time"}
_MEANING = (
    "A claim agrees where the 95% interval of the paired difference lies above 0, disagrees where it lies below, and "
    "cannot be told where it holds 0. Each interval is on its own; none is corrected for the number of claims."
)


def page(
    judged: Mapping[str, Sequence[Verdict]], tables: Mapping[str, PaperTable], results: Results, times: Timings | None
) -> str:
    """Markdown: the verdicts, then each table of the paper as it was measured, then what it was measured on."""
    counts = Counter(verdict.word for verdicts in judged.values() for verdict in verdicts)
    told = ", ".join(f"{word}: {count}" for word, count in counts.items())
    rows = [
        [number, verdict.claim.text, difference(verdict), verdict.word]
        for number, verdicts in judged.items()
        for verdict in verdicts
    ]
    parts = [f"# What the paper claims, on {results.settings['model']}"]
    if rows:
        parts += [f"{len(rows)} claims ({told}). {_MEANING}", markdown_table(["table", "claim", "better by", ""], rows)]
    for number in judged:
        shown = tuple(row for row in results.rows if row.method in ("none", *tables[number].methods))
        parts += [f"## Table {number}: {tables[number].title}", markdown_rows(replace(results, rows=shown), times)]
    return "\n\n".join([*parts, caption(results, times)]) + "\n"


def difference(verdict: Verdict) -> str:
    """By how much what the claim calls better is better here, with the 95% interval."""
    if verdict.gain is None:
        return ""
    scale = 100 if verdict.claim.measure in ("flops", "time") else 1
    text = f"{scale * verdict.gain:+.1f}{_UNITS[verdict.claim.measure]}"
    if verdict.low is None or verdict.high is None:
        return f"{text}, too few rounds for an interval"
    return (
        text if verdict.low == verdict.high else f"{text} ({scale * verdict.low:+.1f} to {scale * verdict.high:+.1f})"
    )


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", choices=[*paper_tables(), "all"], help="a table of the paper; 11 stands for 18 too")
    parser.add_argument("--ratio", type=float, default=0.7, help="share of the tokens that is merged")
    parser.add_argument("--factor", type=int, default=2, help="of downsampling")
    parser.add_argument("--without-text", action="store_true", help="leave out what merges around cross-attention")
    parser.add_argument("--out", type=Path, default=Path("runs/claims"), help="one results file for all tables")
    parser.add_argument("--page", type=Path, help="OUT/claims.md if left out")
    given, flags = parser.parse_known_args(arguments)
    tables = paper_tables(given.ratio, given.factor)
    chosen = list(tables) if given.table == "all" else [given.table]
    methods = dict.fromkeys(method for number in chosen for method in tables[number].methods)
    kept = [method for method in methods if not (given.without_text and asks_for_text(method))]
    app(["evaluate", *flags, "-m", " ".join(kept), "--out", str(given.out)], standalone_mode=False)
    with Store(given.out / "results.sqlite") as store:
        results, times, paired = summarise(store), timings(store), Paired(store)
        judged = {number: [judge(paired, claim) for claim in tables[number].claims] for number in chosen}
    write_whole(given.page or given.out / "claims.md", page(judged, tables, results, times))


if __name__ == "__main__":
    main()
