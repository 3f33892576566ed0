from __future__ import annotations

import contextlib
import doctest
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionPipeline,
)
from PIL import Image

import bigain
from bigain.classify import Contest, DiffusionClassifier, Prediction, Racing, Stages, classifier, paired_noise, pairing
from bigain.diffusion import ClassConditional, Conditions, Denoiser
from bigain.images import content_id, preprocess
from bigain.operators.random import image_key

SCHEDULERS = {
    "epsilon": DDIMScheduler(beta_schedule="squaredcos_cap_v2"),
    "v": DDIMScheduler(prediction_type="v_prediction"),
    "flow": FlowMatchEulerDiscreteScheduler(),
}
LEFT_OUT = {"to_keep": None, "n_samples": None}
IDS = ["val/c", "val/a", "val/b"]


def _images(count: int = 3, size: int = 8) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.fixture
def build(families):
    """A classifier on a small random DiT whose labels make a visible difference."""

    def make(conditions=range(10), scheduler="epsilon", **options) -> DiffusionClassifier:
        torch.manual_seed(1)
        model = families["dit"].build(sample_size=8)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        options = {"to_keep": (4, 1), "n_samples": (2, 6), "batch_size": 64} | options
        return DiffusionClassifier(
            ClassConditional(model=model, scheduler=SCHEDULERS[scheduler]), conditions, **options
        )

    return make


def _loop(model, scheduler: str, image: torch.Tensor, image_id: str, timesteps: list[int], loss: str) -> np.ndarray:
    """Errors (10, timesteps) of one image: one forward at a time, everything written out."""
    alphas = SCHEDULERS["epsilon" if scheduler == "flow" else scheduler].alphas_cumprod
    errors = np.zeros((10, len(timesteps)))
    for label in range(10):
        for column, t in enumerate(timesteps):
            noise = paired_noise(0, image_id, t, image.shape)
            if scheduler == "flow":
                x_t, target = (1 - t / 1000) * image + t / 1000 * noise, noise - image
            else:
                a = alphas[t]
                x_t, target = a.sqrt() * image + (1 - a).sqrt() * noise, noise
                if scheduler == "v":
                    target = a.sqrt() * noise - (1 - a).sqrt() * image
            with torch.no_grad():
                prediction = model(x_t[None], torch.tensor([t]), torch.tensor([label])).sample[0]
            difference = (prediction - target).double()
            errors[label, column] = {"l2": difference.square().mean(), "l1": difference.abs().mean()}[loss]
    return errors


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
def test_errors_agree_with_a_plain_loop(build, scheduler):
    loss = "l1" if scheduler == "v" else "l2"
    full = build(scheduler=scheduler, to_keep=(1,), n_samples=(3,), loss=loss)
    staged = build(scheduler=scheduler, to_keep=(4, 1), n_samples=(1, 3), loss=loss)
    images = _images(2)
    for k, result in enumerate(full.predict(images, IDS[:2])):
        expected = _loop(full.denoiser.model, scheduler, images[k], IDS[k], [166, 500, 833], loss)
        np.testing.assert_allclose(result.errors, expected, atol=1e-5, rtol=0)
        assert result.prediction == expected.mean(1).argmin()
        assert list(result.ranking) == list(np.argsort(expected.mean(1), kind="stable"))
        # The same with elimination, written out.
        best = np.argsort(expected[:, 1], kind="stable")[:4]
        partial = staged.predict(images[k, None], [IDS[k]])[0]
        evaluated = np.isin(np.arange(10), best)
        np.testing.assert_allclose(partial.errors[best], expected[best], atol=1e-5, rtol=0)
        np.testing.assert_allclose(partial.errors[:, 1], expected[:, 1], atol=1e-5, rtol=0)
        assert np.isnan(partial.errors[~evaluated][:, [0, 2]]).all()
        assert partial.prediction == best[expected[best].mean(1).argmin()]
        stage = np.where(evaluated, 1, 0)
        stage[partial.prediction] = 2
        assert partial.stage == tuple(stage)
        assert set(partial.ranking[:4]) == set(best)


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_results_do_not_depend_on_the_batch_size(build, batch_size):
    expected = build().predict(_images(), IDS)
    results = build(batch_size=batch_size).predict(_images(), IDS)
    for result, reference in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.errors, reference.errors, atol=1e-5, rtol=0)
        assert (result.ranking, result.stage) == (reference.ranking, reference.stage)


def test_results_do_not_depend_on_order_or_company(build):
    expected = {result.id: result for result in build(batch_size=16).predict(_images(), IDS)}
    order = [2, 0, 1]
    shuffled = build(batch_size=16).predict(_images()[order], [IDS[i] for i in order])
    alone = build(batch_size=16).predict(_images()[1:2], IDS[1:2])
    assert [result.id for result in shuffled] == [IDS[i] for i in order]
    for result in shuffled + alone:
        np.testing.assert_allclose(result.errors, expected[result.id].errors, atol=1e-5, rtol=0)
        assert result.ranking == expected[result.id].ranking


def test_the_same_call_twice_gives_the_same_bits_and_touches_no_global_state(build):
    state = torch.get_rng_state()
    classifier_ = build()
    torch.set_rng_state(state)
    first, second = classifier_.predict(_images(), IDS), classifier_.predict(_images(), IDS)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.errors, b.errors)


def test_seed_and_id_change_the_noise(build):
    errors = build().predict(_images(1), ["a"])[0].errors
    assert not np.array_equal(errors, build(seed=1).predict(_images(1), ["a"])[0].errors, equal_nan=True)
    assert not np.array_equal(errors, build().predict(_images(1), ["b"])[0].errors, equal_nan=True)


def test_several_conditions_per_class(build):
    """A class counts by its best condition, stands there in the ranking, and once."""
    nested = [[3, 8], [1], [0, 2, 9]]
    flat, group = [3, 8, 1, 0, 2, 9], (0, 0, 1, 2, 2, 2)
    options = {"to_keep": (3, 1)}
    subject = build(flat, **options)
    plain = subject.predict(_images(), IDS)
    for conditions in (nested, replace(subject.conditions, groups=group)):
        results = build(conditions, **options).predict(_images(), IDS)
        for result, reference in zip(results, plain, strict=True):
            np.testing.assert_array_equal(result.errors, reference.errors)
            assert result.prediction == group[reference.prediction]
            classes = [group[condition] for condition in reference.ranking]
            assert list(result.ranking) == sorted(set(group), key=classes.index)


def test_forwards_rows_and_keys(build, monkeypatch):
    """Every forward is full but the last of a stage; keys name image, (condition, timestep), (image, timestep)."""
    made, calls, told = [], [], []

    @contextlib.contextmanager
    def record(model, image, draw, alike, timesteps):
        made.append((image.tolist(), draw.tolist(), alike.tolist()))
        told.append(timesteps.tolist())
        yield

    monkeypatch.setattr(pairing, "row_keys", record)
    subject = build(batch_size=16)
    predict = subject.denoiser.predict

    def spy(x_t, t, conditions, index):
        calls.append((t.tolist(), index.tolist()))
        return predict(x_t, t, conditions, index)

    monkeypatch.setattr(subject.denoiser, "predict", spy)
    subject.predict(_images(), IDS)
    sizes = [len(t) for t, _ in calls]
    assert sizes == [16, 16, 16, 12, 16, 16, 16]  # 3 images x 10 x 2, then 3 images x 4 x 4
    assert sum(sizes) == 3 * subject.forwards
    assert told == [t for t, _ in calls]
    images = [key for keys, _, _ in made for key in keys]
    assert {key: images.count(key) for key in images} == {image_key(name, 0): subject.forwards for name in IDS}
    draws: dict[int, set] = {}
    for (images, keys, alike), (t, index) in zip(made, calls, strict=True):
        kinds = set(zip(images, t, alike, strict=True))
        assert len(kinds) == len(set(alike)) == len({kind[:2] for kind in kinds})
        for key, *where in zip(keys, t, index, strict=True):
            draws.setdefault(key, set()).add(tuple(where))
    assert all(len(where) == 1 for where in draws.values())
    assert len(draws) == len(set().union(*draws.values()))


def test_compression_reaches_the_classifier_and_its_random_draws_do_not_depend_on_the_batch(build):
    plain = build().predict(_images(), IDS)
    results = []
    for batch_size in (5, 64):
        subject = build(batch_size=batch_size)
        with bigain.compressed(subject.denoiser.model, bigain.ToMe(ratio=0.5, destinations="random", redraw="forward")):
            results.append(subject.predict(_images(), IDS))
    for a, b, c in zip(*results, plain, strict=True):
        np.testing.assert_allclose(a.errors, b.errors, atol=1e-5, rtol=0)
        first = np.isfinite(c.errors).all(0)  # timesteps that are evaluated for all classes
        assert np.abs(a.errors[:, first] - c.errors[:, first]).max() > 1e-4


def test_latents_and_a_bfloat16_pipeline(families):
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    model = families["dit"].build(sample_size=8, in_channels=4, out_channels=8)
    pipe = DiTPipeline(model, vae, DDIMScheduler()).to(torch.bfloat16)
    results = DiffusionClassifier(pipe, range(10), n_samples=(2, 4)).predict(_images(), IDS)
    for result in results:
        assert result.errors.dtype == np.float32
        assert result.errors.shape == (10, 4)
        assert sorted(result.ranking) == list(range(10))


def test_prompts_that_are_encoded_beforehand(families):
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    pipe = StableDiffusionPipeline(
        vae=vae,
        text_encoder=None,
        tokenizer=None,
        unet=families["unet"].build(sample_size=8),
        scheduler=DDIMScheduler(prediction_type="v_prediction", clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    embeds = torch.randn(4, 5, 16, generator=torch.Generator().manual_seed(0))
    conditions = Conditions(("a", "b", "c", "d"), {"encoder_hidden_states": embeds}, groups=(1, 0, 1, 0))
    subject = DiffusionClassifier(pipe, conditions, to_keep=(2, 1), n_samples=(1, 2), batch_size=3)
    for result in subject.predict(_images(), IDS):
        assert sorted(result.ranking) == [0, 1]
        assert result.errors.shape == (4, 2)
    assert subject.classes == 2


def test_the_progress_bar_counts_forwards(build, capsys):
    subject = build()
    subject.predict(_images(), IDS)
    assert capsys.readouterr().err == ""
    subject.predict(_images(), IDS, progress=True)
    total = 3 * subject.forwards
    assert f"{total}/{total}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "l3"}, "loss must be one of l2, l1, huber, not 'l3'"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"to_keep": (11, 1)}, r"to_keep must keep at most the 10 conditions, not \(11, 1\)"),
        ({"n_samples": (5, 2000)}, r"n_samples must be at most the model's 1000 timesteps, not \(5, 2000\)"),
        ({"n_samples": (5, 5)}, "must increase"),
        ({"conditions": []}, "conditions must hold at least one"),
        ({"conditions": "cat"}, "one prompt per class, not the string 'cat'"),
        ({"conditions": [[1], [], [2]]}, "at least one prompt or label for class 1"),
        ({"conditions": [[1], 2]}, "or a sequence per class, not both"),
        ({"conditions": [10]}, r"class labels in \[0, 10\), not 10"),
        ({"elimination": "quick"}, "to_keep and n_samples must be left out with elimination 'quick'"),
        ({"elimination": "quick"} | LEFT_OUT, "elimination must be staged, racing or one made by hand, not 'quick'"),
        ({"elimination": "racing"}, "to_keep and n_samples must be left out with elimination 'racing'"),
        ({"elimination": "racing", "to_keep": None}, r"one number of timesteps for a race, not \(2, 6\)"),
        ({"elimination": Racing(1001)} | LEFT_OUT, "n_samples must be at most the model's 1000 timesteps, not 1001"),
    ],
)
def test_bad_arguments(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((0, 1), "groups must have one entry for each of the 10 conditions, not 2"),
        ((0, 1, 2, 3, 4, 5, 6, 7, 8, 10), r"lowest is 0, missing: \[9\]"),
        ((-1, 0, 0, 0, 0, 0, 0, 0, 0, 0), "lowest is -1"),
    ],
)
def test_bad_groups(build, groups, message):
    conditions = replace(build().conditions, groups=groups)
    with pytest.raises(ValueError, match=message):
        build(conditions)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["a", "b", "a"], "ids must differ, .*'a' occurs more than once"),
        (["a", "b"], "ids must name each of the 3 images, not 2"),
        (["a", "b", 3], "ids must be strings, not 3"),
    ],
)
def test_bad_ids(build, ids, message):
    with pytest.raises(ValueError, match=message):
        build().predict(_images(), ids)


def test_bad_images(build):
    with pytest.raises(ValueError, match=r"shape \(B, 3, 8, 8\) with B > 0, not \(3, 3, 4, 4\)"):
        build().predict(_images(size=4), IDS)
    with pytest.raises(ValueError, match="must be finite, which image 0 of the batch is not"):
        build().predict(_images() * float("inf"), IDS)


def test_a_prediction_that_is_not_finite_names_the_image(build):
    subject = build()
    subject.denoiser.model.proj_out_2.weight.data.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match=r"image 'val/c' must be finite, which it is not in torch\.float32"):
        subject.predict(_images(), IDS)


def _photo(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (11, 14, 3), dtype=np.uint8)


def test_images_of_any_kind_give_the_same_result(build, tmp_path):
    """PIL images, arrays, paths, lists of them: preprocessed like a data set's, named by what they show."""
    subject, photo = build(), _photo()
    path = tmp_path / "photo.png"
    Image.fromarray(photo).save(path)
    [expected] = subject.predict(preprocess(photo, 8)[None])
    assert expected.id == content_id(preprocess(photo, 8))
    for images in (
        photo,
        photo[None],
        Image.fromarray(photo),
        path,
        str(path),
        [photo],
        [Image.fromarray(photo)],
        [path],
    ):
        [result] = subject.predict(images)
        assert result.id == expected.id
        np.testing.assert_array_equal(result.errors, expected.errors)
    mixed = subject.predict([path, _photo(1), Image.fromarray(photo)])
    assert [result.id == expected.id for result in mixed] == [True, False, True]


def test_equal_pictures_in_one_call_share_their_noise(build):
    first, _, third = build().predict([_photo(), _photo(1), _photo()])
    assert first.id == third.id
    np.testing.assert_allclose(first.errors, third.errors, atol=1e-5, rtol=0)


def test_a_folder_and_a_hugging_face_data_set_are_images_too(build, tmp_path):
    subject, photos = build(), [_photo(seed) for seed in range(3)]
    for seed, photo in enumerate(photos):
        Image.fromarray(photo).save(tmp_path / f"{seed}.png")
    expected = [result.id for result in subject.predict(photos)]
    column = datasets.Dataset.from_dict({"image": [Image.fromarray(photo) for photo in photos]})
    for images in (tmp_path, str(tmp_path), column):
        assert [result.id for result in subject.predict(images)] == expected


def test_many_images_are_read_a_window_at_a_time(build, monkeypatch):
    """The results are those of each image alone, and no more than a window is preprocessed at once."""
    monkeypatch.setattr(classifier, "_WINDOW", 2)
    sizes = []
    whole = Denoiser.prepare
    monkeypatch.setattr(Denoiser, "prepare", lambda self, images: sizes.append(len(images)) or whole(self, images))
    photos = [_photo(seed) for seed in range(5)]
    results = build().predict(photos)
    assert sizes == [2, 2, 1]
    for photo, result in zip(photos, results, strict=True):
        [alone] = build().predict(photo)
        np.testing.assert_allclose(result.errors, alone.errors, atol=1e-5, rtol=0)
        assert result.ranking == alone.ranking


RACES = {"betting": Racing(6, error_rate=0.4), "threshold": Racing(6, threshold=0.05)}


@pytest.mark.parametrize("race", RACES)
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_a_race_evaluates_what_it_would_choose_of_a_full_evaluation(build, race, batch_size):
    """Image by image, whatever the batches: the errors are those of a full evaluation, and the choice is the same."""
    full = build(to_keep=(1,), n_samples=(6,)).predict(_images(), IDS)
    subject = build(**LEFT_OUT, elimination=RACES[race], batch_size=batch_size)
    for result, known in zip(subject.predict(_images(), IDS), full, strict=True):
        contest = Contest("", np.full_like(known.errors, np.nan), np.ones(6))
        for ask in RACES[race].rounds(contest):
            where = np.ix_(ask.conditions, ask.positions)
            contest.errors[where] = known.errors[where]
        np.testing.assert_allclose(result.errors, contest.errors, atol=1e-5, rtol=0)
        assert result.stage == tuple(contest.stage)
        assert result.forwards == np.isfinite(result.errors).sum() < known.errors.size


def test_each_phase_has_its_own_compression(build):
    """Many classes under the first method, the last few under the second: each error is that of its method."""
    methods = ("iekvd-2", "none")
    plain = build(to_keep=(1,), n_samples=(6,)).predict(_images(), IDS)
    subject = build(to_keep=(1,), n_samples=(6,))
    with bigain.compressed(subject.denoiser.model, methods[0]):
        compressed = subject.predict(_images(), IDS)
    phases = set()
    for elimination in (Stages((3, 1), (2, 6), methods), Racing(6, threshold=0.02, methods=methods, few=8)):
        results = build(**LEFT_OUT, elimination=elimination).predict(_images(), IDS)
        for result, first, second in zip(results, compressed, plain, strict=True):
            left = np.isfinite(result.errors).sum(0)
            few = 3 if isinstance(elimination, Stages) else 8
            phases.add((type(elimination), bool(((left > 0) & (left <= few)).any())))
            expected = np.where(left > few, first.errors, second.errors)
            done = np.isfinite(result.errors)
            np.testing.assert_allclose(result.errors[done], expected[done], atol=1e-5, rtol=0)
    assert {(Stages, True), (Racing, True)} <= phases
    with pytest.raises(ValueError, match="replace must be True"), bigain.compressed(subject.denoiser.model, "todo-2"):
        DiffusionClassifier(subject.denoiser, range(10), elimination=elimination).predict(_images(), IDS)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (3, TypeError, "images must be PIL images, .*not int"),
        ([3], TypeError, "an image must be .*not int"),
        ([], ValueError, "images must hold at least one image, not 0"),
        ("missing.png", ValueError, "missing.png must be a readable image, not missing"),
        (np.zeros((4, 4), np.uint8), ValueError, r"image must be \(H, W, 3\)"),
        (np.zeros((4, 4, 3)), TypeError, "image must be uint8, not float64"),
    ],
)
def test_images_of_another_kind_are_refused(build, images, error, message):
    with pytest.raises(error, match=message):
        build().predict(images)


def test_two_prompts_work_without_stages(build):
    [result] = build([3, 7], to_keep=None, n_samples=None).predict(_photo())
    assert result.errors.shape == (2, 20)
    assert result.forwards == 40


def test_a_result_says_what_it_saw_how_surely_and_at_what_cost(build):
    subject = build({"cat": [3, 8], "dog": [1], "owl": [0, 2, 9]}, to_keep=(3, 1))
    assert (subject.names, subject.classes) == (("cat", "dog", "owl"), 3)
    for result in subject.predict(_images(), IDS):
        assert result.name == ("cat", "dog", "owl")[result.prediction]
        assert result.forwards == subject.forwards == 6 * 2 + 3 * 4
        shares = result.probabilities()
        assert sum(shares) == pytest.approx(1)
        assert shares[result.prediction] == max(shares) == result.probability
        assert result.probabilities(1e6) == pytest.approx((1 / 3,) * 3, abs=1e-3)
        own = [[3, 8], [1], [0, 2, 9]]
        order = [label for label in (3, 8, 1, 0, 2, 9)]
        best, second = (
            min(
                (order.index(label) for label in own[place]),
                key=lambda c: (-result.stage[c], np.nanmean(result.errors[c].astype(float))),
            )
            for place in result.ranking[:2]
        )
        shared = np.isfinite(result.errors[[best, second]]).all(0)
        mean = result.errors[:, shared].astype(float).mean(1)
        assert result.margin == pytest.approx(mean[second] - mean[best], abs=1e-9)
        assert f"name={result.name!r}" in repr(result)
        with pytest.raises(ValueError, match="temperature must be above 0, not 0"):
            result.probabilities(0)


def test_the_probability_is_that_of_squared_norms_over_the_sample(build):
    """Li et al. 2023, eq. 5: the softmax of minus the mean over timesteps of the squared norm of the difference."""
    [result] = build(range(10), to_keep=(1,), n_samples=(4,)).predict(_photo())
    logits = -result.errors.astype(float).mean(1) * 3 * 8 * 8
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(result.probabilities(), expected, rtol=1e-6)


def test_a_row_of_results_needs_neither_names_nor_groups():
    errors = np.array([[0.5, 0.5], [0.25, 0.75 - 1 / 8]], dtype=np.float32)
    result = Prediction(id="a", prediction=1, ranking=(1, 0), stage=(0, 1), errors=errors)
    assert (result.name, result.margin) == ("1", 0.0625)


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ([3], "at least two classes to tell apart, not 1"),
        ([[3, 4]], "at least two classes"),
        ([3, 4, 3], "conditions must differ between classes, but classes 0 and 2 have 3"),
        ([[3, 4], [5, 4]], "but classes 0 and 1 have 4"),
    ],
)
def test_classes_that_cannot_be_told_apart_are_refused(build, conditions, message):
    with pytest.raises(ValueError, match=message):
        build(conditions, to_keep=(1,), n_samples=(2,))


def test_one_class_may_say_the_same_twice(build):
    assert build([[3, 3], [4]], to_keep=(1,), n_samples=(2,)).classes == 2


def test_prompts_that_are_equal_once_cut_are_refused():
    start = "a photo of the letter A " * 100
    with pytest.raises(ValueError, match=r"classes 0 and 1 have .*reads as the same text"):
        DiffusionClassifier("glyphs-sd", [start + "one", start + "two"])
    DiffusionClassifier("glyphs-sd", ["one " + start, "two " + start])


@pytest.mark.parametrize("method", ["tome:ratio=0.5,destinations=random", "sito:ratio=0.5,similarity_weight=0"])
def test_the_seed_reaches_the_draws_of_methods(build, method, monkeypatch):
    """With the same noise for every seed, only the draws can differ."""
    noise = pairing.paired_noise
    monkeypatch.setattr(pairing, "paired_noise", lambda seed, *rest: noise(0, *rest))
    results = {}
    for seed, batch_size in ((0, 64), (0, 7), (1, 64)):
        subject = build(seed=seed, batch_size=batch_size)
        with bigain.compressed(subject.denoiser.model, method):
            results[seed, batch_size] = subject.predict(_images(), IDS)
    for same, again, other in zip(*results.values(), strict=True):
        np.testing.assert_allclose(same.errors, again.errors, atol=1e-5, rtol=0)
        first = np.isfinite(same.errors).all(0) & np.isfinite(other.errors).all(0)
        assert np.abs(same.errors[:, first] - other.errors[:, first]).max() > 1e-4


def test_a_device_that_runs_out_of_memory_names_the_batch_size_to_try(build, monkeypatch):
    subject = build(batch_size=16)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(subject.denoiser, "predict", full)
    with pytest.raises(torch.OutOfMemoryError, match=r"batch_size must fit .*which 16 does not; try 8") as caught:
        subject.predict(_images(), IDS)
    assert "Tried to allocate" in str(caught.value.__cause__)


def test_the_example_works_as_typed():
    example = doctest.DocTestFinder(recurse=False).find(classifier.DiffusionClassifier, globs={})[0]
    assert len(example.examples) == 6
    assert doctest.DocTestRunner().run(example).failed == 0


def test_classes_without_names_are_called_as_the_model_calls_their_labels(build):
    assert build([[7, 1], [0]], to_keep=(1,), n_samples=(1,)).names == ("7", "0")
    named = ClassConditional(
        model=build().denoiser.model, scheduler=SCHEDULERS["epsilon"], labels={"tabby": 7, "tabby cat": 7, "owl": 1}
    )
    assert DiffusionClassifier(named, [[7, 1], [0]]).names == ("tabby", "0")
