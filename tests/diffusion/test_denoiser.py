from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny, DDIMScheduler, EDMEulerScheduler

from bigain.diffusion import ClassConditional, Conditions
from bigain.diffusion.space import Latents, Pixels


@pytest.fixture
def denoiser(families) -> ClassConditional:
    return ClassConditional(model=families["dit"].build(), scheduler=DDIMScheduler())


def _images(count: int = 2, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_sizes_and_kind(denoiser):
    assert denoiser.kind == "class"
    assert denoiser.image_size == 16
    assert denoiser.sample_shape == (3, 16, 16)
    assert denoiser.pipe is None


def test_predict_is_the_models_forward(denoiser):
    x, t = _images(3), torch.tensor([5, 500, 995])
    conditions = denoiser.conditions([7, 2, 4])
    index = torch.tensor([2, 0, 2])
    prediction = denoiser.predict(x, t, conditions, index)
    with torch.no_grad():
        expected = [denoiser.model(x[i, None], t[i, None], torch.tensor([c])).sample for i, c in enumerate([4, 7, 4])]
    torch.testing.assert_close(prediction, torch.cat(expected), atol=1e-5, rtol=0)
    assert not prediction.requires_grad


def test_a_learned_variance_is_dropped(families):
    denoiser = ClassConditional(model=families["dit"].build(out_channels=6), scheduler=DDIMScheduler())
    x, t = _images(), torch.tensor([5, 500])
    labels = torch.tensor([3, 3])
    prediction = denoiser.predict(x, t, denoiser.conditions([3]), torch.zeros(2, dtype=torch.long))
    with torch.no_grad():
        assert torch.equal(prediction, denoiser.model(x, t, labels).sample[:, :3])


def test_a_bfloat16_model_is_fed_in_its_dtype_and_answers_in_float32(families):
    denoiser = ClassConditional(model=families["dit"].build().bfloat16(), scheduler=DDIMScheduler())
    prediction = denoiser.predict(_images(), torch.tensor([5, 500]), denoiser.conditions([3]), torch.tensor([0, 0]))
    assert prediction.dtype == torch.float32
    assert prediction.isfinite().all()


def test_a_model_in_training_mode_does_not_drop_labels(families):
    model = families["dit"].build().train()
    denoiser = ClassConditional(model=model, scheduler=DDIMScheduler())
    conditions, index = denoiser.conditions([3]), torch.zeros(64, dtype=torch.long)
    rows = denoiser.predict(_images(1).expand(64, -1, -1, -1), torch.full((64,), 500), conditions, index)
    torch.testing.assert_close(rows, rows[:1].expand_as(rows), atol=1e-5, rtol=0)


def test_the_null_class_is_a_row_but_no_condition(denoiser):
    conditions = denoiser.conditions(range(10))
    assert len(conditions) == 10
    assert conditions.null_index == 10
    assert conditions.rows(torch.tensor([9, conditions.null_index]))["class_labels"].tolist() == [9, 10]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([], "conditions must hold at least one"),
        ([0, 10], r"conditions must be class labels in \[0, 10\), not 10"),
        ([-1], "class labels in .*, not -1"),
        (["cat"], "class labels, integers in .*, not 'cat'"),
        ([True], "class labels, integers in .*, not True"),
        ([1.0], "class labels, integers in .*, not 1.0"),
    ],
)
def test_bad_labels(denoiser, labels, message):
    with pytest.raises(ValueError, match=message):
        denoiser.conditions(labels)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, :1], r"shape \(B, 3, 16, 16\) with B > 0, not \(2, 1, 16, 16\)"),
        (lambda x: x[:, :, :8], r"not \(2, 3, 8, 16\)"),
        (lambda x: x[0], r"not \(3, 16, 16\)"),
        (lambda x: x[:0], r"B > 0, not \(0, 3, 16, 16\)"),
        (lambda x: (x * 127).to(torch.uint8), "must be floats .*, not torch.uint8"),
        (
            lambda x: x.index_put((torch.tensor(1), torch.tensor(0)), torch.tensor(float("nan"))),
            "must be finite, which image 1 .* is not",
        ),
        (lambda x: x * 127.5 + 127.5, r"must lie in \[-1, 1\], not from .* to 25"),
    ],
)
def test_bad_images(denoiser, change, message):
    with pytest.raises(ValueError, match=message):
        denoiser.encode(change(_images()))


def test_rounding_at_the_ends_of_the_range_is_allowed(denoiser):
    images = _images().clamp(-1, 1)
    images[0, 0, 0, 0] = 1 + 1e-6
    assert torch.equal(denoiser.encode(images), images)


def test_conditions_with_too_few_rows():
    with pytest.raises(ValueError, match="text_embeds must have 2 rows, one per condition, not 1"):
        Conditions(("a", "b"), {"added_cond_kwargs": {"text_embeds": torch.ones(1, 4)}})


def test_rows_selects_in_nested_arguments():
    table = torch.arange(6.0).view(3, 2)
    conditions = Conditions(("a", "b", "c"), {"x": table, "more": {"y": table + 10}})
    rows = conditions.rows(torch.tensor([2, 2, 0]))
    assert torch.equal(rows["x"], table[[2, 2, 0]])
    assert torch.equal(rows["more"]["y"], table[[2, 2, 0]] + 10)


def test_an_unsupported_scheduler_is_found_when_the_model_is_opened(families):
    with pytest.raises(ValueError, match="EDMEulerScheduler"):
        ClassConditional(model=families["dit"].build(), scheduler=EDMEulerScheduler())


def test_a_model_that_does_not_fit_its_image_space(families):
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    with pytest.raises(ValueError, match="must take the 4 channels of its image space, not 3"):
        ClassConditional(model=families["dit"].build(), scheduler=DDIMScheduler(), vae=vae)


def test_a_compiled_model_predicts_the_same(families):
    model = families["dit"].build()
    arguments = (_images(), torch.tensor([5, 500]))
    plain = ClassConditional(model=model, scheduler=DDIMScheduler())
    compiled = ClassConditional(model=torch.compile(model, backend="eager"), scheduler=DDIMScheduler())
    index = torch.tensor([0, 1])
    expected = plain.predict(*arguments, plain.conditions([3, 4]), index)
    assert torch.equal(compiled.predict(*arguments, compiled.conditions([3, 4]), index), expected)


def _vae(**overrides) -> AutoencoderKL:
    config = dict(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
    )
    return AutoencoderKL(**(config | overrides)).eval()


def test_pixels_are_themselves():
    images = _images(2)
    assert torch.equal(Pixels().decode(Pixels().encode(images)), images)


@pytest.mark.parametrize("shift", [None, 0.25])
def test_a_latent_is_the_posterior_mean_in_the_models_scaling(shift):
    vae = _vae(scaling_factor=0.5, shift_factor=shift)
    images = _images(11)  # more than one pass of the autoencoder
    latents = Latents(vae).encode(images)
    with torch.no_grad():
        mean = torch.cat([vae.encode(image[None]).latent_dist.mode() for image in images])
    torch.testing.assert_close(latents, (mean - (shift or 0)) * 0.5, atol=1e-5, rtol=0)
    assert latents.shape == (11, 4, 8, 8)
    assert Latents(vae).factor == 2


def test_latents_with_a_mean_and_std_per_channel():
    vae = _vae(scaling_factor=0.5, latents_mean=[1.0, 2.0, 3.0, 4.0], latents_std=[0.5, 1.0, 2.0, 4.0])
    images = _images(1)
    with torch.no_grad():
        mean = vae.encode(images).latent_dist.mode()
    for channel in range(4):
        expected = (mean[:, channel] - (channel + 1)) * 0.5 / 2.0 ** (channel - 1)
        torch.testing.assert_close(Latents(vae).encode(images)[:, channel], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("config", [{"shift_factor": 0.25}, {"latents_mean": [1.0] * 4, "latents_std": [0.5] * 4}])
def test_decode_takes_the_scaling_back(config):
    vae = _vae(scaling_factor=0.5, **config)
    space, images = Latents(vae), _images(9)
    with torch.no_grad():
        expected = vae.decode(vae.encode(images).latent_dist.mode()).sample.clamp(-1, 1)
    torch.testing.assert_close(space.decode(space.encode(images)), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("force_upcast", [True, False])
def test_a_half_precision_autoencoder_that_overflows_runs_in_float32_and_is_put_back(force_upcast):
    vae = _vae(force_upcast=force_upcast).half()
    images = _images(1)
    latents = Latents(vae).encode(images)
    exact = Latents(_vae_like(vae).float()).encode(images)
    assert torch.equal(latents, exact) is force_upcast
    assert latents.dtype == torch.float32
    assert vae.dtype == torch.float16


def _vae_like(vae: AutoencoderKL) -> AutoencoderKL:
    copy = _vae()
    copy.load_state_dict(vae.state_dict())
    return copy


def test_another_autoencoder_is_refused():
    with pytest.raises(ValueError, match="autoencoder must be an AutoencoderKL, not AutoencoderTiny"):
        Latents(AutoencoderTiny())
