"""The joint run: classification, generation, cost and speed of every method, in one file that resumes."""

from bigain.evaluate.engine import run
from bigain.evaluate.export import read_results, write_results
from bigain.evaluate.plan import GRIDS, SIZES, Settings, split_specs
from bigain.evaluate.store import Store
from bigain.evaluate.summary import Results, Row, Timing, Timings, summarise, timings

__all__ = [
    "GRIDS",
    "SIZES",
    "Results",
    "Row",
    "Settings",
    "Store",
    "Timing",
    "Timings",
    "read_results",
    "run",
    "split_specs",
    "summarise",
    "timings",
    "write_results",
]
