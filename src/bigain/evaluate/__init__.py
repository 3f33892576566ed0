"""The joint run: classification, generation, cost and speed of every method, in one file that resumes."""

from bigain.evaluate.allocation import Allocation, Offer, allocate
from bigain.evaluate.analysis import analyse
from bigain.evaluate.budget import at_equal_flops
from bigain.evaluate.claims import Claim, PaperTable, asks_for_text, paper_tables
from bigain.evaluate.clocked import Clocked, clock_offers, kept_times
from bigain.evaluate.effects import Analysis, Effect, Piece, read_analysis
from bigain.evaluate.engine import run
from bigain.evaluate.export import add_results, read_results, write_results
from bigain.evaluate.gains import Comparison, Gain, Paired, compare
from bigain.evaluate.offers import CANDIDATES, Offers, measure_offers, read_offers
from bigain.evaluate.plan import GRIDS, SIZES, Settings, split_specs
from bigain.evaluate.spectra import Spectrum
from bigain.evaluate.store import Store
from bigain.evaluate.summary import Results, Row, Timing, Timings, summarise, timings
from bigain.evaluate.trials import TARGETS, Target, Trial, choose, front, parse_target
from bigain.evaluate.tuning import tune
from bigain.evaluate.verdicts import Verdict, judge

__all__ = [
    "CANDIDATES",
    "GRIDS",
    "SIZES",
    "TARGETS",
    "Allocation",
    "Analysis",
    "Claim",
    "Clocked",
    "Comparison",
    "Effect",
    "Gain",
    "Offer",
    "Offers",
    "Paired",
    "PaperTable",
    "Piece",
    "Results",
    "Row",
    "Settings",
    "Spectrum",
    "Store",
    "Target",
    "Timing",
    "Timings",
    "Trial",
    "Verdict",
    "add_results",
    "allocate",
    "analyse",
    "asks_for_text",
    "at_equal_flops",
    "choose",
    "clock_offers",
    "compare",
    "front",
    "judge",
    "kept_times",
    "measure_offers",
    "paper_tables",
    "parse_target",
    "read_analysis",
    "read_offers",
    "read_results",
    "run",
    "split_specs",
    "summarise",
    "timings",
    "tune",
    "write_results",
]
