"""What `bigain bound` shows: how much faster a forward can become at most, as a table, JSON and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from bigain.backbones.bound import WAYS, Bounds, Sized
from bigain.report.style import COLOURS, NOTHING, markdown_table, new_figure, save

_CEILING = "no attention at all"
_HEADINGS = (
    "model",
    "size",
    "tokens",
    "text",
    "TFLOPs",
    "attention",
    "pooled 2×2",
    "pooled 4×4",
    "pooled 2×2×2",
    "merged 50%",
    "merged 75%",
    "blocks 50%",
    "no attention",
)
_PICTURED = tuple(COLOURS.values())


def terminal(sizes: Sequence[Sized]) -> Table:
    """A table for `rich` of one model: a column per size, a row per way."""
    table = Table(title=f"{sizes[0].model}: at most, times as fast as without", title_justify="left")
    table.add_column("")
    for sized in sizes:
        table.add_column(sized.size_text, justify="right")

    bounds = [sized.bounds for sized in sizes]
    table.add_row("image tokens, by level", *(sized.tokens_text for sized in sizes))
    table.add_row("text tokens", *(str(one.text) if one.text else NOTHING for one in bounds))
    table.add_row("TFLOPs of a forward", *map(_teraflops, bounds))
    table.add_row("of which attention", *(f"{one.attention:.0%}" for one in bounds))
    table.add_section()
    for way in WAYS:
        values = [one.speed_ups[way.name] for one in bounds]
        if any(value is not None for value in values):
            table.add_row(way.title, *map(_times, values))
    table.add_row(_CEILING, *(_times(one.ceiling) for one in bounds))
    return table


def markdown(sizes: Sequence[Sized]) -> str:
    """A table of many models; of two bounds in a cell the second has projections on fewer tokens too."""
    rows = []
    for sized in sizes:
        one = sized.bounds
        facts = (
            sized.model,
            sized.size_text,
            sized.tokens_text,
            str(one.text) if one.text else "",
            _teraflops(one),
            f"{one.attention:.0%}",
        )
        rows.append((*facts, *_cells(one), _times(one.ceiling)))
    return markdown_table(_HEADINGS, rows)


def content(sizes: Sequence[Sized]) -> dict[str, Any]:
    """For a JSON file: a row per size; bounds by the names of the ways, null where there is no such."""
    return {
        "model": sizes[0].model,
        "sizes": [
            {
                "width": sized.size[0],
                "height": sized.size[1],
                "frames": sized.size[2],
                "tokens": list(sized.bounds.levels),
                "text": sized.bounds.text,
                "flops": round(sized.bounds.flops),
                "attention": round(sized.bounds.attention, 6),
                "speed_ups": {
                    name: None if value is None else round(value, 4) for name, value in sized.bounds.speed_ups.items()
                },
                "ceiling": round(sized.bounds.ceiling, 4),
            }
            for sized in sizes
        ],
    }


def draw(sizes: Sequence[Sized], path: Path) -> None:
    """Draws a group of bars per way, in it a bar per size of one model."""
    ways = [way for way in WAYS if any(sized.bounds.speed_ups[way.name] is not None for sized in sizes)]
    titles = [*(way.title for way in ways), _CEILING]
    figure = new_figure(9, 1.5 + 0.16 * len(titles) * (len(sizes) + 1), layout="constrained")
    axis = figure.subplots()
    step = 0.8 / len(sizes)
    for number, sized in enumerate(sizes):
        one = sized.bounds
        values = [*(one.speed_ups[way.name] or 1.0 for way in ways), one.ceiling]
        places = [place + (number - (len(sizes) - 1) / 2) * step for place in range(len(titles))]
        bars = axis.barh(
            places,
            [value - 1 for value in values],
            step,
            left=1.0,
            color=_PICTURED[number % len(_PICTURED)],
            label=f"{sized.size_text}: {sized.tokens_text} tokens, attention {one.attention:.0%}",
        )
        axis.bar_label(bars, [f"{value:.2f}" for value in values], padding=2, fontsize=7)
    axis.set_yticks(range(len(titles)), titles)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set_xlim(left=1.0)
    axis.set_xlabel("at most, times as fast")
    axis.set_title(sizes[0].model)
    figure.legend(frameon=False, fontsize=9, loc="outside lower center")
    save(figure, path)


def _teraflops(one: Bounds) -> str:
    return f"{one.flops / 1e12:,.3g}" if one.flops < 1e14 else f"{one.flops / 1e12:,.0f}"


def _times(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _cells(one: Bounds) -> list[str]:
    """A cell per way; a way and the same with projections share one."""
    cells: list[str] = []
    for way in WAYS:
        value = one.speed_ups[way.name]
        if way.where != "projections":
            cells.append("" if value is None else f"{value:.2f}")
        elif value is not None:
            cells[-1] += f" / {value:.2f}"
    return cells
