"""What `bigain allocate` prints: the method of each layer, the steps of its search, and what came of the target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from bigain.report.style import NOTHING, label

if TYPE_CHECKING:
    from bigain.run.results import Gain
    from bigain.search.choice import Choice
    from bigain.search.clock import Clocked
    from bigain.search.offers import Offer
    from bigain.search.target import TargetSettings


def allocation(choice: Choice) -> Group:
    """Tables for `rich`: what each layer takes, and the steps of a bisection or the measured speed."""
    steps = [_steps(choice)] if choice.steps else []
    speed = (
        [] if choice.clocked is None or choice.speed is None else _speed(choice.target, choice.clocked, choice.speed)
    )
    return Group(_layers(choice), *steps, *speed)


def _layers(choice: Choice) -> Table:
    offers, clocked = choice.offers, choice.clocked
    title = (
        "What each layer takes; changes: mean squares, of the prediction and of the difference between two classes, as "
        "shares of that difference's own"
    )
    timed = () if clocked is None else ("time saved, %",)
    ranged = ("timesteps",) if len(choice.ranges) > 1 else ()
    columns = ("layer", *ranged, "method", "FLOPs saved, %", *timed, "change, %", "of the difference, %")
    table = Table(*columns, title=title, title_justify="left")

    def add(layer: str, timesteps: str, method: str, taken: Sequence[Offer]) -> None:
        shares = [f"{100 * sum(offer.saved for offer in taken) / offers.flops:.1f}"]
        if clocked is not None:
            shares.append(f"{100 * clocked.seconds_saved(taken) / clocked.forward:.1f}")
        costs = [sum(offer.change for offer in taken), sum(offer.contrast for offer in taken)]
        place = (layer, timesteps) if ranged else (layer,)
        table.add_row(*place, method, *shares, *(f"{100 * cost:.2f}" for cost in costs))

    by_place = {offer.place: offer for offer in choice.allocation.offers}
    for place in sorted({offer.place for offer in offers.offers}):
        taken = [by_place[place]] if place in by_place else []
        layer, timesteps = str(place[0]), "-".join(map(str, place[1]))
        add(layer, timesteps, str(label(taken[0].candidate)) if taken else "none", taken)
    table.add_section()
    add("", "", "sum", choice.allocation.offers)
    if choice.settled is not None:
        changes = (f"{100 * value:.2f}" for value in (choice.settled.change, choice.settled.contrast))
        blank = [""] * (len(columns) - len(ranged) - 4)
        table.add_row("", *("" for _ in ranged), "measured together", *blank, *changes)
    return table


def _steps(choice: Choice) -> Table:
    """In the order of what is saved; the step that was chosen is bold."""
    columns = {
        "change of accuracy, points (95%)": [_gain(step.accuracy, 100, "+.1f") for step in choice.steps],
        "PSNR, dB (95%)": [_gain(step.psnr, 1, ".1f") for step in choice.steps],
    }
    measured = {name: cells for name, cells in columns.items() if any(cell != NOTHING for cell in cells)}
    table = Table("FLOPs saved, %", *measured, "keeps the target", title="Steps", title_justify="left")
    for number, step in sorted(enumerate(choice.steps), key=lambda numbered: numbered[1].saved):
        cells = [cells[number] for cells in measured.values()]
        style = "bold" if step is choice.kept else None
        table.add_row(f"{100 * step.saved:.1f}", *cells, "yes" if step.keeps else "no", style=style)
    return table


def _gain(gain: Gain | None, scale: float, form: str) -> str:
    if gain is None:
        return NOTHING
    value, low, high = (f"{scale * number:{form}}" for number in (gain.value, gain.low, gain.high))
    return f"{value} ({low} to {high})"


def _speed(target: TargetSettings, clocked: Clocked, speed: dict[str, float]) -> list[Text]:
    asked, measured = target.speed_up or 1.0, speed["measured"]
    told = (
        f"Speed, batches of {clocked.environment['batch_size']}: {measured:.2f}x as measured together, "
        f"{speed['expected']:.2f}x by the layers alone, {asked:.2f}x asked for"
    )
    if measured >= asked:
        return [Text(told)]
    advice = "That is less than was asked for: ask for more, or time it again on an idle machine"
    return [Text(told), Text(advice, style="yellow")]
