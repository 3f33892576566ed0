"""Exports a run for the repository, with its presets, or all methods where it has none, compared with every other.

    python -m experiments.export runs/results/glyphs-dit results/glyphs-dit.json

It takes 200 FIDs per method: a minute or two with the recogniser's 64 features, hours with Inception's 2,048.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bigain.methods import parse
from bigain.run.results import write_results
from bigain.run.store import Store
from bigain.run.summary import summarise, timings
from bigain.zoo import presets


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("results", type=Path, help="the .json to write; the .csv and the times go beside it")
    given = parser.parse_args(arguments)
    with Store(given.run / "results.sqlite") as store:
        named = [parse(presets.text_of(name)).text for name in presets.names()]
        measured = [method for method in store.methods() if method != "none"]
        compared = [method for method in measured if method in named] or measured
        given.results.parent.mkdir(parents=True, exist_ok=True)
        write_results(given.results, summarise(store, compared), timings(store))


if __name__ == "__main__":
    main()
