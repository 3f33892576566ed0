"""Sets the paper's published figures beside what a run of the same name measured.

python -m experiments.paper.compare results/sd2-pets.json
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bigain.methods import parse
from bigain.report.style import label, markdown_table
from bigain.run.results import Results, Row, read_results

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_PUBLISHED = Path(__file__).with_name("published.toml")
_MEASURES = {"accuracy": "accuracy, %", "fid": "FID", "saved": "FLOPs saved, %"}


def published() -> dict[str, dict[str, dict[str, float]]]:
    """By run, canonical method and measure."""
    content = tomllib.loads(_PUBLISHED.read_text(encoding="utf-8"))
    return {run: {parse(text).text: row for text, row in rows.items()} for run, rows in content.items()}


def comparison(name: str, results: Results) -> str:
    """A Markdown table: each published figure, what was measured, and the difference.

    Raises:
        ValueError: nothing is published under that name.
    """
    known = published()
    if name not in known:
        raise ValueError(f"the results must be named {', '.join(known)}, as the paper's runs are, not {name!r}")
    rows = {row.method: row for row in results.rows}
    lines = []
    for method, figures in known[name].items():
        for measure, heading in _MEASURES.items():
            if measure not in figures:
                continue
            ours = _measured(rows[method], measure) if method in rows else None
            shown = ["", ""] if ours is None else [f"{ours:.2f}", f"{ours - figures[measure]:+.2f}"]
            lines.append([str(label(method)), heading, f"{figures[measure]:.2f}", *shown])
    return markdown_table(["method", "measure", "published", "measured", "difference"], lines)


def _measured(row: Row, measure: str) -> float | None:
    if measure == "fid":
        return row.fid
    value = row.accuracy if measure == "accuracy" else row.flops_change
    return None if value is None else (100 if measure == "accuracy" else -100) * value


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="an exported .json, named as its config")
    given = parser.parse_args(arguments)
    print(comparison(given.results.stem, read_results(given.results)[0]))


if __name__ == "__main__":
    main()
