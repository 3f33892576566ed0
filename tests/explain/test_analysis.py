"""The analysis against slow references, and that it resumes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bigain.backbones import Seen, compressed, recorded, row_keys
from bigain.classify import DiffusionClassifier, paired_noise
from bigain.data import load, preprocess
from bigain.diffusion import Denoiser, open_model
from bigain.explain import analysis
from bigain.explain.analysis import Analysis, SpectrumMeter, analyse, in_layer, margins, read_analysis, remaining
from bigain.methods import Context, parse
from bigain.metrics.accuracy import paired_difference
from bigain.operators.frequency import radial_power
from bigain.operators.grid import Grid
from bigain.operators.random import image_key, mix_keys
from bigain.run import probe
from bigain.run.files import encode_png
from bigain.run.settings import DataSettings, ModelSettings, ProbeSettings

Analyse = Callable[..., Analysis]
IMAGES, TIMESTEPS = 3, 2
PER_FORWARD = "tome:ratio=0.5,destinations=random,redraw=forward"


@pytest.fixture
def model(tiny_model: Path) -> ModelSettings:
    return ModelSettings(model=str(tiny_model), batch_size=8)


@pytest.fixture
def small(model: ModelSettings) -> Analyse:
    """Makes an analysis of a second."""

    def make(
        path: Path, *methods: str, images: int = IMAGES, timesteps: int = 1, seed: int = 0, loss: str = "l2",
        split: str | None = None, **options: Any,
    ) -> Analysis:  # fmt: skip
        settings = ProbeSettings(images=images, timesteps=timesteps, seed=seed, loss=loss)
        denoiser = options.pop("denoiser", None) or model.open()
        images_shown = probe.Probe.of(model, DataSettings(split=split), settings, denoiser)
        return analyse(images_shown, methods or ("lgtm-0.5",), path, **options)

    return make


@pytest.fixture
def denoiser(model: ModelSettings) -> Denoiser:
    return open_model(model.model)


def a_probe(model: ModelSettings, denoiser: Denoiser, timesteps: int) -> probe.Probe:
    settings = ProbeSettings(images=IMAGES, timesteps=timesteps, seed=0)
    return probe.Probe.of(model, DataSettings(), settings, denoiser)


def image(number: int) -> tuple[torch.Tensor, str, int]:
    item = load("glyphs", image_size=16)[number]
    return preprocess(item.image, 16), item.id, item.labels[0]


def slow_prediction(denoiser: Denoiser, number: int, t: int, condition: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The prediction for one image at one timestep, and the noise that was to be predicted."""
    pixels, name, _ = image(number)
    at = torch.tensor([t])
    noise = paired_noise(0, name, t, (3, 16, 16))[None]
    x_t = denoiser.process.noise(pixels[None], noise, at)
    index = torch.tensor([condition])
    with row_keys(denoiser.model, image=torch.tensor([image_key(name, 0)]), draw=mix_keys(index, at)):
        return denoiser.predict(x_t, at, denoiser.conditions(range(10)), index), noise


@pytest.mark.parametrize("method", ["todo:factor=2", PER_FORWARD])
def test_gaps_and_accuracy_are_those_of_the_classifier(
    small: Analyse, denoiser: Denoiser, tmp_path: Path, method: str
) -> None:
    found = small(tmp_path / "a.json", method, timesteps=TIMESTEPS)
    [method] = found.methods
    for name in ("none", method):
        classifier = DiffusionClassifier(denoiser, range(10), to_keep=(1,), n_samples=(TIMESTEPS,))
        piece = found.pieces[name]
        for number in range(IMAGES):
            pixels, identity, label = image(number)
            with compressed(denoiser.model, name):
                [classified] = classifier.predict(pixels[None], [identity])
            errors = classified.errors.astype(float)
            means = [sum(row) / TIMESTEPS for row in errors]
            wrong = min(mean for place, mean in enumerate(means) if place != label)
            assert piece.gaps[number] == pytest.approx(wrong - means[label], abs=1e-6)
            assert piece.correct[number] == (classified.prediction == label)
            for step in range(TIMESTEPS):
                wrong = min(error for place, error in enumerate(errors[:, step]) if place != label)
                assert piece.gaps_at[step][number] == pytest.approx(wrong - errors[label, step], abs=1e-6)
                assert piece.correct_at[step][number] == (errors[:, step].argmin() == label)
    effect, plain = found.effect(method), found.effect("none")
    shifts = [a - b for a, b in zip(found.pieces[method].gaps, found.pieces["none"].gaps, strict=True)]
    assert (effect.shift, effect.deviation) == pytest.approx((np.mean(shifts), np.std(shifts, ddof=1)))
    assert (effect.difference, effect.low, effect.high) == paired_difference(
        found.pieces[method].correct, found.pieces["none"].correct
    )
    assert effect.gap - plain.gap == pytest.approx(effect.shift)
    assert np.mean(effect.gap_at) == pytest.approx(np.mean(found.pieces[method].gaps_at))
    assert (plain.shift, plain.change, plain.difference) == (0, 0, 0)


@pytest.mark.parametrize("method", ["iekvd:factor=2,alpha=0.8>1.2", PER_FORWARD])
def test_the_change_of_the_prediction_and_the_spectrum_are_those_of_single_forwards(
    small: Analyse, denoiser: Denoiser, tmp_path: Path, method: str
) -> None:
    images = 2
    found = small(tmp_path / "a.json", method, images=images, timesteps=TIMESTEPS, bands=3)
    for layer, name in {None: found.methods[0], 1: found.alone(found.methods[0])[1]}.items():
        [only] = parse(name)
        assert only.layers == (None if layer is None else (layer,))
        changes: list[float] = []
        powers: dict[int, list[np.ndarray]] = {}
        for number in range(images):
            for t in denoiser.process.timesteps(TIMESTEPS).tolist():
                before, _ = slow_prediction(denoiser, number, t, image(number)[2])
                seen: list[Seen] = []
                with recorded(denoiser.model, only, seen.append):
                    after, _ = slow_prediction(denoiser, number, t, image(number)[2])
                changes.append(float((after - before).square().mean()))
                for each in seen:
                    kept = torch.tensor(slow_remaining(only, each))[None]
                    parts = (each.tokens, kept, each.tokens - kept)
                    rows = [radial_power(part.double(), Grid(8, 8), 3)[0].numpy() for part in parts]
                    powers.setdefault(each.context.layer, []).append(np.stack(rows))
        piece = found.pieces[name]
        assert piece.change == pytest.approx(np.mean(changes), rel=1e-3)
        assert piece.change > 0
        assert [one.layer for one in piece.spectra] == sorted(powers) == ([0, 1] if layer is None else [layer])
        for one in piece.spectra:
            power, kept_power, error = np.mean(powers[one.layer], axis=0)
            np.testing.assert_allclose(one.power, power, rtol=1e-3)
            np.testing.assert_allclose(one.kept, kept_power / power, rtol=1e-3)
            np.testing.assert_allclose(one.error, error / power, rtol=1e-3)


def slow_remaining(method: Any, seen: Seen) -> np.ndarray:
    """(N, C) of one row on an 8x8 grid, token by token."""
    x = seen.tokens[0].double().numpy()
    if seen.assignment is not None:
        group = seen.assignment.index[0].tolist()
        members = [[i for i in range(64) if group[i] == one] for one in group]
        return np.stack([x[own].mean(axis=0) for own in members])
    assert seen.context.timestep is not None
    alpha = 1.2 + (0.8 - 1.2) * float(seen.context.timestep[0]) / 999
    rows = []
    for i in range(64):
        corner = i // 16 * 16 + i % 8 // 2 * 2
        window = x[[corner, corner + 1, corner + 8, corner + 9]]
        rows.append(alpha * window[3] + (1 - alpha) * window.mean(axis=0))
    return np.stack(rows)


def test_a_method_sees_what_it_sees_in_the_classifier(model: ModelSettings, denoiser: Denoiser) -> None:
    work = a_probe(model, denoiser, TIMESTEPS)
    with compressed(denoiser.model, PER_FORWARD):
        errors = work.errors(lambda forwards: None)
        predictions = torch.cat([work.predicted(rows) for rows in work.batches()])
    for number in range(IMAGES):
        _, name, label = image(number)
        for step, t in enumerate(denoiser.process.timesteps(TIMESTEPS).tolist()):
            noise = paired_noise(0, name, t, (3, 16, 16))
            error = (predictions[number * TIMESTEPS + step] - noise).square().mean()
            assert errors[number, label, step] == pytest.approx(float(error), rel=1e-5)


def test_a_method_that_takes_nothing_away_keeps_everything(small: Analyse, tmp_path: Path) -> None:
    found = small(tmp_path / "a.json", "lgtm:ratio=0.001>0", timesteps=1, bands=4)
    [method] = found.methods
    for one in found.pieces[method].spectra:
        assert one.kept == pytest.approx((1.0,) * 4)
        assert one.error == (0.0,) * 4
    assert found.pieces[method].change < 1e-10
    assert found.effect(method).shift == pytest.approx(0, abs=1e-6)


def checkerboard(method: str) -> Any:
    """The spectrum of 3 plus a checkerboard of ±1."""
    [only] = parse(method)
    grid = Grid(8, 8)
    place = torch.arange(64)
    tokens = 3 + (1 - 2.0 * ((place // 8 + place) % 2))[None, :, None]
    meter = SpectrumMeter(bands=8)
    assignment = None if method.startswith(("avg", "todo")) else only.assign(tokens, Context(grid))  # type: ignore[union-attr]
    meter.note(Seen("block", only, tokens, tokens, Context(grid), assignment))
    [spectrum] = meter.spectra()
    return spectrum


def test_of_a_checkerboard_the_mean_keeps_the_mean_alone() -> None:
    for method in ("avgpool-2", "quadtree:ratio=0.75"):
        found = checkerboard(method)
        assert found.power[0] == pytest.approx(9)
        assert found.power[7] == pytest.approx(1)
        assert (found.kept[0], found.kept[7]) == pytest.approx((1, 0), abs=1e-6)
        assert (found.error[0], found.error[7]) == pytest.approx((0, 1), abs=1e-6)
        assert found.kept[1:7] == found.error[1:7] == (None,) * 6


def test_of_a_checkerboard_the_nearest_token_makes_detail_into_brightness() -> None:
    found = checkerboard("todo-2")
    assert (found.kept[0], found.kept[7]) == pytest.approx((16 / 9, 0), abs=1e-6)
    assert (found.error[0], found.error[7]) == pytest.approx((1 / 9, 1), abs=1e-6)


def test_half_precision_adds_no_error() -> None:
    [only] = parse("avgpool-2")
    x = torch.full((1, 64, 2), 1.0).bfloat16()
    x[:, ::2] = 1.0078125  # the next number, so that bfloat16 cannot hold the mean
    left = remaining(Seen("block", only, x, None, Context(Grid(8, 8)), None))
    assert left.dtype == torch.float32
    assert torch.all(left == 1.00390625)


def test_margins_are_those_of_a_loop_over_classes() -> None:
    rng = np.random.default_rng(0)
    errors = rng.random((20, 6, 3)).astype(np.float32)
    groups = (0, 1, 1, 2, 3, 0)
    labels = [tuple(rng.permutation(4)[: rng.integers(1, 4)].tolist()) for _ in range(20)]
    gaps, correct = margins(errors, groups, labels)
    for number in range(20):
        best = {}
        for place, group in enumerate(groups):
            mean = float(errors[number, place].astype(float).sum()) / 3
            best[group] = min(best.get(group, mean), mean)
        true = min(best[label] for label in labels[number])
        wrong = min(mean for group, mean in best.items() if group not in labels[number])
        assert gaps[number] == pytest.approx(wrong - true)
        assert correct[number] == (min(best, key=lambda group: best[group]) in labels[number])
        assert correct[number] == (gaps[number] > 0)


def test_the_same_call_gives_the_same_file_and_a_killed_one_goes_on(
    small: Analyse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = ("abm-0.5", "avgpool-2")
    small(tmp_path / "whole" / "a.json", *methods, images=2)
    whole = (tmp_path / "whole" / "a.json").read_bytes()
    measured: list[str] = []
    measure = analysis._measure

    def killed(on: Any, chosen: Any, *arguments: Any) -> Any:
        if len(measured) == 4:
            raise KeyboardInterrupt
        measured.append(str(chosen))
        return measure(on, chosen, *arguments)

    monkeypatch.setattr(analysis, "_measure", killed)
    with pytest.raises(KeyboardInterrupt):
        small(tmp_path / "a.json", *methods, images=2)
    half = read_analysis(tmp_path / "a.json")
    assert half.methods == ("abm:ratio=0.5",)
    assert len(half.pieces) == 4
    measured.append("anew")
    found = small(tmp_path / "a.json", *methods, images=2)
    assert len(measured) == 5 + 3
    assert (tmp_path / "a.json").read_bytes() == whole
    small(tmp_path / "a.json", *methods, images=2)
    assert len(measured) == 5 + 3  # nothing was left to do
    assert (tmp_path / "a.json").read_bytes() == whole
    assert read_analysis(tmp_path / "a.json").pieces == found.pieces


def test_all_versions_that_took_part_are_listed_once(
    small: Analyse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def listed(torch_version: str, *methods: str) -> list[str]:
        monkeypatch.setattr(analysis, "versions", lambda: {"torch": torch_version})
        small(tmp_path / "a.json", *methods, images=2)
        return [each["torch"] for each in read_analysis(tmp_path / "a.json").facts["versions"]]

    assert listed("1", "todo-2") == ["1"]
    assert listed("2", "todo-2") == ["1"]  # which had nothing to do
    assert listed("2", "avgpool-2") == ["1", "2"]
    assert listed("1", "todo-3") == ["1", "2"]


def test_the_bar_counts_every_forward_that_is_made(
    small: Analyse, denoiser: Denoiser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: dict[str, int] = {}
    progress_bar, predict = analysis.progress_bar, type(denoiser).predict

    def counted_bar(total: int, *arguments: Any, **options: Any) -> Any:
        bar = progress_bar(total, *arguments, **options)
        monkeypatch.setattr(bar, "update", lambda more: counts.update(done=counts["done"] + more))
        counts.update(total=total, done=0, made=0)
        return bar

    def counted_predict(self: Denoiser, x_t: torch.Tensor, *arguments: Any) -> torch.Tensor:
        counts["made"] += len(x_t)
        return predict(self, x_t, *arguments)

    monkeypatch.setattr(analysis, "progress_bar", counted_bar)
    monkeypatch.setattr(type(denoiser), "predict", counted_predict)
    each = IMAGES * TIMESTEPS * (10 + 1)  # of 10 classes and the true one once more
    for method, pieces in (("todo-2", 2 + 2), ("avgpool-2", 2 + 1)):  # 2 layers; none is there the second time
        small(tmp_path / "a.json", method, timesteps=TIMESTEPS, denoiser=denoiser)
        again = IMAGES * TIMESTEPS if method == "avgpool-2" else 0  # without compression, which is not in the file
        assert counts == dict.fromkeys(("total", "done", "made"), pieces * each + again)


@pytest.mark.parametrize("several", [False, True])
def test_data_with_several_true_classes_say_so(
    model: ModelSettings, denoiser: Denoiser, monkeypatch: pytest.MonkeyPatch, several: bool
) -> None:
    data = replace(load("glyphs", image_size=16, limit=IMAGES), multi_label=several)
    monkeypatch.setattr(DataSettings, "load", lambda *_: data)
    work = a_probe(model, denoiser, 1)
    assert work.facts()["multi_label"] == several


def test_a_layer_alone_is_a_method_of_its_own(small: Analyse, tmp_path: Path) -> None:
    small(tmp_path / "a.json", images=2, timesteps=1)
    alone = in_layer("lgtm-0.5", 1)
    assert alone == "lgtm:ratio=0.5,layers=1"
    found = small(tmp_path / "a.json", alone, images=2)
    assert found.methods == read_analysis(tmp_path / "a.json").methods == ("lgtm:ratio=0.5", alone)
    assert found.layers[alone] == (1,)


def test_methods_in_different_layers_are_each_measured_in_their_own(small: Analyse, tmp_path: Path) -> None:
    both = "lgtm:ratio=0.5,layers=0+todo:factor=2,layers=1"
    found = small(tmp_path / "a.json", both, images=2)
    alone = {0: "lgtm:ratio=0.5,layers=0", 1: "todo:factor=2,layers=1"}
    assert found.alone(both) == alone
    assert [one.layer for one in found.pieces[both].spectra] == [0, 1]
    assert found.pieces[both].spectra[0] == found.pieces[alone[0]].spectra[0], "the first layer meets the same tokens"
    assert found.pieces[both].change != found.pieces[alone[0]].change
    assert all(found.pieces[name].change > 0 for name in (both, *alone.values()))


@pytest.mark.parametrize(
    "method", ["lgtm-0.5+todo:factor=2,layers=1", "lgtm:ratio=0.5,layers=0/1+todo:factor=2,layers=1"]
)
def test_methods_that_share_a_layer_are_refused(small: Analyse, tmp_path: Path, method: str) -> None:
    with pytest.raises(ValueError, match="must each have their own layers"):
        small(tmp_path / "a.json", method, timesteps=1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 1}, "but seed is 0 there and 1 here"),
        ({"images": 3}, "but images is 2 there and 3 here"),
        ({"timesteps": 2}, "but timesteps is 1 there and 2 here"),
        ({"bands": 2}, "but bands is 8 there and 2 here"),
        ({"loss": "l1", "split": "validation"}, r"split is .*loss is .*: give another folder"),
    ],
)
def test_another_analysis_in_the_file_is_refused(small: Analyse, tmp_path: Path, changes: Any, words: str) -> None:
    small(tmp_path / "a.json", images=2)
    before = (tmp_path / "a.json").read_bytes()
    with pytest.raises(ValueError, match=words):
        small(tmp_path / "a.json", **{"images": 2} | changes)
    assert (tmp_path / "a.json").read_bytes() == before


def test_other_weights_are_refused(small: Analyse, denoiser: Denoiser, tmp_path: Path) -> None:
    small(tmp_path / "a.json", images=2, timesteps=1, denoiser=denoiser)
    with torch.no_grad():
        next(iter(denoiser.model.parameters())).add_(1)
    with pytest.raises(ValueError, match="weights is"):
        small(tmp_path / "a.json", images=2, timesteps=1, denoiser=denoiser)


@pytest.mark.parametrize(
    ("method", "changes", "words"),
    [
        ("none", {}, "methods must have at least one that compresses"),
        ("lgtm-0.5+todo-2", {}, "must each have their own layers"),
        ("freqsel-2", {}, "must merge or pool, not drop tokens"),
        ("todo-1", {}, "must compress by their ratio or factor"),
        ("lgtm:ratio=0.5,layers=7", {}, "layers"),
        ("lgtm-0.5", {"images": 1}, "images must be at least 2, not 1"),
        ("lgtm-0.5", {"images": 5001}, "5001"),
        ("lgtm-0.5", {"timesteps": 0}, "timesteps must be at least 1, not 0"),
        ("lgtm-0.5", {"timesteps": 1001}, "1001"),
        ("lgtm-0.5", {"bands": 0}, "bands must be at least 1, not 0"),
    ],
)
def test_what_cannot_be_analysed_is_refused(
    small: Analyse, tmp_path: Path, method: str, changes: Any, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        small(tmp_path / "a.json", method, **changes)
    assert not (tmp_path / "a.json").exists()


@pytest.mark.parametrize("content", ["{", "[]", '{"format": "bigain preset 1"}', '{"format": "bigain analysis 1"}'])
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ValueError, match=r"a\.json must "):
        read_analysis(tmp_path / "a.json")


def test_a_text_model_with_several_prompts_of_a_class(pipeline_folder: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.csv"
    lines = [f"a letter {name},{name},{index}" for index, name in enumerate("ABC")]
    prompts.write_text("\n".join(["prompt,classname,classidx", *lines, "an A,A,0"]))
    letters = tmp_path / "letters"
    for item in load("glyphs", image_size=32, limit=3):
        name = "ABC"[item.labels[0]]
        (letters / name).mkdir(parents=True)
        (letters / name / "0.png").write_bytes(encode_png(item.image))
    model = ModelSettings(model=str(pipeline_folder))
    data = DataSettings(data=str(letters), prompts_csv=str(prompts))
    shown = probe.Probe.of(model, data, ProbeSettings(images=3, timesteps=1, seed=0), model.open())
    found = analyse(shown, ["sito-0.5"], tmp_path / "a.json")
    assert found.facts["classes"] == 3
    assert found.layers["sito:ratio=0.5"] == (0, 2, 3)  # the middle block is on the second level
    assert found.facts["images"] == {"A/0.png": [0], "B/0.png": [1], "C/0.png": [2]}
    assert found.effect("sito:ratio=0.5").change > 0
