"""The paper's tables as methods and claims, and the verdicts on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigain.methods import parse, spec
from bigain.metrics.accuracy import paired_difference
from bigain.run.engine import run
from bigain.run.settings import Settings
from bigain.run.store import Store
from bigain.run.summary import Paired
from experiments.paper.claims import MEASURES, Claim, asks_for_text, paper_tables
from experiments.paper.verdicts import judge

TODO = "todo:factor=2"


@pytest.mark.parametrize(("ratio", "factor"), [(0.7, 2), (0.5, 4)])
def test_every_claim_is_about_methods_of_its_table(ratio: float, factor: int) -> None:
    tables = paper_tables(ratio, factor)
    assert list(tables) == ["6", "7", "8", "11", "12", "15", "16", "17"]
    for table in tables.values():
        assert len(set(table.methods)) == len(table.methods)
        for method in table.methods:
            assert spec(parse(method)) == method
        for claim in table.claims:
            assert {claim.better, claim.worse} <= {"none", *table.methods}
            assert claim.better != claim.worse
            assert claim.measure in MEASURES


def test_the_settings_are_those_that_were_asked_for() -> None:
    tables = paper_tables(0.3, 3)
    assert tables["7"].methods[0] == "lgtm:ratio=0.3"
    assert tables["17"].methods[2] == "lgtm:ratio=0.3+iekvd:factor=3"
    assert [asks_for_text(method) for method in tables["6"].methods] == [False, True, False, True]
    with pytest.raises(ValueError, match="ratio"):
        paper_tables(1.0)


def test_accuracy_is_compared_on_the_same_images(known_store: Store) -> None:
    verdict = judge(Paired(known_store), Claim("", "none", TODO, "accuracy"))
    # right under none: images 0, 1, 2; under the other: 0 and 3
    gain, low, high = paired_difference([True, True, True, False], [True, False, False, True])
    assert (verdict.gain, verdict.low, verdict.high) == (100 * gain, 100 * low, 100 * high)
    assert verdict.word == "cannot tell"


def test_flops_are_exact(known_store: Store) -> None:
    fewer = judge(Paired(known_store), Claim("", TODO, "none", "flops"))
    assert (fewer.gain, fewer.word) == (pytest.approx(0.1), "agrees")
    assert judge(Paired(known_store), Claim("", "none", TODO, "flops")).word == "disagrees"


def test_fid_has_a_paired_interval(known_store: Store) -> None:
    verdict = judge(Paired(known_store), Claim("", "none", TODO, "fid"))  # the other's features are moved by 10
    assert verdict.gain is not None
    assert verdict.low is not None
    assert verdict.high is not None
    assert verdict.low <= verdict.gain <= verdict.high
    assert verdict.gain == pytest.approx(200, rel=0.2)  # 10² in both of 2 dimensions
    assert verdict.word == "agrees"


@pytest.mark.parametrize(
    ("ours", "theirs", "word", "interval"),
    [
        ([1.0] * 5, [2.0] * 5, "cannot tell", (None, None)),  # 5 rounds leave 1/16 outside
        ([1.0] * 6, [2.0] * 6, "agrees", (0.5, 0.5)),
        ([1, 1, 1, 1, 1, 3], [2] * 6, "cannot tell", (-0.5, 0.5)),
        ([9, 1, 1, 1, 1, 1, 1, 1, 3], [2] * 9, "cannot tell", (-0.5, 0.5)),  # from the 2nd to the 8th of 9
        ([9, 1, 1, 1, 1, 1, 1, 1, 1], [2] * 9, "agrees", (0.5, 0.5)),
        ([4] * 6, [2] * 6, "disagrees", (-1.0, -1.0)),
    ],
)
def test_time_has_the_interval_of_its_median(
    known_store: Store, ours: list[float], theirs: list[float], word: str, interval: tuple[float, float]
) -> None:
    known_store.set_timing({}, {TODO: ours, "none": theirs})
    verdict = judge(Paired(known_store), Claim("", TODO, "none", "time"))
    assert verdict.word == word
    assert (verdict.low, verdict.high) == interval


@pytest.mark.parametrize("measure", MEASURES)
def test_what_was_not_measured_is_said(known_store: Store, measure: Any) -> None:
    assert judge(Paired(known_store), Claim("", "lgtm:ratio=0.5", "none", measure)).word == "not measured"


def test_a_run_can_be_judged(tiny_settings: Callable[..., Settings], tmp_path: Path) -> None:
    table = paper_tables(0.5, 2)["17"]
    run(tiny_settings(methods=table.methods, generate=0), tmp_path / "r.sqlite")
    with Store(tmp_path / "r.sqlite") as store:
        verdicts = [judge(Paired(store), claim) for claim in table.claims]
    assert all(verdict.word in ("agrees", "disagrees", "cannot tell") for verdict in verdicts)
    assert all(np.isfinite(verdict.gain or 0) for verdict in verdicts)
