"""What every layer offers, against the analysis and a plain count; and that measuring resumes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bigain
from bigain.classify import paired_noise
from bigain.data import preprocess
from bigain.diffusion import Denoiser, image_key, open_model
from bigain.explain.analysis import analyse
from bigain.explain.effects import in_layer
from bigain.methods import parse, spec
from bigain.operators.grid import Grid
from bigain.operators.random import mix_keys
from bigain.run.cost import flops
from bigain.run.settings import Settings
from bigain.search import offers
from bigain.search.grids import Space
from bigain.search.offers import CANDIDATES, measure_offers, read_offers

Make = Callable[..., Settings]
FEW: dict[str, Any] = {"candidates": ("todo-2", "tome:ratio=0.5,cell=4x4"), "images": 2, "timesteps": 2}


@pytest.fixture
def denoiser(tiny_settings: Make) -> Denoiser:
    return open_model(tiny_settings().model)


def test_an_offer_is_what_the_analysis_finds_of_the_layer_alone(
    tiny_settings: Make, denoiser: Denoiser, tmp_path: Path
) -> None:
    settings = tiny_settings(split="validation")
    found = measure_offers(settings, denoiser, **FEW)
    seen = analyse(
        tiny_settings(split="validation", methods=FEW["candidates"], classify=2), tmp_path / "a.json", timesteps=2
    )
    expected = [
        (layer, spec(parse(in_layer(method, layer)))) for layer in (0, 1) for method in map(str, FEW["candidates"])
    ]
    assert [(offer.layer, offer.method) for offer in found.offers] == expected
    plain = flops(denoiser, "none", 0)
    assert found.flops == plain
    for offer in found.offers:
        assert offer.change == pytest.approx(seen.pieces[offer.method].change, rel=1e-6)
        assert offer.saved == plain - flops(denoiser, offer.method, 0) > 0


def test_the_contrast_is_that_of_the_true_class_to_another(tiny_settings: Make, denoiser: Denoiser) -> None:
    settings = tiny_settings()
    [offer] = [
        each for each in measure_offers(settings, denoiser, **FEW).offers if each.method == "todo:factor=2,layers=1"
    ]
    probe = probe_of(settings, denoiser)
    classifier, conditions = probe.classifier, probe.classifier.conditions

    def predicted(image: int, position: int, condition: int) -> Tensor:
        t, item = classifier.timesteps[position : position + 1], probe.items[image]
        x0 = denoiser.encode(preprocess(item.image, denoiser.image_size)[None])
        noise = paired_noise(settings.seed, item.id, int(t), x0.shape[1:])[None]
        return denoiser.predict(denoiser.process.noise(x0, noise, t), t, conditions, torch.tensor([condition])).double()

    def differences() -> list[Tensor]:
        found = []
        for image, position in itertools.product(range(2), range(2)):
            item = probe.items[image]
            [true] = item.labels
            others = [condition for condition in range(len(conditions)) if condition != true]
            draw = mix_keys(torch.tensor([image_key(item.id, 0)]), classifier.timesteps[position : position + 1])
            other = others[int(draw) % len(others)]
            found.append(predicted(image, position, true) - predicted(image, position, other))
        return found

    with torch.no_grad():
        before = differences()
        with bigain.compressed(denoiser.model, offer.method):
            after = differences()
    expected = torch.cat([a - b for a, b in zip(after, before, strict=True)]).square().mean()
    assert offer.contrast == pytest.approx(float(expected), rel=1e-4)
    assert offer.contrast > 0


def probe_of(settings: Settings, denoiser: Denoiser) -> offers.Probe:
    return offers.Probe.of(replace(settings, classify=2, to_keep=(1,), n_samples=(2,)), denoiser)


def test_the_other_class_is_one_that_the_image_does_not_show(tiny_settings: Make, denoiser: Denoiser) -> None:
    """Of three prompts per class the first; of all classes each is drawn at times."""
    probe = probe_of(tiny_settings(), denoiser)
    probe.classifier.groups = (0, 0, 0, 1, 1, 1, 2, 2, 2, 3)
    probe.items[0] = replace(probe.items[0], labels=(2, 0))
    assert probe._condition(0, 12345, other=False) == 6
    assert {probe._condition(0, draw, other=True) for draw in range(-50, 50)} == {3, 9}


def test_there_must_be_another_class(tiny_settings: Make, denoiser: Denoiser) -> None:
    probe = probe_of(tiny_settings(), denoiser)
    probe.items[1] = replace(probe.items[1], labels=tuple(range(probe.classifier.classes)))
    with pytest.raises(ValueError, match="shows every class"):
        probe.check_classes()
    probe.classifier.groups = (0,) * 10  # prompts of one class
    with pytest.raises(ValueError, match="has 1 classes: there must be two"):
        probe.check_classes()


def test_an_earlier_file_of_offers_is_told_from_another_file(tmp_path: Path) -> None:
    (tmp_path / "o.json").write_text('{"format": "bigain offers 1"}')
    with pytest.raises(ValueError, match=r"is of an earlier version.*delete it, or give another folder with --out"):
        read_offers(tmp_path / "o.json")


def test_a_candidate_is_left_out_where_the_grid_does_not_suit_it() -> None:
    space = Space((1, 2), (Grid(8, 8), Grid(4, 4)))
    found = offers._in_layers(("todo-8", "abm:ratio=0.1", "tome:ratio=0.05", "todo-2"), space)
    assert [(layer, spec(method)) for layer, method in found] == [
        (0, "todo:factor=8,layers=0"),
        (0, "abm:ratio=0.1,layers=0"),  # 6 of 64 tokens; of 16 it would be 1, and a block has 3 to give
        (0, "tome:ratio=0.05,layers=0"),
        (0, "todo:factor=2,layers=0"),
        (1, "todo:factor=2,layers=1"),
    ]


def test_a_candidate_that_is_given_twice_is_measured_once(tiny_settings: Make, denoiser: Denoiser) -> None:
    twice = FEW | {"candidates": ("todo-2", "todo:factor=2,layers=1")}
    found = measure_offers(tiny_settings(), denoiser, **twice)
    assert [offer.method for offer in found.offers] == ["todo:factor=2,layers=0", "todo:factor=2,layers=1"]


def test_a_text_model_with_several_grids_has_offers_on_each(
    pipeline_folder: Path, tiny_settings: Make, tmp_path: Path
) -> None:
    settings = tiny_settings(model=str(pipeline_folder))
    denoiser = open_model(settings.model)
    found = measure_offers(settings, denoiser, **FEW | {"candidates": ("todo-2",), "timesteps": 1})
    space = Space.of(denoiser)
    assert {offer.layer: parse(offer.method)[0].levels for offer in found.offers} == {
        layer: (level,) for layer, level in enumerate(space.levels) if min(vars(space.grids[level - 1]).values()) >= 2
    }
    assert all(offer.saved > 0 and offer.change > 0 for offer in found.offers)


def test_the_default_candidates_are_single_methods_with_layers_left_open() -> None:
    for text in CANDIDATES:
        [method] = parse(text)
        assert method.layers is None
        assert method.levels == (1,)
        assert not method.is_identity
    assert len({spec(parse(text)) for text in CANDIDATES}) == len(CANDIDATES)


def test_measuring_goes_on_where_it_was_stopped(
    tiny_settings: Make, denoiser: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, path = tiny_settings(), tmp_path / "offers.json"
    whole = measure_offers(settings, denoiser, **FEW)
    changes, made = offers.Probe.changes, []

    def killed(self: Any) -> tuple[float, float]:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(1)
        return changes(self)

    monkeypatch.setattr(offers.Probe, "changes", killed)
    with pytest.raises(KeyboardInterrupt):
        measure_offers(settings, denoiser, path, **FEW)
    assert read_offers(path).offers == whole.offers[:3]
    made.clear()
    counts: list[tuple[int, int]] = []
    found = measure_offers(settings, denoiser, path, **FEW, counted=lambda done, of: counts.append((done, of)))
    assert len(made) == 1
    assert found == read_offers(path) == whole
    assert counts == [(1, 4), (2, 4), (3, 4), (4, 4)]
    fewer = measure_offers(settings, denoiser, path, **FEW | {"candidates": ("todo-2",)})
    assert [offer.candidate for offer in fewer.offers] == ["todo:factor=2"] * 2
    assert read_offers(path) == whole  # nothing measured is lost


@pytest.mark.parametrize(
    ("changes", "options", "words"),
    [
        ({"seed": 3}, {}, "seed is 0 there and 3 here"),
        ({}, {"images": 3}, "images is 2 there and 3 here"),
        ({}, {"timesteps": 1}, "timesteps is 2 there and 1 here.*Give another folder"),
        ({}, {"candidates": ("todo-2+lgtm-0.5",)}, "is 2 methods: a candidate is one"),
        ({}, {"candidates": ("none",)}, "is 0 methods"),
        ({}, {"images": 1}, "must lie in"),
        (
            {},
            {"candidates": ("lgtm-0.8",)},
            "'lgtm-0.8' suits no layer of this model, whose grids are 8x8: give a weaker",
        ),
        ({}, {"candidates": ("abm:ratio=0,threshold=0.1",)}, "depend on the image"),
        ({}, {"candidates": ("lgtm:ratio=0.5,cached=true",)}, "is cached"),
        ({}, {"candidates": ("lgtm-0",)}, "compresses nothing"),
    ],
)
def test_what_does_not_go_on_is_refused(
    tiny_settings: Make, denoiser: Denoiser, tmp_path: Path, changes: Any, options: Any, words: str
) -> None:
    measure_offers(tiny_settings(), denoiser, tmp_path / "o.json", **FEW | {"candidates": ("todo-2",)})
    with pytest.raises(ValueError, match=words):
        measure_offers(tiny_settings(**changes), denoiser, tmp_path / "o.json", **FEW | options)


def test_a_change_that_is_no_number_is_an_error(
    tiny_settings: Make, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offers.Probe, "changes", lambda self: (1.0, float("nan")))
    with pytest.raises(
        ValueError, match=r"layers=0 changes the prediction by 1.0 and its difference .* by nan in float32"
    ):
        measure_offers(tiny_settings(), denoiser, **FEW)


@pytest.mark.parametrize(
    "content", ['{"format": "bigain offers 2", "flops": 1}', "[]", '{"format": "bigain preset 1"}', "not json"]
)
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "o.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"o\.json is no (whole )?file of offers"):
        read_offers(path)
