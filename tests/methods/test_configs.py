"""Configs validate themselves, and read from and write to text."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bigain
from bigain.methods import METHODS, Context, parse, preset_names, spec
from bigain.operators.frequency import low_pass
from bigain.operators.grid import Grid


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bigain.ToMe(ratio=1.0), r"ratio must lie in \[0, 1\), not 1.0"),
        (lambda: bigain.ToMe(ratio=-0.1), r"ratio must lie in \[0, 1\), not -0.1"),
        (lambda: bigain.ToMe(ratio=math.nan), r"ratio must lie in \[0, 1\), not nan"),
        (lambda: bigain.ToMe(ratio=bigain.Linear(0.5, 1.5)), r"ratio must lie in \[0, 1\)"),
        (lambda: bigain.ToMe(ratio="0.5"), r"ratio must be a number or a Linear schedule, not '0\.5'"),
        (lambda: bigain.ToMe(levels=1), r"levels must be a tuple such as \(1,\), not 1"),
        (lambda: bigain.ToDo(layers=3), r"layers must be a tuple such as \(0, 1\), not 3"),
        (lambda: bigain.ToMe(cell=2), r"cell must be a tuple such as \(2, 2\), not 2"),
        (lambda: bigain.ToMe(locations="mlp"), r"locations must be a tuple such as \('self_attention',\), not 'mlp'"),
        (lambda: bigain.ToMe(cell=[1, 1]), r"cell \(1, 1\) makes every token a destination"),
        (lambda: bigain.ToMe(cell=(0, 2)), "cell must be two whole numbers from 1"),
        (lambda: bigain.ToMe(cell=(1, 1)), r"cell \(1, 1\) makes every token a destination"),
        (lambda: bigain.ToMe(levels=()), "levels must be distinct whole numbers from 1"),
        (lambda: bigain.ToMe(levels=(0,)), "levels must be distinct whole numbers from 1"),
        (lambda: bigain.ToMe(layers=()), "layers must be distinct whole numbers from 0"),
        (lambda: bigain.ToDo(layers=(1, 1)), "layers must be distinct whole numbers from 0"),
        (lambda: bigain.ToDo(layers=(-1,)), "layers must be distinct whole numbers from 0"),
        (lambda: bigain.ToMe(locations=("mlp",)), "locations must hold 'self_attention'"),
        (lambda: bigain.ToMe(locations=("self_attention", "moon")), "locations must hold 'self_attention'"),
        (lambda: bigain.ToMe(operator="median"), "operator must be one of"),
        (lambda: bigain.ToMe(queries="half"), "queries must be one of"),
        (lambda: bigain.ToMe(features="none"), "features must be one of"),
        (lambda: bigain.ToMe(size_aware=True, size_bias="both"), "size_bias must be one of"),
        (lambda: bigain.ToMe(size_bias="channel"), "size_bias='channel' is a form of size_aware"),
        (lambda: bigain.ToMe(gate=-0.1), "gate must be finite and at least 0, not -0.1"),
        (lambda: bigain.LaplacianMerging(gate=math.nan), "gate must be finite and at least 0, not nan"),
        (lambda: bigain.LaplacianMerging(gate=math.inf), "gate must be finite and at least 0, not inf"),
        (lambda: bigain.LaplacianMerging(protect=1.0), r"protect must lie in \[0, 1\), not 1.0"),
        (lambda: bigain.ToMe(protect=math.nan), r"protect must lie in \[0, 1\), not nan"),
        (lambda: bigain.ToMe(window=3), r"window must be a positive multiple of the cell's sides \(2, 2\), or None"),
        (lambda: bigain.ToMe(cell=(2, 4), window=6), "window must be a positive multiple.*not 6"),
        (lambda: bigain.ToMe(window=0), "window must be a positive multiple.*not 0"),
        (lambda: bigain.ToMe(window=4.0), "window must be a positive multiple.*not 4.0"),
        (lambda: bigain.ToMe(smoothing=-1), "smoothing must be a whole number from 0 to 16, not -1"),
        (lambda: bigain.ToMe(smoothing=0.5), r"smoothing must be a whole number from 0 to 16, not 0\.5"),
        (lambda: bigain.QuadtreeMerging(depth=0), "depth must be a whole number from 1 to 16, not 0"),
        (lambda: bigain.QuadtreeMerging(depth=17), "depth must be a whole number from 1 to 16, not 17"),
        (lambda: bigain.QuadtreeMerging(depth=1.5), "depth must be a whole number from 1 to 16, not 1.5"),
        (lambda: bigain.QuadtreeMerging(cell=(4, 4)), r"cell must be \(2, 2\) in a quadtree.*not \(4, 4\)"),
        (lambda: bigain.ToMe(destinations="last"), "destinations must be one of"),
        (lambda: bigain.ToMe(redraw="never"), "redraw must be one of"),
        (lambda: bigain.ToMe(queries="full", locations=("self_attention", "mlp")), "keys and values of self-attention"),
        (lambda: bigain.LaplacianMerging(score="sobel"), "score must be one of.*laplacian_l1"),
        (lambda: bigain.LaplacianMerging(destinations="random"), "destinations must be one of"),
        (lambda: bigain.AdaptiveBlockMerging(aggregate="median"), "aggregate must be one of"),
        (lambda: bigain.AdaptiveBlockMerging(ratio=0.5, threshold=1.0), "exclude each other"),
        (lambda: bigain.AdaptiveBlockMerging(ratio=0, threshold=math.inf), "threshold must be finite"),
        (lambda: bigain.SiTo(noise_weight=math.nan), "noise_weight must be finite"),
        (lambda: bigain.ToDo(factor=0), "factor must be a whole number from 1, not 0"),
        (lambda: bigain.ToDo(factor=1.5), "factor must be a whole number from 1, not 1.5"),
        (lambda: bigain.FrequencySelection(keep="middle"), "keep must be one of"),
        (lambda: bigain.FrequencySelection(score="loudness"), "score must be one of"),
        (lambda: bigain.InterpolateExtrapolateKV(alpha=math.inf), "alpha must be finite, not inf"),
        (lambda: bigain.Linear(math.nan, 1.0), "noisy of a linear schedule must be finite"),
        (lambda: bigain.Linear(0.0, 1.0, train_timesteps=1), "train_timesteps must be at least 2"),
    ],
)
def test_bad_values_are_named_with_what_would_be_right(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_lists_are_as_good_as_tuples():
    listed = bigain.ToMe(cell=[2, 4], levels=[1, 2], layers=[0, 3], locations=["self_attention"], queries="full")
    assert listed == bigain.ToMe(cell=(2, 4), levels=(1, 2), layers=(0, 3), queries="full")
    assert parse(spec(listed)) == (listed,)
    assert bigain.QuadtreeMerging(cell=[2, 2]) == bigain.QuadtreeMerging()
    assert hash(bigain.ToDo(levels=[1, 2])) == hash(bigain.ToDo(levels=(1, 2)))


def test_configs_are_frozen():
    with pytest.raises(FrozenInstanceError):
        bigain.ToMe().ratio = 0.7


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_reads_and_writes(name):
    (method,) = parse(name)
    assert parse(spec(method)) == (method,)
    short, _, strength = name.rpartition("-")
    assert method.name == short
    assert float(strength) == (method.ratio if hasattr(method, "ratio") else method.factor)


@pytest.mark.parametrize(
    ("text", "methods"),
    [
        ("none", ()),
        ("lgtm-0.7", (bigain.LaplacianMerging(ratio=0.7),)),
        (
            "tome:ratio=0.5,destinations=random,redraw=forward,seed=3",
            (bigain.ToMe(ratio=0.5, destinations="random", redraw="forward", seed=3),),
        ),
        ("iekvd:factor=2,alpha=0.8>1.2", (bigain.InterpolateExtrapolateKV(alpha=bigain.Linear(0.8, 1.2)),)),
        (
            "iekvd:factor=3,alpha=0.8>1.2@4000",
            (bigain.InterpolateExtrapolateKV(factor=3, alpha=bigain.Linear(0.8, 1.2, 4000)),),
        ),
        (
            "tome:ratio=0.7,layers=0/1+todo:factor=3,layers=5",
            (bigain.ToMe(ratio=0.7, layers=(0, 1)), bigain.ToDo(factor=3, layers=(5,))),
        ),
        (
            "abm:ratio=0,threshold=2.5,cell=4x2,levels=1/2,cached=true,size_aware=true",
            (
                bigain.AdaptiveBlockMerging(
                    ratio=0, threshold=2.5, cell=(4, 2), levels=(1, 2), cached=True, size_aware=True
                ),
            ),
        ),
        ("quadtree-0.7", (bigain.QuadtreeMerging(ratio=0.7),)),
        ("lgtm:ratio=0.9,smoothing=1", (bigain.LaplacianMerging(ratio=0.9, smoothing=1),)),
        ("quadtree:ratio=0.9,depth=4", (bigain.QuadtreeMerging(ratio=0.9, depth=4),)),
        (
            "tome:ratio=0.5,size_aware=true,size_bias=channel,score=l2_norm,gate=0.3,window=none,destinations=offset",
            (
                bigain.ToMe(
                    ratio=0.5, size_aware=True, size_bias="channel", score="l2_norm", gate=0.3, destinations="offset"
                ),
            ),
        ),
        (
            "lgtm:ratio=0.4,protect=0.25,window=8,destinations=highest",
            (bigain.LaplacianMerging(ratio=0.4, protect=0.25, window=8, destinations="highest"),),
        ),
        (
            "sito:ratio=0.3,locations=self_attention/mlp + avgpool-4",
            (bigain.SiTo(ratio=0.3, locations=("self_attention", "mlp")), bigain.AveragePooling(factor=4)),
        ),
    ],
)
def test_parse_reads_what_spec_writes(text, methods):
    assert parse(text) == methods
    assert parse(spec(methods)) == methods


@settings(deadline=None)
@given(ratio=st.floats(0, 0.99), low=st.floats(-2, 2), high=st.floats(-2, 2))
def test_numbers_survive_the_round_trip(ratio, low, high):
    methods = (bigain.ToMe(ratio=ratio), bigain.InterpolateExtrapolateKV(alpha=bigain.Linear(low, high)))
    assert parse(spec(methods)) == methods


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("magic-0.5", "unknown method or preset.*lgtm.*lgtm-0.7"),
        ("lgtm:strength=0.5", "'strength=0.5' is no setting of lgtm.*ratio"),
        ("lgtm:ratio", "'ratio' is no setting"),
        ("lgtm:ratio=much", "lgtm:ratio cannot be 'much': give a number in"),
        ("lgtm-much", "lgtm:ratio cannot be 'much'"),
        ("todo:factor=2.5", "todo:factor cannot be '2.5': give a whole number"),
        ("tome:cell=2", "cell must be two whole numbers"),
        ("tome:cached=maybe", "tome:cached cannot be 'maybe'"),
        ("tome:ratio=0.5,ratio=0.6", "given twice"),
        ("tome:window=big", "tome:window cannot be 'big': give a multiple of the cell's sides, or none"),
        ("lgtm:gate=much", "lgtm:gate cannot be 'much': give a number from 0"),
        ("iekvd:alpha=0.8>", "iekvd:alpha cannot be '0.8>': give a number or a schedule"),
        ("lgtm-1.5", r"ratio must lie in \[0, 1\)"),
        ("", "unknown method"),
    ],
)
def test_text_that_is_no_method_says_what_would_be(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


def test_a_linear_schedule_meets_its_ends_and_holds_beyond():
    schedule = bigain.Linear(0.8, 1.2)
    values = schedule.at(torch.tensor([999, 0, 1500, -3]))
    torch.testing.assert_close(values, torch.tensor([0.8, 1.2, 0.8, 1.2]))


@pytest.mark.parametrize("name", ["lgtm", "tome", "abm", "quadtree", "sito"])
@pytest.mark.parametrize("ratio", [0.29, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("grid", [Grid(10, 10), Grid(16, 16), Grid(13, 18)])
def test_merging_takes_the_tokens_that_the_ratio_asks_for(name, ratio, grid):
    method = METHODS[name](ratio=ratio)
    x = torch.randn(2, grid.tokens, 8, generator=torch.Generator().manual_seed(0))
    wanted = math.floor(round(ratio * grid.tokens, 6))
    if wanted > method.limit(grid):
        with pytest.raises(ValueError, match="allow at most"):
            method.assign(x, Context(grid))
        return
    merged = grid.tokens - method.assign(x, Context(grid)).groups
    assert merged == (wanted // 3 * 3 if name == "abm" else wanted)


def test_the_limit_of_a_quadtree_is_one_token_per_largest_block():
    grid = Grid(13, 18)
    x = torch.randn(1, grid.tokens, 8, generator=torch.Generator().manual_seed(0))
    assert bigain.QuadtreeMerging(ratio=0.97).assign(x, Context(grid)).groups == 234 - math.floor(0.97 * 234)
    limit = (
        r"merge 229 of the 234 tokens of a 13x18 grid, but a quadtree of depth 3 allows at most 228, a ratio of 0\.9"
    )
    with pytest.raises(ValueError, match=limit):
        bigain.QuadtreeMerging(ratio=0.98).assign(x, Context(grid))


@pytest.mark.parametrize("method", [bigain.LaplacianMerging, bigain.ToMe])
def test_the_gate_lets_smooth_sources_merge_first_and_protection_keeps_detail(method):
    grid = Grid(8, 8)
    x = torch.randn(2, 64, 8, generator=torch.Generator().manual_seed(0))
    scores = method().scores(x, Context(grid))

    def merged(**settings):
        assignment = method(**{"ratio": 0.25} | settings).assign(x, Context(grid))
        going = torch.ones_like(scores, dtype=torch.bool)
        for row in range(2):
            going[row, assignment.kept[row]] = False
        return going

    plain, gated, hard = merged(), merged(gate=0.3), merged(gate=100.0)
    assert torch.equal(plain, merged(gate=0.0, protect=0.0))
    assert scores[plain].mean() > scores[gated].mean() > scores[hard].mean()
    every = merged(ratio=0.75)  # the sources
    for row in range(2):
        lowest = scores[row][every[row]].sort().values
        assert scores[row][hard[row]].max() == lowest[15]  # the gate outweighs every similarity
        protected = merged(ratio=0.375, protect=0.5)[row]
        assert scores[row][protected].max() <= lowest[23]  # all 24 of the 48 that may


@pytest.mark.parametrize("name", ["lgtm", "tome", "abm", "quadtree", "sito"])
def test_smoothing_decides_what_merges_by_smoothed_tokens(name):
    grid = Grid(8, 9)
    x = torch.randn(2, grid.tokens, 8, generator=torch.Generator().manual_seed(0))
    found = METHODS[name](ratio=0.5, smoothing=2).assign(x, Context(grid))
    expected = METHODS[name](ratio=0.5).assign(low_pass(x, grid, 2), Context(grid))
    assert torch.equal(found.index, expected.index)
    assert torch.equal(found.kept, expected.kept)
    assert not torch.equal(found.index, METHODS[name](ratio=0.5).assign(x, Context(grid)).index)


def test_protection_lowers_the_limit_that_the_error_names():
    x, grid = torch.randn(1, 64, 8, generator=torch.Generator().manual_seed(0)), Grid(8, 8)
    method = bigain.LaplacianMerging(ratio=0.5, protect=0.5)
    assert method.limit(grid) == 24
    words = r"but cells of 2x2 allow, with protect=0\.5, at most 24, a ratio of 0\.375"
    with pytest.raises(ValueError, match=words):
        method.assign(x, Context(grid))


def test_offset_destinations_visit_all_places_over_the_layers():
    grid = Grid(5, 6)  # the last row of cells is partial
    x = torch.randn(1, 30, 8, generator=torch.Generator().manual_seed(0))
    method = bigain.ToMe(ratio=0.7, destinations="offset")
    kept = [sorted(method.assign(x, Context(grid, layer=layer)).kept[0].tolist()) for layer in range(8)]
    assert kept[:4] == kept[4:]
    assert kept[0] == [0, 2, 4, 12, 14, 16, 24, 26, 28]
    assert kept[1] == [7, 9, 11, 19, 21, 23, 25, 27, 29]
    assert kept[2] == [1, 3, 5, 13, 15, 17, 25, 27, 29]
    assert kept[3] == [6, 8, 10, 18, 20, 22, 24, 26, 28]


def test_windows_cost_less_to_match():
    grid = Grid(32, 32)
    assert bigain.ToMe().matching_flops(grid, 64) == 2 * 768 * 256 * 64
    assert bigain.ToMe(window=8).matching_flops(grid, 64) == 2 * 16 * 48 * 16 * 64
    x = torch.randn(1, 1024, 8, generator=torch.Generator().manual_seed(0))
    assignment = bigain.LaplacianMerging(ratio=0.75, window=4).assign(x, Context(grid))
    token, end = torch.arange(1024), assignment.kept[0][assignment.index[0]]
    assert torch.equal(token // 32 // 4, end // 32 // 4)
    assert torch.equal(token % 32 // 4, end % 32 // 4)


def test_sito_drops_the_most_replaceable_tokens():
    grid = Grid(2, 2)
    x = torch.tensor([[[1.0, 0.0], [1.0, 0.01], [0.0, 1.0], [-1.0, 0.2]]])
    assignment = bigain.SiTo(ratio=0.25, noise_weight=0.0).assign(x, Context(grid))
    directions = torch.nn.functional.normalize(x[0], dim=-1)
    destination = int((directions @ directions.T).sum(dim=1).argmax())
    kept = assignment.kept[0].tolist()
    assert destination in kept
    (dropped,) = {0, 1, 2, 3} - {*kept}
    similarity = directions @ directions[destination]
    assert dropped == max((i for i in range(4) if i != destination), key=lambda i: similarity[i])
    recovered = kept[int(assignment.index[0, dropped])]
    assert recovered == max(kept, key=lambda i: float(directions[dropped] @ directions[i]))


def test_random_destinations_differ_by_seed_layer_and_image():
    grid, x = Grid(8, 8), torch.randn(1, 64, 8, generator=torch.Generator().manual_seed(0))

    def kept(seed=0, layer=0, image=0):
        method = bigain.ToMe(ratio=0.7, destinations="random", seed=seed)
        context = Context(grid, layer=layer, image_keys=torch.tensor([image]))
        return {*method.assign(x, context).kept[0].tolist()}

    assert kept() == kept()
    assert all(kept() != other for other in (kept(seed=1), kept(layer=1), kept(image=1)))
