"""What the page says, as HTML. All that came from a user or a model's config is escaped."""

from __future__ import annotations

import math
from html import escape

from bigain.report.style import label
from bigain.search.offers import Allocation, Offers
from bigain.ui.classify import Race, Verdict
from bigain.ui.compress import Comparison, Side


def facts(pairs: list[tuple[str, str]]) -> str:
    """Names and values beside each other."""
    cells = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="facts">{cells}</dl>'


def bar(done: int, of: int, what: str) -> str:
    """How far something is."""
    told = f"{what}: {done} of {of}"
    return f'<label class="bar">{escape(told)}<progress value="{done}" max="{of}"></progress></label>'


def comparison(known: Comparison) -> str:
    """How far the two images are; then what they took, and how they differ."""
    if known.compressed.image is None:
        side, what = (known.plain, "Without compression") if known.plain.image is None else (known.compressed, "With")
        return bar(side.steps, known.steps, f"{what}, step")
    psnr = known.psnr
    assert psnr is not None
    faster = known.plain.seconds / known.compressed.seconds
    return (
        facts(
            [
                ("seconds", f"{_seconds(known.plain)} → {_seconds(known.compressed)} ({faster:.2f}×, one run of each)"),
                ("FLOPs saved", f"{100 * known.saved:.1f}%"),
                ("PSNR", "no pixel differs" if math.isinf(psnr) else f"{psnr:.1f} dB"),
            ]
        )
        + f'<p class="spec">Method: <code>{escape(known.methods)}</code></p>'
    )


def _seconds(side: Side) -> str:
    return f"{side.seconds:.2f}"


def verdict(known: Verdict) -> str:
    """The races, each a table; and what they took."""
    parts = [_race(known.compressed, "With the method" if known.plain else "The race")]
    if known.plain is not None:
        parts.append(_race(known.plain, "The same without compression"))
    if known.compressed.prediction is not None:
        papers = f"{known.papers} forwards would be those of the papers' stages."
        parts.append(f"<p>{papers}</p>")
    return "".join(parts)


def _race(race: Race, title: str) -> str:
    done = race.prediction
    head = [("seconds", f"{race.seconds:.2f}"), ("forwards", str(race.forwards))]
    if done is not None:
        head = [("answer", done.name), ("probability", f"{100 * done.probability:.1f}%"), *head]
    largest = max((abs(d) for one in race.standings for d in one.differences if d is not None), default=0.0) or 1.0
    heads = "".join(f'<th scope="col" class="t">{t}</th>' for t in race.timesteps)
    rows = []
    for one in race.standings:
        cells = "".join(_cell(difference, largest) for difference in one.differences)
        state = "in the race" if one.alive else f"out after {sum(d is not None for d in one.differences)}"
        rows.append(
            f'<tr class="{"alive" if one.alive else "out"}"><th scope="row">{escape(one.name)}</th>'
            f"<td>{one.behind:.2e}</td><td>{state}</td>{cells}</tr>"
        )
    table = (
        '<div class="scroll" tabindex="0" role="region" aria-label="The race"><table class="race"><thead><tr>'
        '<th scope="col">class</th><th scope="col">error behind the best</th><th scope="col">state</th>'
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
    return f"<h3>{escape(title)}</h3>{facts(head)}{table}"


def _cell(difference: float | None, largest: float) -> str:
    """One timestep of a class: the darker, the further behind the best; green where it is ahead of it."""
    if difference is None:
        return '<td class="cell"></td>'
    share = round(100 * min(1.0, abs(difference) / largest) ** 0.5)
    colour = "var(--ahead)" if difference <= 0 else "var(--behind)"
    shade = f"color-mix(in srgb, {colour} {max(share, 8)}%, white)"
    return f'<td class="cell" title="{difference:+.1e}" style="background: {shade}"></td>'


def allocation(choice: Allocation, offers: Offers, layers: tuple[str, ...]) -> str:
    """What each layer takes."""
    taken = {offer.layer: offer for offer in choice.offers}
    rows = []
    for number, name in enumerate(layers):
        offer = taken.get(number)
        cells = ("nothing", "", "")
        if offer is not None:
            saved, cost = 100 * offer.saved / offers.flops, offer.cost()
            cells = (str(label(offer.candidate)), f"{saved:.1f}", f"{cost:.2e}")
        rows.append(
            f'<tr><th scope="row">{number} <small>{escape(name)}</small></th>'
            f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"
        )
    heads = "".join(f'<th scope="col">{name}</th>' for name in ("layer", "method", "FLOPs saved, %", "change"))
    return (
        '<div class="scroll" tabindex="0" role="region" aria-label="The choice"><table><thead><tr>'
        f"{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )
