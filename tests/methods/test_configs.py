"""Configs validate themselves, and read from and write to text."""

from __future__ import annotations

import math
import pickle
import re
import subprocess
import sys
from dataclasses import FrozenInstanceError, dataclass, fields, replace
from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bigain
from bigain.methods import (
    METHODS,
    Compression,
    Context,
    TokenMerging,
    base,
    parse,
    preset_names,
    spec,
)
from bigain.operators import frequency
from bigain.operators.blocks import AGGREGATES
from bigain.operators.grid import Grid
from bigain.operators.matching import destinations_by_score
from bigain.operators.random import mix_keys, random_normal


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
        (lambda: bigain.ToMe(cell=[1, 1]), r"cell must be \(2, 2\) or larger, not \(1, 1\)"),
        (lambda: bigain.ToMe(cell=(0, 2)), "cell must be two whole numbers from 1"),
        (lambda: bigain.ToMe(cell=(1, 1)), r"cell must be \(2, 2\) or larger, not \(1, 1\)"),
        (lambda: bigain.ToMe(levels=()), "levels must be distinct whole numbers from 1"),
        (lambda: bigain.ToMe(levels=(0,)), "levels must be distinct whole numbers from 1"),
        (lambda: bigain.ToMe(layers=()), "layers must be distinct whole numbers from 0"),
        (lambda: bigain.ToDo(layers=(1, 1)), "layers must be distinct whole numbers from 0"),
        (lambda: bigain.ToDo(layers=(-1,)), "layers must be distinct whole numbers from 0"),
        (lambda: bigain.ToDo(timesteps=(500, 500)), r"timesteps must be two whole numbers from 0, the lower one first"),
        (lambda: bigain.ToDo(timesteps=(-1, 5)), "timesteps must be two whole numbers from 0"),
        (lambda: bigain.ToDo(timesteps=(0.5, 5)), "timesteps must be two whole numbers from 0"),
        (lambda: bigain.ToDo(timesteps=(1, 2, 3)), r"timesteps must be two whole numbers .*, not \(1, 2, 3\)"),
        (lambda: bigain.ToDo(timesteps=5), r"timesteps must be a tuple such as \(0, 1\), not 5"),
        (lambda: bigain.ToMe(locations=("cross_attention",)), "locations must hold 'self_attention'"),
        (lambda: bigain.ToMe(locations=("self_attention", "block")), "locations must hold 'self_attention'"),
        (lambda: bigain.ToMe(locations=("mlp",), queries="full"), "locations must be .* with queries='full'"),
        (lambda: bigain.ToMe(locations=("self_attention", "moon")), "locations must hold 'self_attention'"),
        (lambda: bigain.ToMe(operator="median"), "operator must be one of"),
        (lambda: bigain.ToMe(queries="half"), "queries must be one of"),
        (lambda: bigain.ToMe(features="none"), "features must be one of"),
        (lambda: bigain.QuadtreeMerging(depth=0), "depth must be a whole number from 1 to 16, not 0"),
        (lambda: bigain.QuadtreeMerging(depth=17), "depth must be a whole number from 1 to 16, not 17"),
        (lambda: bigain.QuadtreeMerging(depth=1.5), "depth must be a whole number from 1 to 16, not 1.5"),
        (lambda: bigain.ToMe(levels=(2,), layers=(1,)), r"levels must be left out where layers are named.*not \(2,\)"),
        (lambda: bigain.ToDo(nearest="last"), "nearest must be one of centre, first, not 'last'"),
        (lambda: bigain.ToMe(destinations="last"), "destinations must be one of"),
        (lambda: bigain.ToMe(redraw="never"), "redraw must be one of"),
        (
            lambda: bigain.ToMe(queries="full", locations=("self_attention", "mlp")),
            "locations must be .* with queries='full'",
        ),
        (lambda: bigain.LaplacianMerging(score="sobel"), "score must be one of.*laplacian_l1"),
        (lambda: bigain.AdaptiveBlockMerging(aggregate="median"), "aggregate must be one of"),
        (lambda: bigain.AdaptiveBlockMerging(ratio=0.5, threshold=1.0), "ratio must be 0 with a threshold.*not 0.5"),
        (lambda: bigain.AdaptiveBlockMerging(ratio=0, threshold=math.inf), "threshold must be finite"),
        (lambda: bigain.SiTo(noise_weight=math.nan), "noise_weight must be finite"),
        (lambda: bigain.ToDo(factor=0), "factor must be a whole number from 1, not 0"),
        (lambda: bigain.ToDo(factor=1.5), "factor must be a whole number from 1, not 1.5"),
        (lambda: bigain.ToDo(factor=(2,)), r"factor must be two or three whole numbers from 1, not \(2,\)"),
        (lambda: bigain.ToDo(factor=(2, 0, 2)), r"factor must be two or three whole numbers from 1, not \(2, 0, 2\)"),
        (lambda: bigain.ToMe(cell=(2, 2, 2)), r"cell must be two whole numbers from 1, not \(2, 2, 2\)"),
        (
            lambda: bigain.AdaptiveBlockMerging(cell=(2, 2, 2, 2)),
            r"cell must be two .* or three with frames, not \(2, 2",
        ),
        (lambda: bigain.QuadtreeMerging(depth=1, time_depth=2), "time_depth must be a whole number from 0 to depth, 1"),
        (lambda: bigain.FrequencySelection(keep="middle"), "keep must be one of"),
        (lambda: bigain.FrequencySelection(score="loudness"), "score must be one of"),
        (lambda: bigain.InterpolateExtrapolateKV(alpha=math.inf), "alpha must be finite, not inf"),
        (lambda: bigain.Linear(math.nan, 1.0), "noisy must be finite, not nan"),
        (lambda: bigain.Linear(0.0, 1.0, train_timesteps=0), "train_timesteps must be a whole number from 1, not 0"),
    ],
)
def test_bad_values_are_named_with_what_would_be_right(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_lists_are_as_good_as_tuples():
    listed = bigain.ToMe(cell=[2, 4], layers=[0, 3], locations=["self_attention"], queries="full")
    assert listed == bigain.ToMe(cell=(2, 4), layers=(0, 3), queries="full")
    assert parse(spec(listed)) == (listed,)
    assert hash(bigain.ToDo(levels=[1, 2])) == hash(bigain.ToDo(levels=(1, 2)))


def test_windows_have_one_text_however_their_sides_are_given():
    assert bigain.ToDo(factor=(1, 2, 2)) == bigain.ToDo(factor=[2, 2]) == bigain.ToDo(factor=2)
    assert bigain.ToDo(factor=(1, 2, 3)).factor == (2, 3)
    assert bigain.ToDo(factor=(1, 1, 1)).is_identity
    assert bigain.AdaptiveBlockMerging(cell=(1, 2, 4)) == bigain.AdaptiveBlockMerging(cell=(2, 4))
    for text, window in (("avgpool:factor=2x2x2", (2, 2, 2)), ("todo:factor=2x3", (1, 2, 3)), ("todo-3", (1, 3, 3))):
        (method,) = parse(text)
        assert method.window == window
        assert spec(method).replace(":factor=3", "-3") == text
    assert parse("avgpool-2x2x2") == parse("avgpool:factor=2x2x2")
    (blocks,) = parse("abm:ratio=0.5,cell=2x2x2")
    assert (blocks.cell, spec(blocks)) == ((2, 2, 2), "abm:ratio=0.5,cell=2x2x2")
    label = parse("avgpool-2x2x2").label
    assert (str(label), label.amount) == ("Average 2×2×2 windows", math.sqrt(8))


def test_an_image_is_no_video():
    image = Grid(8, 8)
    for method in (bigain.ToDo(factor=(2, 2, 2)), bigain.QuadtreeMerging(ratio=0.5, time_depth=1)):
        assert method.over_time
        with pytest.raises(ValueError, match=r"(factor|time_depth) must .* one frame"):
            method.check(image)
    with pytest.raises(ValueError, match=r"cell must fit the grid of 8x8 tokens, not 2x2x2"):
        bigain.AdaptiveBlockMerging(cell=(2, 2, 2)).check(image)
    with pytest.raises(ValueError, match=r"factor must be windows that fit a grid of 3x8x8 tokens, not \(9, 2\)"):
        bigain.ToDo(factor=(9, 2)).check(Grid(8, 8, 3))
    assert not bigain.ToDo(factor=(4, 2, 2)).suits(Grid(8, 8, 3))
    assert bigain.ToDo(factor=(3, 2, 2)).suits(Grid(8, 8, 3))
    assert not bigain.AdaptiveBlockMerging(cell=(4, 2, 2)).suits(Grid(8, 8, 3))


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
            "tome:ratio=0.5,destinations=random,redraw=forward",
            (bigain.ToMe(ratio=0.5, destinations="random", redraw="forward"),),
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
        ("quadtree:ratio=0.9,depth=4", (bigain.QuadtreeMerging(ratio=0.9, depth=4),)),
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
        ("magic-0.5", "method must be 'none', lgtm, .*such as 'lgtm-0.7'.*, not 'magic-0.5'$"),
        ("LGTM-0.5", "not 'LGTM-0.5'; did you mean 'lgtm-0.5'?"),
        ("lgmt-0.5", "not 'lgmt-0.5'; did you mean 'lgtm-0.5'?"),
        ("Quad-tree:ratio=0.5", "did you mean 'quadtree:ratio=0.5'?"),
        ("lgtm:strength=0.5", "a setting of lgtm must be one of .*ratio.*, not 'strength'"),
        ("lgtm:rato=0.5", "not 'rato'; did you mean 'ratio'?"),
        ("lgtm:ratio", "a setting of lgtm must be field=value, not 'ratio'"),
        ("lgtm:ratio=much", "ratio of lgtm must be a number in .*, not 'much'"),
        ("lgtm-much", "ratio of lgtm must be a number in .*, not 'much'"),
        ("todo:factor=2.5", "factor of todo must be a whole number from 1, or .* such as 2x2x2, not '2.5'"),
        ("tome:ratio=0.5,levels=2,layers=1", "levels must be left out where layers are named"),
        ("tome:cell=2", "cell must be two whole numbers"),
        ("tome:cached=maybe", "cached of tome must be true or false, not 'maybe'"),
        ("tome:ratio=0.5,ratio=0.6", "ratio must be given once"),
        ("iekvd:alpha=0.8>", "alpha of iekvd must be a number or a schedule.*, not '0.8>'"),
        ("lgtm-1.5", r"ratio must lie in \[0, 1\)"),
        ("", "method must be"),
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
        with pytest.raises(ValueError, match="ratio must be at most"):
            method.assign(x, Context(grid))
        return
    merged = grid.tokens - method.assign(x, Context(grid)).groups
    assert merged == (wanted // 3 * 3 if name == "abm" else wanted)


def test_the_limit_of_a_quadtree_is_one_token_per_largest_block():
    grid = Grid(13, 18)
    x = torch.randn(1, grid.tokens, 8, generator=torch.Generator().manual_seed(0))
    assert bigain.QuadtreeMerging(ratio=0.97).assign(x, Context(grid)).groups == 234 - math.floor(0.97 * 234)
    limit = r"ratio must be at most 0\.9743 on a grid of 13x18, of whose 234 tokens a quadtree of depth 3 allows 228"
    with pytest.raises(ValueError, match=limit):
        bigain.QuadtreeMerging(ratio=0.98).assign(x, Context(grid))


def test_a_method_that_tells_only_its_limit_is_named_in_the_error():
    @dataclass(frozen=True, kw_only=True)
    class Pairs(TokenMerging):
        title = "Pairs"

        def limit(self, grid):
            return grid.tokens // 2

    with pytest.raises(ValueError, match=r"at most 0\.5 on a grid of 4x4, of whose 16 tokens Pairs allows 8 to merge"):
        Pairs(ratio=0.7).check(Grid(4, 4))


@pytest.mark.parametrize("method", [bigain.ToDo, bigain.AveragePooling, bigain.InterpolateExtrapolateKV,
                                    bigain.FrequencySelection])  # fmt: skip
def test_a_factor_beyond_the_longer_side_is_refused(method):
    x = torch.zeros(1, 24, 3)
    assert method(factor=6).pool(x, Context(Grid(4, 6))).shape == (1, 1, 3)
    with pytest.raises(ValueError, match="factor must be at most 6 on a grid of 4x6, not 7"):
        method(factor=7).pool(x, Context(Grid(4, 6)))


@pytest.mark.parametrize("settings", [{"ratio": 0.1}, {"ratio": 0.0, "threshold": 1.0}])
def test_a_cell_larger_than_the_grid_is_refused(settings):
    kinds = [bigain.AdaptiveBlockMerging] if "threshold" in settings else [
        bigain.AdaptiveBlockMerging, bigain.ToMe, bigain.LaplacianMerging, bigain.SiTo]  # fmt: skip
    for kind in kinds:
        with pytest.raises(ValueError, match="cell must fit the grid of 4x6 tokens, not 5x2"):
            kind(cell=(5, 2), **settings).assign(torch.zeros(1, 24, 3), Context(Grid(4, 6)))


def test_layers_are_meant_whatever_their_level():
    method = bigain.ToMe(layers=(1, 4))
    assert [layer for layer in range(6) if method.includes(3, layer)] == [1, 4]
    assert spec(method) == "tome:ratio=0.5,layers=1/4"
    assert bigain.ToMe(levels=(2,)).includes(2, 9)
    assert not bigain.ToMe(levels=(2,)).includes(1, 9)


def test_a_schedule_of_one_timestep_is_over_the_unit_interval():
    schedule = parse("iekvd:factor=2,alpha=0.8>1.2@1")[0].alpha
    torch.testing.assert_close(schedule.at(torch.tensor([1.0, 0.5, 0.0])), torch.tensor([0.8, 1.0, 1.2]))


def test_a_compression_is_a_tuple_that_knows_its_text_and_label():
    two = Compression.of("tome:redraw=image,ratio=0.50,layers=3+todo-2")
    assert two == Compression.of(two) == Compression.of([bigain.ToMe(layers=(3,)), bigain.ToDo()])
    assert hash(two) == hash(Compression.of(two.text))
    assert two.text == "tome:ratio=0.5,layers=3+todo:factor=2"
    assert str(two.label) == "ToMe 50%, first of the cell, layers 3 + ToDo 2×"
    assert [*two] == [bigain.ToMe(layers=(3,)), bigain.ToDo()]
    assert not two.is_identity
    assert Compression.of("none").is_identity
    assert Compression.of("lgtm-0").is_identity
    assert Compression.of("none").text == "none"
    assert pickle.loads(pickle.dumps(two)) == two
    for wrong in (3, None, [bigain.ToMe(), "todo-2"]):
        with pytest.raises(TypeError, match="method must be a config such as"):
            Compression.of(wrong)


@pytest.mark.parametrize("method", METHODS.values())
def test_every_method_tells_what_tables_and_searches_ask(method):
    example = method()
    assert method.title
    assert re.fullmatch("#[0-9A-F]{6}", method.colour)
    assert {field.name for field in fields(method)} >= {method.strength}
    assert example.suits(Grid(8, 8))
    assert not example.suits(Grid(1, 1))
    assert not example.depends_on_image
    assert example.reads_score == hasattr(example, "score")
    assert len({other.colour for other in METHODS.values()}) == len(METHODS)
    merging = isinstance(example, TokenMerging)
    smallest = replace(example, ratio=example.fewest_tokens / 64) if merging else replace(example, factor=8)
    assert smallest.suits(Grid(8, 8))
    if merging:
        x = torch.randn(1, 64, 4, generator=torch.Generator().manual_seed(0))
        assert smallest.assign(x, Context(Grid(8, 8))).groups == 64 - example.fewest_tokens


def test_a_threshold_makes_the_cost_depend_on_the_image():
    assert bigain.AdaptiveBlockMerging(ratio=0, threshold=1.0).depends_on_image


def test_scores_and_aggregates_are_those_of_the_operators():
    assert base.SCORES == frequency.SCORES
    assert base.field_kinds(bigain.AdaptiveBlockMerging)["aggregate"] == (Literal[AGGREGATES],)


@pytest.mark.parametrize("text", ["lgtm-0.7", "lgmt-0.7"])
def test_reading_or_refusing_a_name_imports_no_torch(text):
    code = f"""
import sys
import bigain.methods
try:
    bigain.methods.parse({text!r})
except ValueError as error:
    print(error)
print(sorted({{"torch", "numpy", "diffusers"}} & {{*sys.modules}}))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_sito_draws_gaussian_noise_once_per_image_and_layer():
    grid, x = Grid(16, 16), torch.ones(1, 256, 2)  # equal tokens: only the noise decides
    method = bigain.SiTo(ratio=0.5)

    def index(timestep=5, **changes):
        return method.assign(x, Context(grid, timestep=torch.tensor([timestep]), **changes)).index

    assert torch.equal(index(), index(timestep=6))
    assert not torch.equal(index(), index(layer=1))
    assert not torch.equal(index(), index(image_keys=torch.tensor([1])))
    scores = random_normal(mix_keys(torch.zeros(1, dtype=torch.long), 0), 256)
    kept = method.assign(x, Context(grid)).kept[0]
    assert torch.isin(destinations_by_score(scores, grid, (2, 2), lowest=False), kept).all()


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


def test_random_destinations_differ_by_layer_and_image():
    grid, x = Grid(8, 8), torch.randn(1, 64, 8, generator=torch.Generator().manual_seed(0))

    def kept(layer=0, image=0):
        method = bigain.ToMe(ratio=0.7, destinations="random")
        context = Context(grid, layer=layer, image_keys=None if image is None else torch.tensor([image]))
        return {*method.assign(x, context).kept[0].tolist()}

    assert kept() == kept() == kept(image=None)
    assert all(kept() != other for other in (kept(layer=1), kept(image=1)))


def test_every_method_is_exported_by_name():
    from bigain import methods

    assert {method.__name__ for method in METHODS.values()} <= {*methods.__all__} & {*dir(bigain)}


def test_a_range_of_timesteps_has_a_text_and_tells_which_methods_act():
    methods = parse("tome:ratio=0.5,timesteps=500-1000+todo:factor=2,timesteps=0-700")
    assert methods[0] == bigain.ToMe(timesteps=(500, 1000))
    assert parse(methods.text) == methods
    assert methods.text == "tome:ratio=0.5,timesteps=500-1000+todo:factor=2,timesteps=0-700"
    assert methods[1].acts_at(0)
    assert [methods.resting([t]) for t in (0, 500, 500.5, 700, 701, 1000)] == [(True, False)] * 2 + [()] * 2 + [
        (False, True)
    ] * 2
    assert methods.parted([900, 25, 600, 500, 1000]) == [[0, 4], [1, 3], [2]]
    assert parse("tome-0.5").parted([1, 900]) == [[0, 1]]
    with pytest.raises(ValueError, match="which differ between t = 25 and 600"):
        methods.resting([25, 30, 600])
    with pytest.raises(ValueError, match="timesteps of tome must be two whole numbers from 0, such as 500-1000"):
        parse("tome:timesteps=0.5-1")
