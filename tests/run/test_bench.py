"""`bigain bench`: what is timed, its bounds, its parts and its memory."""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional

import bigain
from bigain.backbones.untrained import untrained
from bigain.methods import METHODS, Compression, Context, TokenMerging
from bigain.operators.grid import Grid
from bigain.operators.labels import PREFIX, labelled
from bigain.report import bench as report
from bigain.run.bench import Interval, bench, free, profiled
from bigain.run.settings import BenchSettings, ModelSettings
from bigain.zoo.published import Configuration

UNET = Configuration(
    "tiny",
    "UNet2DConditionModel",
    dict(
        sample_size=16,
        layers_per_block=1,
        block_out_channels=(32, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=8,
    ),
    pixels=1,
)
FEW = ModelSettings(batch_size=2)
CPU = torch.device("cpu")


def timed(*methods: str, **how: Any) -> list[Any]:
    return bench(UNET, (16, 16), [*map(Compression.of, methods)], FEW, BenchSettings(**({"rounds": 2} | how)))


def test_a_row_per_method_with_its_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tomesd", None)
    rows = timed("lgtm-0.5", "avgpool-2", "none")
    assert [row.method for row in rows] == ["none", "lgtm:ratio=0.5", "avgpool:factor=2"]
    plain, merged, pooled = rows
    assert (plain.speed_up, plain.bound, plain.free) == (Interval(1, 1, 1), 1.0, None)
    assert {row.tokens for row in rows} == {256}
    for row in (merged, pooled):
        assert row.bound > 1
        assert row.free is not None
        assert row.milliseconds.low <= row.milliseconds.median <= row.milliseconds.high
        assert row.reached is not None
        assert row.reached.median == pytest.approx(row.speed_up.median / row.free.median, rel=0.5)
    assert {"score", "match", "merge", "unmerge", "attention"} <= {*merged.parts}
    assert {"pool", "attention"} == {*pooled.parts}
    assert {*plain.parts} == {"attention"}
    assert all(value >= 0 for row in rows for value in row.parts.values())


def test_the_bound_is_that_of_the_flops() -> None:
    made = untrained(UNET, (16, 16))
    rows = timed("avgpool:factor=2,levels=1/2")
    whole = made.sized.bounds
    expected = whole.speed_ups["pooled-2"]
    assert rows[1].bound == pytest.approx(expected, rel=1e-6)


def test_tomesd_is_timed_beside_ours_where_it_is_installed() -> None:
    pytest.importorskip("tomesd")
    rows = timed("tome:ratio=0.3", "tome:ratio=0.3,destinations=random", "tome:ratio=0.5,operator=mlerp")
    assert [row.method for row in rows if row.method.startswith("tomesd")] == ["tomesd:ratio=0.3"]
    assert report.name(rows[-1]) == "tomesd 30%"


@pytest.mark.parametrize("name", METHODS)
def test_what_is_for_free_leaves_as_many_tokens(name: str) -> None:
    method = Compression.of(f"{name}-0.5" if issubclass(METHODS[name], TokenMerging) else name)[0]
    costless = free(method)
    grid = Grid(7, 6)
    x = torch.randn(2, 42, 8, generator=torch.Generator().manual_seed(0))
    context = Context(grid)
    if isinstance(method, TokenMerging):
        own, other = method.assign(x, context), costless.assign(x, context)
        assert own.groups == other.groups
        assert other is costless.assign(x, context)  # made once
        assert costless.operator == "prune"
    else:
        assert costless.pool(x, context).shape == method.pool(x, context).shape
        assert costless.pool(x, context).data_ptr() == x.data_ptr()  # nothing is computed
    assert (str(costless).split(",")[0], type(costless).name) == (str(method).split(",")[0], name)


def test_a_compiled_model_is_timed_beside_the_other() -> None:
    rows = timed("avgpool-2", compile=True, rounds=1)
    assert [(row.method, row.compiled) for row in rows] == [
        ("none", False),
        ("avgpool:factor=2", False),
        ("none", True),
        ("avgpool:factor=2", True),
    ]
    assert report.name(rows[-1]) == "Average 2×, compiled"


def test_methods_and_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="ratio"):
        timed("lgtm-0.9")
    with pytest.raises(ValueError, match=r"act at t = 500, where they are timed, not avgpool.*timesteps=0-200"):
        timed("iekvd-2", "avgpool:factor=2,timesteps=0-200")
    with pytest.raises(ValueError, match="multiple of 2 pixels"):
        bench(UNET, (15, 16), [], FEW, BenchSettings())


def test_the_interval_of_a_median_is_that_of_order_statistics() -> None:
    assert Interval.of([3.0, 1.0, 2.0]) == Interval(2.0, 1.0, 3.0)
    assert Interval.of([4.0]) == Interval(4.0, 4.0, 4.0)
    many = Interval.of([*map(float, range(101))])
    assert many.median == 50
    assert 35 < many.low < 45 < 55 < many.high < 65  # 50 ± 1.96 · √101 / 2


def test_a_profile_names_parts_once_and_apart() -> None:
    @labelled("score")
    def score(x: torch.Tensor) -> torch.Tensor:
        time.sleep(0.1)  # so that only what counts it twice takes longer, however busy the machine
        return x @ x

    @labelled("match")
    def match(x: torch.Tensor) -> torch.Tensor:
        return score(x) + score(x @ x)

    @labelled("match")
    def around(x: torch.Tensor) -> torch.Tensor:
        return match(x)

    x = torch.ones(200, 200)
    parts, _ = profiled(lambda: functional.scaled_dot_product_attention(around(x)[None], x[None], x[None]), CPU)
    assert {*parts} == {"score", "match", "attention"}
    assert 0 < parts["match"] < parts["score"]
    with torch.profiler.profile() as found:
        around(x)
    assert [event.key for event in found.key_averages() if event.key.startswith(PREFIX)].count(f"{PREFIX}match") == 1


def test_memory_is_what_is_allocated_at_once() -> None:
    mega = torch.zeros(2**18)  # 1 MiB

    def call() -> None:
        for _ in range(3):
            both = mega + 1, mega + 2
            del both

    assert profiled(call, CPU)[1] == pytest.approx(2 * 2**20, rel=1e-3)


def test_break_even_lies_between_the_sizes_where_time_is_saved_first(tmp_path: Path) -> None:
    row = timed("avgpool-2")[1]
    slow = replace(row, tokens=64, speed_up=Interval(0.5, 0.5, 0.5), milliseconds=Interval(1, 1, 1))
    fast = replace(row, tokens=256, speed_up=Interval(2, 2, 2), milliseconds=Interval(4, 4, 4))
    [(tokens, milliseconds)] = report._break_even([slow, fast])
    assert (tokens, milliseconds) == pytest.approx((128, 2))
    assert report._break_even([fast, replace(fast, tokens=1024)]) == []


def test_forwards_of_seconds_are_told_in_seconds() -> None:
    row = replace(timed("avgpool-2")[1], milliseconds=Interval(1234, 1200, 1300))
    assert "| s |" in report.markdown([row])
    assert "| 1.23 |" in report.markdown([row])
    both = report.markdown([row, replace(row, milliseconds=Interval(999, 990, 1000))])
    assert "| ms |" in both
    assert "| 1234.0 |" in both


def test_profiles_and_labels_leave_results_as_they_are() -> None:
    made = untrained(UNET, (16, 16))
    bigain.apply(made.model, "lgtm-0.5")
    plain = made.forward()[0]
    with torch.profiler.profile():
        assert torch.equal(made.forward()[0], plain)
