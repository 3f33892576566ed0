from __future__ import annotations

import contextlib

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

import bigain
from bigain.classify import DiffusionClassifier, paired_noise, pairing
from bigain.diffusion import ClassConditional, Conditions, image_key

SCHEDULERS = {
    "epsilon": DDIMScheduler(beta_schedule="squaredcos_cap_v2"),
    "v": DDIMScheduler(prediction_type="v_prediction"),
    "flow": FlowMatchEulerDiscreteScheduler(),
}
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
    for k, result in enumerate(full.classify(images, IDS[:2])):
        expected = _loop(full.denoiser.model, scheduler, images[k], IDS[k], [166, 500, 833], loss)
        np.testing.assert_allclose(result.errors, expected, atol=1e-5, rtol=0)
        assert result.prediction == expected.mean(1).argmin()
        assert list(result.ranking) == list(np.argsort(expected.mean(1), kind="stable"))
        # The same with elimination, written out.
        best = np.argsort(expected[:, 1], kind="stable")[:4]
        partial = staged.classify(images[k, None], [IDS[k]])[0]
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
    expected = build().classify(_images(), IDS)
    results = build(batch_size=batch_size).classify(_images(), IDS)
    for result, reference in zip(results, expected, strict=True):
        np.testing.assert_allclose(result.errors, reference.errors, atol=1e-5, rtol=0)
        assert (result.ranking, result.stage) == (reference.ranking, reference.stage)


def test_results_do_not_depend_on_order_or_company(build):
    expected = {result.id: result for result in build(batch_size=16).classify(_images(), IDS)}
    order = [2, 0, 1]
    shuffled = build(batch_size=16).classify(_images()[order], [IDS[i] for i in order])
    alone = build(batch_size=16).classify(_images()[1:2], IDS[1:2])
    assert [result.id for result in shuffled] == [IDS[i] for i in order]
    for result in shuffled + alone:
        np.testing.assert_allclose(result.errors, expected[result.id].errors, atol=1e-5, rtol=0)
        assert result.ranking == expected[result.id].ranking


def test_the_same_call_twice_gives_the_same_bits_and_touches_no_global_state(build):
    state = torch.get_rng_state()
    classifier_ = build()
    torch.set_rng_state(state)
    first, second = classifier_.classify(_images(), IDS), classifier_.classify(_images(), IDS)
    assert torch.equal(torch.get_rng_state(), state)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a.errors, b.errors)


def test_seed_and_id_change_the_noise(build):
    errors = build().classify(_images(1), ["a"])[0].errors
    assert not np.array_equal(errors, build(seed=1).classify(_images(1), ["a"])[0].errors, equal_nan=True)
    assert not np.array_equal(errors, build().classify(_images(1), ["b"])[0].errors, equal_nan=True)


def test_several_conditions_per_class(build):
    """A class counts by its best condition, stands there in the ranking, and once."""
    nested = [[3, 8], [1], [0, 2, 9]]
    flat, group = [3, 8, 1, 0, 2, 9], [0, 0, 1, 2, 2, 2]
    options = {"to_keep": (3, 1)}
    plain = build(flat, **options).classify(_images(), IDS)
    for conditions, groups in ((nested, None), (flat, group)):
        results = build(conditions, groups=groups, **options).classify(_images(), IDS)
        for result, reference in zip(results, plain, strict=True):
            np.testing.assert_array_equal(result.errors, reference.errors)
            assert result.prediction == group[reference.prediction]
            classes = [group[condition] for condition in reference.ranking]
            assert list(result.ranking) == sorted(set(group), key=classes.index)


def test_forwards_rows_and_keys(build, monkeypatch):
    """Every forward is full but the last of a stage; keys name the image, and the (condition, timestep)."""
    made, calls = [], []

    @contextlib.contextmanager
    def record(model, image, draw):
        made.append((image.tolist(), draw.tolist()))
        yield

    monkeypatch.setattr(pairing, "row_keys", record)
    subject = build(batch_size=16)
    predict = subject.denoiser.predict

    def spy(x_t, t, conditions, index):
        calls.append((t.tolist(), index.tolist()))
        return predict(x_t, t, conditions, index)

    monkeypatch.setattr(subject.denoiser, "predict", spy)
    subject.classify(_images(), IDS)
    sizes = [len(t) for t, _ in calls]
    assert sizes == [16, 16, 16, 12, 16, 16, 16]  # 3 images x 10 x 2, then 3 images x 4 x 4
    assert sum(sizes) == 3 * subject.forwards
    images = [key for keys, _ in made for key in keys]
    assert {key: images.count(key) for key in images} == {image_key(name, 0): subject.forwards for name in IDS}
    draws: dict[int, set] = {}
    for (_, keys), (t, index) in zip(made, calls, strict=True):
        for key, *where in zip(keys, t, index, strict=True):
            draws.setdefault(key, set()).add(tuple(where))
    assert all(len(where) == 1 for where in draws.values())
    assert len(draws) == len(set().union(*draws.values()))


def test_compression_reaches_the_classifier_and_its_random_draws_do_not_depend_on_the_batch(build):
    plain = build().classify(_images(), IDS)
    results = []
    for batch_size in (5, 64):
        subject = build(batch_size=batch_size)
        with bigain.compressed(subject.denoiser.model, bigain.ToMe(ratio=0.5, destinations="random", redraw="forward")):
            results.append(subject.classify(_images(), IDS))
    for a, b, c in zip(*results, plain, strict=True):
        np.testing.assert_allclose(a.errors, b.errors, atol=1e-5, rtol=0)
        first = np.isfinite(c.errors).all(0)  # timesteps that are evaluated for all classes
        assert np.abs(a.errors[:, first] - c.errors[:, first]).max() > 1e-4


def test_latents_and_a_bfloat16_pipeline(families):
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    model = families["dit"].build(sample_size=8, in_channels=4, out_channels=8)
    pipe = DiTPipeline(model, vae, DDIMScheduler()).to(torch.bfloat16)
    results = DiffusionClassifier(pipe, range(10), n_samples=(2, 4)).classify(_images(), IDS)
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
    conditions = Conditions(("a", "b", "c", "d"), {"encoder_hidden_states": embeds})
    subject = DiffusionClassifier(pipe, conditions, to_keep=(2, 1), n_samples=(1, 2), groups=[1, 0, 1, 0], batch_size=3)
    for result in subject.classify(_images(), IDS):
        assert sorted(result.ranking) == [0, 1]
        assert result.errors.shape == (4, 2)
    assert subject.classes == 2


def test_the_progress_bar_counts_forwards(build, capsys):
    subject = build()
    subject.classify(_images(), IDS)
    assert capsys.readouterr().err == ""
    subject.classify(_images(), IDS, progress=True)
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
        ({"conditions": [[1], [2]], "groups": [0, 1]}, "groups must be left out with nested"),
        ({"groups": [0, 1]}, "groups must have one entry for each of the 10 conditions, not 2"),
        ({"groups": [0, 1, 2, 3, 4, 5, 6, 7, 8, 10]}, r"lowest is 0, missing: \[9\]"),
        ({"groups": [-1, 0, 0, 0, 0, 0, 0, 0, 0, 0]}, "lowest is -1"),
    ],
)
def test_bad_arguments(build, options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


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
        build().classify(_images(), ids)


def test_bad_images(build):
    with pytest.raises(ValueError, match=r"shape \(B, 3, 8, 8\) with B > 0, not \(3, 3, 4, 4\)"):
        build().classify(_images(size=4), IDS)
    with pytest.raises(ValueError, match="must be finite, which image 0 of the batch is not"):
        build().classify(_images() * float("inf"), IDS)


def test_a_prediction_that_is_not_finite_names_the_image(build):
    subject = build()
    subject.denoiser.model.proj_out_2.weight.data.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match=r"image 'val/c' must be finite, which it is not in torch\.float32"):
        subject.classify(_images(), IDS)
