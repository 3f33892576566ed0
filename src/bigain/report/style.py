"""How all tables and pictures look: a method's name, colour and marker, a figure and its file, a Markdown table.

matplotlib is imported when a figure is made, as tables do without.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from bigain.methods import METHODS, Compression, Label
from bigain.zoo import presets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NOTHING = "–"  # an empty cell
PRESET = "Preset"  # the name of all presets of models
_PRESETS = ("quality", "balanced", "fast")  # from little to much

# Okabe & Ito (2008), "Color Universal Design", and Paul Tol's "muted": told apart with any common colour blindness.
COLOURS = {method.title: method.colour for method in METHODS.values()} | {PRESET: "#332288"}
_MORE_COLOURS = ("#117733", "#661100")  # of methods together
_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "p")


def label(text: str | Compression) -> Label:
    """The label of methods or their spec: that of the preset which they are, or their own.

    Example:
        >>> str(label("tome:ratio=0.5,destinations=random,redraw=forward"))
        'ToMe 50%, random per forward'
    """
    methods = Compression.of(presets.text_of(text) if isinstance(text, str) else text)
    if len(methods) > 1:
        for preset in presets.names():
            if Compression.of(presets.text_of(preset)) == methods:
                name = preset.partition("/")[2]
                return Label(PRESET, "", name, float(_PRESETS.index(name)))
    return methods.label


class Style(NamedTuple):
    """A method's colour and marker."""

    colour: str
    marker: str


PLAIN = Style("#000000", "*")  # of no compression


def styles(names: Mapping[str, str], *, apart: bool = False) -> dict[str, Style]:
    """The style of every key, in order: a method has one colour, and its keys differ in the marker.

    ``names`` are the methods', as labels have them, by key, such as a family or a spec; ``apart`` gives each key a
    colour of its own instead, as long as there are colours.
    """
    groups = {key: key if apart else name for key, name in names.items()}
    colours: dict[str, str] = {}
    for key, name in names.items():
        if name in COLOURS and COLOURS[name] not in colours.values():
            colours[groups[key]] = COLOURS[name]
    palette = (*_MORE_COLOURS, *COLOURS.values())
    free = [colour for colour in palette if colour not in colours.values()] or palette
    others = [group for group in dict.fromkeys(groups.values()) if group not in colours]
    colours |= {group: free[number % len(free)] for number, group in enumerate(others)}
    seen: Counter[str] = Counter()
    result = {}
    for key, name in names.items():
        result[key] = Style(colours[groups[key]], _MARKERS[seen[name] % len(_MARKERS)])
        seen[name] += 1
    return result


def new_figure(width: float, height: float, **options: Any) -> Figure:
    """A figure of that many inches that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=150, **options)
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, path: Path | IO[bytes]) -> None:
    """Writes a figure as a PNG file whose bytes repeat."""
    figure.savefig(path, metadata={"Software": None})


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """GitHub's Markdown: the first column to the left, the others to the right; an empty cell is a dash."""
    lines = [headings, ["---", *["---:"] * (len(headings) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cell or NOTHING for cell in line)} |" for line in lines)
