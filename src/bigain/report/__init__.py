"""What is made of results: tables, pictures, and a look inside one forward."""

from bigain.report.against import against, against_verdicts
from bigain.report.analysis import TextTable, analysis_page, analysis_tables, write_analysis
from bigain.report.comparison import side_by_side
from bigain.report.folder import write_folder
from bigain.report.inspection import Inspection, draw_inspection, inspect_method
from bigain.report.labels import Label, label
from bigain.report.markers import has_markers, put_between
from bigain.report.pictures import draw_front, draw_samples
from bigain.report.search import draw_search
from bigain.report.table import markdown, terminal
from bigain.report.verdicts import reproduction_page, rows_of, verdict_cells

__all__ = [
    "Inspection",
    "Label",
    "TextTable",
    "against",
    "against_verdicts",
    "analysis_page",
    "analysis_tables",
    "draw_front",
    "draw_inspection",
    "draw_samples",
    "draw_search",
    "has_markers",
    "inspect_method",
    "label",
    "markdown",
    "put_between",
    "reproduction_page",
    "rows_of",
    "side_by_side",
    "terminal",
    "verdict_cells",
    "write_analysis",
    "write_folder",
]
