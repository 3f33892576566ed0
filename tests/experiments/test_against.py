"""Methods against all that save no more, from results with given numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bigain.run.results import Comparison, Gain, Results, Row
from bigain.run.store import Store
from bigain.run.summary import summarise
from experiments.readme.against import against

BETTER, EVEN, WORSE = Gain(0.25, 0.1, 0.4), Gain(0.0, -0.1, 0.1), Gain(-0.25, -0.4, -0.1)


@pytest.fixture
def results(known_store: Store) -> Results:
    """lgtm 50% saves 20%; of the others one saves less, one as much to half a point, one more."""
    saved = {"lgtm:ratio=0.5": 0.2, "todo:factor=2": 0.1, "abm:ratio=0.3": 0.204, "todo:factor=4": 0.3}
    rows = tuple(Row(method=name, flops_change=-share) for name, share in saved.items())
    gains = {
        "todo:factor=2": (BETTER, BETTER, BETTER),
        "abm:ratio=0.3": (EVEN, BETTER, None),
        "todo:factor=4": (WORSE,) * 3,
    }
    return replace(
        summarise(known_store),
        rows=(Row(method="none"), *rows),
        comparisons=tuple(
            Comparison(method="lgtm:ratio=0.5", other=other, accuracy=a, fid=f, psnr=p)
            for other, (a, f, p) in gains.items()
        ),
    )


def test_what_saves_more_is_not_compared(results: Results) -> None:
    text = against(results)
    assert "| method | FLOPs | L-GTM 50% (-20.0%) |" in text
    better = "+25.0 points (+10.0 to +40.0)<br>+0.25 FID (+0.10 to +0.40)<br>+0.2 dB (+0.1 to +0.4)"
    assert f"| ToDo 2× | -10.0% | {better} |" in text
    assert "| ABM 30% | -20.4% | +0.0 points (-10.0 to +10.0)<br>+0.25 FID (+0.10 to +0.40)<br>– |" in text
    assert "| ToDo 4× | -30.0% | saves more |" in text


def test_the_verdict_counts_and_names_the_exceptions(results: Results) -> None:
    last = against(results).strip().splitlines()[-1]
    assert (
        "of 2 settings that save as much (to half a point) or less, it is better than 1 in accuracy, FID and PSNR alike"
        in last
    )
    assert last.endswith("not seen to be better: ABM 30% (accuracy, PSNR).")


def test_a_pair_that_was_not_measured_together_has_a_dash_and_is_not_counted(results: Results) -> None:
    text = against(replace(results, comparisons=results.comparisons[1:]))
    assert "| ToDo 2× | -10.0% | – |" in text
    assert "of 1 settings that save as much" in text


def test_a_method_whose_flops_are_not_known_is_no_rival_and_none_to_compare(results: Results) -> None:
    rows = [replace(row, flops_change=None) if row.method == "todo:factor=2" else row for row in results.rows]
    assert "ToDo 2×" not in against(replace(results, rows=tuple(rows)))
    rows = [replace(row, flops_change=None) for row in results.rows]
    with pytest.raises(ValueError, match=r"lgtm:ratio=0\.5 has no FLOPs"):
        against(replace(results, rows=tuple(rows)))


def test_results_without_comparisons_are_refused(known_store: Any) -> None:
    with pytest.raises(ValueError, match="export them with --against"):
        against(summarise(known_store))
