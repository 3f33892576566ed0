"""The choice for a budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigain.backbones import applied_to, remove
from bigain.search.knapsack import allocate
from bigain.search.measuring import read_record
from bigain.ui import choose
from bigain.ui.models import Models, Opened


def test_more_saved_costs_more_along_the_curve(opened: Opened) -> None:
    curve = choose.of_model(opened).curve
    assert len(curve) > 10
    for key in ("saved", "cost"):
        values = [point[key] for point in curve]
        assert values == sorted(values)


@pytest.mark.parametrize("saved", [5, 20, 60])
def test_a_choice_is_that_of_the_knapsack(opened: Opened, saved: int) -> None:
    found = choose.of_model(opened)
    choice = found.choice(saved)
    record = read_record(opened.offers)  # type: ignore[arg-type]
    expected = allocate(record.offers().offers, round(saved * record.flops / 100))
    assert choice.methods == expected.methods
    assert found.point(choice)["saved"] >= saved - 0.01


@pytest.mark.parametrize("saved", [0, 100])
def test_a_budget_must_be_in_reach(opened: Opened, saved: int) -> None:
    with pytest.raises(ValueError, match=rf"FLOPs saved must be above 0 and at most \d+%, not {saved}%"):
        choose.of_model(opened).choice(saved)


def test_the_three_lines_apply_the_file(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = choose.of_model(opened)
    choice = found.choice(30)
    monkeypatch.chdir(tmp_path)
    Path("mine.json").write_text(choose.preset(opened, found, choice))
    lines = choose.python(opened, "mine.json")
    assert lines.count("\n") == 2
    names: dict[str, object] = {}
    exec(lines, names)
    assert applied_to(names["model"]) == choice.methods
    remove(names["model"])


def test_a_model_that_was_not_measured_is_told_how(models: Models) -> None:
    opened = Opened("./mine", models["glyphs-dit"].denoiser)
    with pytest.raises(FileNotFoundError, match=r"bigain allocate --save 0.2 --model ./mine does"):
        choose.of_model(opened)
