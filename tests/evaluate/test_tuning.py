"""The search for a method: trials of the joint run that Optuna proposes."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

import bigain
from bigain.backbones.families import layout
from bigain.diffusion import open_model
from bigain.evaluate import Offer, Settings, Store, Target, allocate, offers, read_offers, summary, tune, tuning
from bigain.evaluate.allocation import most_saved
from bigain.evaluate.space import Space
from bigain.evaluate.trials import SAME_IMAGES
from bigain.methods import parse, spec
from bigain.operators.grid import Grid

Make = Callable[..., Settings]
FASTER = [Target("speed-up", 1.01)]
QUICK: dict[str, Any] = {"classify": 2, "generate": 1, "steps": 1, "seed": 3}


def test_a_search_that_was_stopped_goes_on_as_it_would_have(tiny_settings: Make, tmp_path: Path) -> None:
    settings = tiny_settings(**QUICK)
    whole = tune(settings, FASTER, tmp_path / "whole", trials=5, cost="flops")
    measured: list[str] = []
    first = tune(settings, FASTER, tmp_path / "two", trials=2, cost="flops")
    second = tune(
        settings, FASTER, tmp_path / "two", trials=5, cost="flops", done=lambda trial: measured.append(trial.method)
    )
    assert first == whole[: len(first)]
    assert second == whole
    assert measured == [trial.method for trial in whole[len(first) :]]
    with Store(tmp_path / "two" / "results.sqlite") as store:
        assert set(store.methods()) == {"none", *(trial.method for trial in whole)}


def test_a_trial_has_the_values_of_the_joint_run(tiny_settings: Make, tmp_path: Path) -> None:
    [trial] = tune(tiny_settings(**QUICK), FASTER, tmp_path, trials=1, cost="flops")
    with Store(tmp_path / "results.sqlite") as store:
        rows = {row.method: row for row in tuning.summarise(store).rows}
    row = rows[trial.method]
    assert (trial.accuracy, trial.change, trial.psnr) == (row.accuracy, row.change, row.psnr)
    assert row.flops is not None
    assert trial.speed_up == round((rows["none"].flops or 0) / row.flops, 4)


def test_time_is_measured_where_it_is_asked_for(tiny_settings: Make, tmp_path: Path) -> None:
    [trial] = tune(tiny_settings(**QUICK | {"generate": 0}), FASTER, tmp_path, trials=1, cost="time")
    assert trial.speed_up > 0
    assert trial.psnr is None
    assert trial.values() == (trial.speed_up, trial.accuracy)


@pytest.mark.parametrize("grids", [((8, 8),), ((9, 9), (5, 5)), ((16, 12), (8, 6), (4, 3))])
def test_all_that_is_proposed_can_be_applied_and_read_back(
    families: Any, forward: Any, grids: tuple[tuple[int, int], ...]
) -> None:
    depth, (height, width) = len(grids), grids[0]
    if depth == 1:
        model, inputs = families["dit"].build(num_layers=3), families["dit"].inputs()
    else:
        model = families["unet"].build(
            block_out_channels=(16,) * depth,
            down_block_types=("CrossAttnDownBlock2D",) * depth,
            up_block_types=("CrossAttnUpBlock2D",) * depth,
        )
        inputs = families["unet"].inputs(height=height, width=width)
    space = Space(tuple(layer.level for layer in layout(model).layers), tuple(Grid(*grid) for grid in grids))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    kinds = set()
    for _ in range(40):
        [method] = space.suggest(study.ask())
        kinds.add(type(method))
        assert parse(spec(method)) == (method,)
        with bigain.compressed(model, method):
            forward(model, inputs)  # raises where nothing is compressed
    assert len(kinds) >= 4


def test_the_space_is_that_of_the_model(tiny_settings: Make) -> None:
    space = Space.of(open_model(tiny_settings().model))
    assert space == Space((1, 1), (Grid(8, 8),))
    assert space.ratios(1)["tome"] == (0.05, 0.7)  # 2x2 cells allow 0.75
    assert "abm" not in Space((1,), (Grid(1, 2),)).ratios(1)
    assert Space((1, 2), (Grid(9, 9), Grid(5, 5))).ratios(2)["abm"][1] == 0.45  # 4 whole cells of 25 tokens: 12


OFFERS = (
    Offer(0, "todo:factor=2,layers=0", saved=100, change=4.0, contrast=0.0),
    Offer(0, "avgpool:factor=2,layers=0", saved=100, change=8.0, contrast=0.0),
    Offer(1, "todo:factor=2,levels=2,layers=1", saved=10, change=0.1, contrast=0.0),
    Offer(2, "todo:factor=2,layers=2", saved=100, change=0.6, contrast=0.3),
    Offer(3, "todo:factor=2,levels=2,layers=3", saved=0, change=0.0, contrast=0.0),
)


def fixed(**values: Any) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.PartialFixedSampler(values, optuna.samplers.RandomSampler(seed=0))


def test_layers_join_in_order_of_what_they_cost_for_what_they_save() -> None:
    space = Space((1, 2, 1, 2), (Grid(8, 8), Grid(4, 4)), OFFERS)
    assert space.order == (1, 2, 0, 3)  # 0.01, 0.015, 0.04 per FLOP; the last saves nothing
    study = optuna.create_study(sampler=fixed(approach="alike"))
    chosen = {method.layers for [method] in (space.suggest(study.ask()) for _ in range(100))}
    assert chosen == {(2,), (1,), (1, 2), (0, 1, 2), None}  # on the finest level alone, or on both


def test_offers_are_allocated_too() -> None:
    space = Space((1, 2, 1, 2), (Grid(8, 8), Grid(4, 4)), OFFERS)
    study = optuna.create_study(sampler=fixed(approach="allocated", share=0.5))
    assert space.suggest(study.ask()) == parse("todo:factor=2,levels=1/2,layers=1/2")  # 110 of 210
    without = Space(space.levels, space.grids)
    assert without.order == (0, 1, 2, 3)
    trial = study.ask()
    without.suggest(trial)
    assert "approach" not in trial.params


def test_a_search_begins_with_allocations_of_offers_that_are_measured_once(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tiny_settings(**QUICK | {"generate": 0})
    found = tune(settings, FASTER, tmp_path, trials=3, cost="flops")
    offered = read_offers(tmp_path / "offers.json")
    most = sum(most_saved(offered.offers).values())
    assert [trial.method for trial in found] == [
        spec(allocate(offered.offers, round(share * most)).methods) for share in (0.1, 0.2, 0.3)
    ]
    monkeypatch.setattr(offers.Probe, "changes", lambda self: pytest.fail("measured again"))
    tune(settings, FASTER, tmp_path, trials=4, cost="flops")


def test_a_killed_search_goes_on_as_it_would_have(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "_STARTUP", 1)
    settings = tiny_settings(**QUICK | {"generate": 0})
    whole = tune(settings, FASTER, tmp_path / "whole", trials=6, cost="flops")
    measured = tuning._measured

    def killed(method: str, *arguments: Any) -> Any:
        if method == whole[3].method:
            raise KeyboardInterrupt
        return measured(method, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "_measured", killed)
        with pytest.raises(KeyboardInterrupt):
            tune(settings, FASTER, tmp_path / "killed", trials=6, cost="flops")
    assert tune(settings, FASTER, tmp_path / "killed", trials=6, cost="flops") == whole


def test_images_that_did_not_change_have_a_psnr_all_the_same(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "mean_psnr", lambda ours, theirs: float("inf"))
    [trial] = tune(tiny_settings(**QUICK), FASTER, tmp_path, trials=1, cost="flops")
    assert trial.psnr == SAME_IMAGES
    assert len(trial.values()) == 3


@pytest.mark.parametrize(
    ("changes", "targets", "options", "words"),
    [
        ({}, [], {}, "give at least one target"),
        ({"classify": 0}, [Target("accuracy-loss", 1)], {}, "accuracy-loss=1 needs classify"),
        ({"generate": 0}, [Target("psnr", 20)], {}, "psnr=20 needs generate"),
        ({}, FASTER, {"cost": "money"}, "cost must be time or flops, not 'money'"),
        ({}, FASTER, {"trials": 0}, "trials must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_searched_is_refused(
    tiny_settings: Make, tmp_path: Path, changes: Any, targets: list[Target], options: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        tune(tiny_settings(**changes), targets, tmp_path, **options)


def test_another_search_in_the_folder_is_refused(tiny_settings: Make, tmp_path: Path) -> None:
    tune(tiny_settings(**QUICK), FASTER, tmp_path, trials=1, cost="flops")
    with pytest.raises(ValueError, match='cost is "flops" there and "time" here'):
        tune(tiny_settings(**QUICK), FASTER, tmp_path, trials=2, cost="time")


def test_without_optuna_the_error_says_what_to_install(
    tiny_settings: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"bigain\[tune\]"):
        tune(tiny_settings(), FASTER, tmp_path)
