"""What every layer offers, against the analysis and a plain count; and that measuring resumes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor

import bigain
from bigain.classify import paired_noise
from bigain.data import preprocess
from bigain.diffusion import Denoiser, open_model
from bigain.explain.analysis import analyse, in_layer
from bigain.methods import parse, spec
from bigain.operators.grid import Grid
from bigain.operators.random import image_key, mix_keys
from bigain.run.cost import flops, forward_of
from bigain.run.probe import Probe
from bigain.run.settings import DataSettings, ModelSettings, ProbeSettings
from bigain.search import measuring, offers
from bigain.search.measuring import read_record
from bigain.search.offers import CANDIDATES, Space
from bigain.search.ranges import Range

FEW = ("todo-2", "tome:ratio=0.5,cell=4x4")
VALIDATION = DataSettings(split="validation")
PROBE = ProbeSettings(images=2, timesteps=2, seed=0)


def measure(
    denoiser: Denoiser,
    path: Path | None = None,
    *,
    model: ModelSettings,
    data: DataSettings = VALIDATION,
    settings: ProbeSettings = PROBE,
    candidates: tuple[str, ...] = FEW,
    exact: bool = True,
    **options: Any,
) -> measuring.Record:
    probe = Probe.of(model, data, settings, denoiser)
    with TemporaryDirectory() as folder:
        path = path or Path(folder, "o.json")
        return measuring.measure_offers(probe, path, candidates=candidates, exact=exact, **options)


def test_an_offer_is_what_the_analysis_finds_of_the_layer_alone(
    model: ModelSettings, denoiser: Denoiser, tmp_path: Path
) -> None:
    found = measure(denoiser, model=model)
    methods = [spec(parse(text)) for text in FEW]
    seen = analyse(probe_of(model, denoiser), methods, tmp_path / "a.json")
    expected = [(layer, spec(parse(in_layer(method, layer)))) for layer in (0, 1) for method in methods]
    assert [(offer.layer, offer.method) for offer in found.offers().offers] == expected
    plain = flops(denoiser, "none", 0)
    assert found.flops == plain
    separations = probe_of(model, denoiser).separations()
    for offer, one in zip(found.offers().offers, found.measured, strict=True):
        assert offer.change == pytest.approx(mean(one.change))
        changes = [share * whole for share, whole in zip(one.change, separations, strict=True)]
        assert mean(changes) == pytest.approx(seen.pieces[offer.method].change, rel=1e-6)
        assert offer.saved == plain - flops(denoiser, offer.method, 0) > 0


def test_the_contrast_is_that_of_the_true_class_to_another(model: ModelSettings, denoiser: Denoiser) -> None:
    [offer] = [one for one in measure(denoiser, model=model).offers().offers if one.method == "todo:factor=2,layers=1"]
    probe = probe_of(model, denoiser)
    classifier, conditions = probe.classifier, probe.classifier.conditions

    def predicted(image: int, position: int, condition: int) -> Tensor:
        t, item = classifier.timesteps[position : position + 1], probe.items[image]
        x0 = denoiser.encode(preprocess(item.image, denoiser.image_size)[None])
        noise = paired_noise(PROBE.seed, item.id, int(t), x0.shape[1:])[None]
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
    changed = torch.cat([a - b for a, b in zip(after, before, strict=True)])
    squares, separations = (  # by timestep, the mean over both images
        of.square().flatten(1).mean(1).view(2, 2).mean(0) for of in (changed, torch.cat(before))
    )
    assert probe.separations() == pytest.approx(separations.tolist(), rel=1e-4)
    assert offer.contrast == pytest.approx(float((squares / separations).mean()), rel=1e-4)
    assert offer.contrast > 0


def test_classes_that_are_predicted_alike_are_refused(
    model: ModelSettings, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "predicted", lambda self, rows, other=False: torch.ones(len(rows), 3, 4, 4))
    with pytest.raises(ValueError, match=r"must differ at every timestep.* at t = \d+ is 0\.0"):
        probe_of(model, denoiser).separations()


def probe_of(model: ModelSettings, denoiser: Denoiser) -> Probe:
    return Probe.of(model, VALIDATION, PROBE, denoiser)


def test_the_other_class_is_one_that_the_image_does_not_show(model: ModelSettings, denoiser: Denoiser) -> None:
    """Of three prompts per class the first; of all classes each is drawn at times."""
    probe = probe_of(model, denoiser)
    classes = replace(probe.classifier._classes, groups=(0, 0, 0, 1, 1, 1, 2, 2, 2, 3))
    probe.classifier._classes = replace(classes, names=tuple("abcd"))
    probe.items[0] = replace(probe.items[0], labels=(2, 0))
    assert probe._condition(0, 12345, other=False) == 6
    assert {probe._condition(0, draw, other=True) for draw in range(-50, 50)} == {3, 9}


def test_there_must_be_another_class(model: ModelSettings, denoiser: Denoiser) -> None:
    probe = probe_of(model, denoiser)
    probe.items[1] = replace(probe.items[1], labels=tuple(range(probe.classifier.classes)))
    with pytest.raises(ValueError, match="shows every class"):
        probe.check_classes()


def test_a_candidate_is_left_out_where_the_grid_does_not_suit_it() -> None:
    space = Space((1, 2), (Grid(8, 8), Grid(4, 4)))
    found = offers.in_layers(("todo-8", "abm:ratio=0.1", "tome:ratio=0.05", "todo-2"), space)
    assert [(layer, spec(method)) for layer, method in found] == [
        (0, "todo:factor=8,layers=0"),
        (0, "abm:ratio=0.1,layers=0"),  # 6 of 64 tokens; of 16 it would be 1, and a block has 3 to give
        (0, "tome:ratio=0.05,layers=0"),
        (0, "todo:factor=2,layers=0"),
        (1, "todo:factor=2,layers=1"),
    ]


def test_a_candidate_that_is_given_twice_is_measured_once(model: ModelSettings, denoiser: Denoiser) -> None:
    found = measure(denoiser, model=model, candidates=("todo-2", "todo:factor=2,layers=1"))
    assert [offer.method for offer in found.offers().offers] == ["todo:factor=2,layers=0", "todo:factor=2,layers=1"]


def test_a_text_model_with_several_grids_has_offers_on_each(pipeline_folder: Path) -> None:
    model = ModelSettings(model=str(pipeline_folder), batch_size=8)
    denoiser = open_model(model.model)
    found = measure(denoiser, model=model, candidates=("todo-2",), settings=replace(PROBE, timesteps=1))
    space = Space.of(denoiser)
    grids = [space.grids[level - 1] for level in space.levels]
    wide = {layer for layer, grid in enumerate(grids) if min(grid.height, grid.width) >= 2}
    assert {offer.layer for offer in found.offers().offers} == wide
    assert len({*space.levels}) > 1
    assert all(offer.saved > 0 and offer.change > 0 for offer in found.offers().offers)


def test_the_default_candidates_are_single_methods_with_layers_left_open() -> None:
    for text in CANDIDATES:
        [method] = parse(text)
        assert method.layers is None
        assert method.levels == (1,)
        assert not method.is_identity
    assert len({spec(parse(text)) for text in CANDIDATES}) == len(CANDIDATES)


@pytest.mark.parametrize(("name", "frames"), [("flux", None), ("wan", 3), ("wan", 5), ("wan", 9)])
def test_models_that_attend_jointly_or_over_video_have_candidates_of_their_own(
    name: str, frames: int | None, flows: dict[str, Any]
) -> None:
    sizes = {"image_size": 64} | ({} if frames is None else {"frames": frames})
    denoiser = open_model(flows[name].build(), **sizes)
    space = Space.of(denoiser)
    candidates = offers.usual_candidates(denoiser, space)
    placed = offers.in_layers(candidates, space)
    assert {layer for layer, _ in placed} == {*range(len(space.levels))}
    assert len(placed) == len(candidates) * len(space.levels)
    spanning = [text for text in candidates if text.count("x") == 2]
    assert len(spanning) == {None: 0, 3: 0, 5: 2, 9: 3}[frames]  # beside the first, 1, 2 and 4 frames of latents
    t = denoiser.process.timesteps(1)
    for text in spanning:
        with bigain.compressed(denoiser, text) as handle:
            forward_of(denoiser, denoiser.any_condition, t)()
            assert all(row.keys[1] < row.keys[0] for row in handle.summary())


def test_methods_around_mlps_and_around_blocks_do_not_share_ranges() -> None:
    methods = ("abm:ratio=0.5,layers=0,locations=mlp", "abm:ratio=0.5,layers=0,locations=block")
    record = measuring.Record(
        {}, 9, (250, 750), tuple(measuring.Measured(0, one, 1, (1, 1), (1, 1)) for one in methods)
    )
    assert len(record.offers().offers) == 2
    with pytest.raises(ValueError, match="candidates must not be both of locations=mlp and locations=block"):
        record.offers([Range((0, 500), 0.5), Range((500, 1000), 0.5)])


def test_two_networks_that_share_the_timesteps_are_refused(flows: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"model must have one network that denoises .*, not 2"):
        Space.of(open_model(flows["wan 2.2"].build(), image_size=16, frames=5))


def test_measuring_goes_on_where_it_was_stopped(
    model: ModelSettings, denoiser: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "offers.json"
    whole = measure(denoiser, model=model)
    changes, made = Probe.changes, []

    def killed(self: Any) -> Any:
        if len(made) == 3:
            raise KeyboardInterrupt
        made.append(1)
        return changes(self)

    monkeypatch.setattr(Probe, "changes", killed)
    with pytest.raises(KeyboardInterrupt):
        measure(denoiser, path, model=model)
    assert read_record(path).measured == whole.measured[:3]
    made.clear()
    counts: list[tuple[int, int]] = []
    found = measure(denoiser, path, model=model, counted=lambda done, of: counts.append((done, of)))
    assert len(made) == 1
    assert found == read_record(path) == whole
    assert counts == [(4, 4)]
    fewer = measure(denoiser, path, model=model, candidates=("todo-2",))
    assert [offer.candidate.text for offer in fewer.offers().offers] == ["todo:factor=2"] * 2
    assert read_record(path) == whole  # nothing measured is lost


@pytest.mark.parametrize(
    ("changes", "candidates", "words"),
    [
        ({"seed": 3}, FEW, "but seed is 0 there and 3 here"),
        ({"images": 3}, FEW, "but images is 2 there and 3 here"),
        ({"timesteps": 1}, FEW, "but timesteps is 2 there and 1 here: give another folder"),
        ({"images": 5001}, FEW, "5001"),
        ({}, ("todo-2+lgtm-0.5",), "must be one method, not the 2 of 'todo-2"),
        ({}, ("none",), "must be one method, not the 0 of 'none'"),
        ({}, ("lgtm-0.8",), "must suit a layer of this model, whose grids are 8x8, not 'lgtm-0.8'"),
        ({}, ("abm:ratio=0,threshold=0.1",), "must have a ratio, not a threshold"),
        ({}, ("lgtm:ratio=0.5,cached=true",), "must not be cached"),
        ({}, ("todo:factor=2,timesteps=0-500",), "must leave timesteps out"),
        ({}, ("lgtm-0",), "must compress by its ratio or factor"),
    ],
)
def test_what_does_not_go_on_is_refused(
    model: ModelSettings,
    denoiser: Denoiser,
    tmp_path: Path,
    changes: dict[str, int],
    candidates: tuple[str, ...],
    words: str,
) -> None:
    measure(denoiser, tmp_path / "o.json", model=model, candidates=("todo-2",))
    with pytest.raises(ValueError, match=words):
        measure(denoiser, tmp_path / "o.json", model=model, settings=replace(PROBE, **changes), candidates=candidates)


def test_a_change_that_is_no_number_is_an_error(
    model: ModelSettings, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Probe, "changes", lambda self: ((1.0, 1.0), (1.0, float("nan"))))
    with pytest.raises(ValueError, match=r"must be finite, not [\d.]+ and nan, under todo.*layers=0 in float32"):
        measure(denoiser, model=model)


@pytest.mark.parametrize(
    "content",
    [
        '{"format": "bigain offers 5", "flops": 1}',
        '{"format": "bigain offers 1"}',
        "[]",
        '{"format": "bigain preset 1"}',
        "not json",
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "o.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"o\.json must (be|have|hold)"):
        read_record(path)


def test_estimates_do_not_go_on_where_measured_values_are(
    model: ModelSettings, denoiser: Denoiser, tmp_path: Path
) -> None:
    measure(denoiser, tmp_path / "o.json", model=model, candidates=("todo-2",))
    with pytest.raises(ValueError, match="exact is true there and false here: give another folder"):
        measure(denoiser, tmp_path / "o.json", model=model, exact=False)


def test_an_offer_in_a_range_counts_by_the_ranges_share(model: ModelSettings, denoiser: Denoiser) -> None:
    found = measure(denoiser, model=model, candidates=("todo-2",))
    assert found.timesteps == (250, 750)
    low, high = Range((0, 300), 0.25), Range((300, 1000), 0.75)
    offers_of = found.offers((low, high)).offers
    assert [offer.place for offer in offers_of] == [(layer, one.timesteps) for layer in (0, 1) for one in (low, high)]
    for one, (at_low, at_high) in zip(found.measured, zip(offers_of[::2], offers_of[1::2], strict=True), strict=True):
        assert (at_low.saved, at_high.saved) == (round(one.saved / 4), round(one.saved * 3 / 4))
        assert at_low.change == pytest.approx(one.change[0] / 4)
        assert at_high.contrast == pytest.approx(one.contrast[1] * 3 / 4)
        assert at_high.method == f"todo:factor=2,layers={one.layer},timesteps=300-1000"
    [whole] = [offer for offer in found.offers().offers if offer.layer == 0]
    assert whole.change == pytest.approx(sum(found.measured[0].change) / 2)


def test_a_ratio_that_follows_t_has_no_ranges(model: ModelSettings, denoiser: Denoiser) -> None:
    found = measure(denoiser, model=model, candidates=("tome:ratio=0.5>0.3",))
    assert len(found.offers().offers) == 2
    with pytest.raises(ValueError, match=r"must have one ratio where there are ranges of t, not 'tome:ratio=0.5>0.3"):
        found.offers((Range((0, 500), 0.5), Range((500, 1000), 0.5)))
