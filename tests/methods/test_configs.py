"""Configs validate themselves, and read from and write to text."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import bigain
from bigain.methods import METHODS, Context, parse, preset_names, spec
from bigain.operators.grid import Grid


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: bigain.ToMe(ratio=1.0), r"ratio must lie in \[0, 1\), not 1.0"),
        (lambda: bigain.ToMe(ratio=-0.1), r"ratio must lie in \[0, 1\), not -0.1"),
        (lambda: bigain.ToMe(ratio=math.nan), r"ratio must lie in \[0, 1\), not nan"),
        (lambda: bigain.ToMe(ratio=bigain.Linear(0.5, 1.5)), r"ratio must lie in \[0, 1\)"),
        (lambda: bigain.ToMe(cell=(0, 2)), "cell must be two whole numbers from 1"),
        (lambda: bigain.ToMe(cell=(1, 1)), r"cell \(1, 1\) makes every token a destination"),
        (lambda: bigain.ToMe(levels=()), "levels must be distinct whole numbers from 1"),
        (lambda: bigain.ToMe(levels=(0,)), "levels must be distinct whole numbers from 1"),
        (lambda: bigain.ToMe(locations=("mlp",)), "locations must hold 'self_attention'"),
        (lambda: bigain.ToMe(locations=("self_attention", "moon")), "locations must hold 'self_attention'"),
        (lambda: bigain.ToMe(operator="median"), "operator must be one of"),
        (lambda: bigain.ToMe(queries="half"), "queries must be one of"),
        (lambda: bigain.ToMe(features="none"), "features must be one of"),
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
        (lambda: bigain.InterpolateExtrapolateKV(alpha=math.inf), "alpha must be finite, not inf"),
        (lambda: bigain.Linear(math.nan, 1.0), "noisy of a linear schedule must be finite"),
        (lambda: bigain.Linear(0.0, 1.0, train_timesteps=1), "train_timesteps must be at least 2"),
    ],
)
def test_bad_values_are_named_with_what_would_be_right(build, message):
    with pytest.raises(ValueError, match=message):
        build()


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
            "abm:ratio=0,threshold=2.5,cell=4x2,levels=1/2,cached=true,size_aware=true",
            (
                bigain.AdaptiveBlockMerging(
                    ratio=0, threshold=2.5, cell=(4, 2), levels=(1, 2), cached=True, size_aware=True
                ),
            ),
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


@pytest.mark.parametrize("name", ["lgtm", "tome", "abm", "sito"])
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
