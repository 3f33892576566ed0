"""How much faster can the published models become at most? `python -m benchmarks.bounds --help`.

What `bigain bound` says of each at the sizes of its card, as one table: from configs alone, so no machine matters.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bigain.backbones.bound import at_sizes
from bigain.report.bound import markdown
from bigain.zoo.published import names, published
from experiments.tables import put_between


def table(models: list[str]) -> str:
    """Markdown: a row per model and size."""
    return markdown([sized for name in models for sized in at_sizes(published(name))])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(names()))
    parser.add_argument("--docs", type=Path, help="also put the table between the bounds markers of this file")
    args = parser.parse_args()
    text = table(args.models)
    print(text)
    if args.docs is not None:
        put_between(args.docs, "bounds", text)


if __name__ == "__main__":
    main()
