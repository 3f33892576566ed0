"""The charts of a page, as Vega-Lite specifications: with pointers, without a network."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from bigain.report.style import PLAIN, Style, label, styles

if TYPE_CHECKING:
    import altair as alt

    from bigain.search.offers import Offers

Points = Sequence[Mapping[str, Any]]
Chart = dict[str, Any]

_SHAPES = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down", "P": "cross"}
_STAR = "M0,-1L.26,-.36L.95,-.31L.42,.14L.59,.81L0,.44L-.59,.81L-.42,.14L-.95,-.31L-.26,-.36Z"
_HEIGHT = 380


@cache
def scripts() -> str:
    """The scripts that draw the charts, as one module that gives `vegaEmbed` to the window."""
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_version())


def svg(chart: Chart, width: int) -> str:
    """A chart as a picture of so many pixels that scales; a pointer over a mark is told its values."""
    import vl_convert

    # A browser may have wider letters than those that the labels were measured with.
    spec = chart | {"width": width, "padding": {"left": 40, "top": 5, "right": 10, "bottom": 5}}
    drawn = vl_convert.vegalite_to_svg(spec, vl_version=_version())
    return re.sub(r'(<path aria-label="([^"]+)"[^>]*)/>', r"\1><title>\2</title></path>", drawn)


def _version() -> str:
    import altair as alt

    return ".".join(alt.SCHEMA_VERSION.split(".")[:2])


def looks(methods: Sequence[str]) -> dict[str, Style]:
    """Colour and marker of each method's family."""
    families = {label(method).family: label(method).name for method in methods if method != "none"}
    plain = {label(method).family: PLAIN for method in methods if method == "none"}
    return plain | styles(families)


def front(points: Points, x: str, y: str, families: Mapping[str, Style], told: Sequence[tuple[str, str]]) -> Chart:
    """One measure against another: a mark per method, a line per family, and the 95% interval of the accuracy.

    The page puts other measures in the place of ``x`` and ``y``. ``told`` are the fields and names that a pointer
    shows.
    """
    import altair as alt

    base = alt.Chart(alt.Data(values=list(points))).encode(
        x=alt.X(f"{x}:Q", scale=alt.Scale(zero=False, padding=20)),
        color=_colours(families),
        tooltip=[alt.Tooltip("label:N", title="method"), *(alt.Tooltip(f"{key}:N", title=name) for key, name in told)],
    )
    upwards = alt.Y(f"{y}:Q", scale=alt.Scale(zero=False, padding=20))
    marks = [_SHAPES.get(style.marker, "stroke") if style != PLAIN else _STAR for style in families.values()]
    layers = (
        base.mark_rule(opacity=0.4).encode(y="low:Q", y2="high:Q").properties(name="intervals"),
        base.mark_line(opacity=0.5, strokeWidth=1).encode(y=upwards, order="amount:Q").properties(name="families"),
        base.mark_point(filled=True, size=130, opacity=1)
        .encode(y=upwards, shape=alt.Shape("family:N", scale=_scale(families, marks)))
        .properties(name="methods"),
    )
    return _finished(alt.layer(*layers).properties(height=_HEIGHT))


OVER_T = {"error": "error under the true class", "gap": "best other class minus true class"}
"""What is drawn over t, in words."""


def over_timesteps(points: Points, value: str, families: Mapping[str, Style]) -> Chart:
    """One of ``OVER_T`` of each method at each timestep."""
    import altair as alt

    base = alt.Chart(alt.Data(values=list(points)))
    lines = base.mark_line(point=True).encode(
        x=alt.X("t:Q", title="timestep t"),
        y=alt.Y(f"{value}:Q", title=OVER_T[value], scale=alt.Scale(zero=value == "gap")),
        color=_colours(families),
        detail="label:N",
        tooltip=[
            alt.Tooltip("label:N", title="method"),
            alt.Tooltip("t:Q"),
            *(alt.Tooltip(f"{key}:Q", title=name, format=".4g") for key, name in OVER_T.items()),
        ],
    )
    return _finished(lines.properties(height=_HEIGHT * 2 // 3))


def by_layer(points: Points, value: str, title: str, scheme: str, *, log: bool = False) -> Chart:
    """A field of colours: a column per layer, a row per method in the order of the points."""
    import altair as alt

    order = list(dict.fromkeys(point["label"] for point in points))
    chart = alt.Chart(alt.Data(values=list(points))).mark_rect()
    scale = alt.Scale(scheme=scheme, type="log" if log else "linear")  # type: ignore[arg-type]
    encoded = chart.encode(
        x=alt.X("layer:O", title="transformer block", axis=alt.Axis(labelAngle=0)),
        y=alt.Y("label:N", title=None, sort=order, axis=alt.Axis(labelLimit=220)),
        color=alt.Color(f"{value}:Q", title=title, scale=scale, legend=alt.Legend(orient="bottom")),
        tooltip=[
            alt.Tooltip("label:N", title="method"),
            alt.Tooltip("layer:O"),
            alt.Tooltip(f"{value}:Q", title=title, format=".3g"),
            *([alt.Tooltip("saved:Q", title="FLOPs saved, %", format=".2f")] if value != "saved" else []),
        ],
    )
    return _finished(encoded.properties(height=24 * len(order)))


def offered(offers: Offers) -> Chart:
    """What each candidate changes in each layer, for each percent of the FLOPs that it saves there."""
    points = []
    for offer in offers.offers:
        saved = 100 * offer.saved / offers.flops
        if saved > 0 and offer.cost() > 0:
            point = {"saved": saved, "cost": offer.cost() / saved}
            short = {key: float(f"{value:.5g}") for key, value in point.items()}
            points.append({"label": str(label(offer.candidate)), "layer": offer.layer} | short)
    return by_layer(points, "cost", "change per % saved", "viridis", log=True)


def allocations(points: Points, chosen: Mapping[str, float]) -> Chart:
    """The least change of the predictions over the share of FLOPs saved, and the choice that is meant.

    ``points`` and ``chosen`` have "saved", in percent, and "cost".
    """
    import altair as alt

    x = alt.X("saved:Q", title="FLOPs saved, %")
    y = alt.Y("cost:Q", title="change of the predictions", scale=alt.Scale(type="symlog", constant=1e-4))
    told = [alt.Tooltip("saved:Q", title="FLOPs saved, %", format=".1f"), alt.Tooltip("cost:Q", format=".3g")]
    line = alt.Chart(alt.Data(values=list(points))).mark_line(point=True, color="#332288")
    mark = alt.Chart(alt.Data(values=[dict(chosen)])).mark_point(filled=True, size=260, color="#CC6677", opacity=1)
    layers = (one.encode(x=x, y=y, tooltip=told) for one in (line, mark))
    return _finished(alt.layer(*layers).properties(height=_HEIGHT * 2 // 3))


def _colours(families: Mapping[str, Style]) -> alt.Color:
    import altair as alt

    colours = [style.colour for style in families.values()]
    legend = alt.Legend(orient="bottom", columns=3, labelLimit=220)
    return alt.Color("family:N", title=None, scale=_scale(families, colours), legend=legend)


def _scale(families: Mapping[str, Style], values: Sequence[str]) -> alt.Scale:
    import altair as alt

    return alt.Scale(domain=list(families), range=list(values))


def _finished(chart: Any) -> Chart:
    """As wide as the page, in its typeface."""
    font = "system-ui, sans-serif"
    spec: Chart = chart.configure(font=font, background="transparent").configure_axis(gridColor="#e6e6e6").to_dict()
    return spec | {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
