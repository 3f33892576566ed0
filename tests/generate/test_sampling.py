from __future__ import annotations

import contextlib

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)

import bigain
from bigain.diffusion import ClassConditional, Conditions, open_model
from bigain.generate import Sampling, sample
from bigain.operators.random import seeded_generator

INDEX, IMAGE_IDS = [3, 0, 3, 7, 5], [10, 11, 12, 13, 14]
SCHEDULERS = {
    "ddim": DDIMScheduler(beta_schedule="squaredcos_cap_v2", timestep_spacing="trailing"),
    "v": DDIMScheduler(prediction_type="v_prediction"),
    "dpm": DPMSolverMultistepScheduler(),
    "euler": EulerDiscreteScheduler(),
    "ancestral": EulerAncestralDiscreteScheduler(),
    "heun": HeunDiscreteScheduler(),
    "flow": FlowMatchEulerDiscreteScheduler(),
}


def _randomise(model: torch.nn.Module) -> torch.nn.Module:
    torch.manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


@pytest.fixture
def build(families):
    def make(scheduler: str = "ddim") -> ClassConditional:
        return ClassConditional(model=_randomise(families["dit"].build(sample_size=8)), scheduler=SCHEDULERS[scheduler])

    return make


def _drawn(denoiser, **options) -> list[np.ndarray]:
    options = {"steps": 3} | options
    progress = options.pop("progress", False)
    conditions = denoiser.conditions(range(10))
    return list(sample(denoiser, conditions, INDEX, IMAGE_IDS, Sampling(**options), progress=progress))


def _close(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    """Equal to rounding: one grey level where a value lay between two."""
    return all(np.abs(x.astype(int) - y.astype(int)).max() <= 1 for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("scheduler", sorted(SCHEDULERS))
@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_any_batch_size_and_order_gives_the_same_images(build, scheduler, guidance):
    denoiser = build(scheduler)
    expected = _drawn(denoiser, batch_size=5, guidance=guidance)
    assert [image.shape for image in expected] == [(8, 8, 3)] * 5
    assert all(image.dtype == np.uint8 for image in expected)
    assert _close(_drawn(denoiser, batch_size=2, guidance=guidance), expected)
    conditions = denoiser.conditions([5, 7])
    backwards = list(sample(denoiser, conditions, [0, 1], [14, 13], Sampling(steps=3, guidance=guidance)))
    assert _close(backwards, expected[:2:-1])


def test_images_with_the_same_label_differ_and_the_seed_matters(build):
    images = _drawn(build())
    assert not _close(images[:1], images[2:3])
    assert not _close(images, _drawn(build(), seed=1))


def test_the_noise_of_an_image_depends_on_seed_and_id_alone(build):
    """Against a loop for one image, everything written out: DDIM by its formula (Song et al. 2021, eq. 12)."""
    denoiser = build("v")
    [image] = sample(denoiser, denoiser.conditions([4]), [0], [12], Sampling(steps=4, guidance=2.5, seed=7))
    alphas = denoiser.scheduler.alphas_cumprod
    x = torch.randn(1, 3, 8, 8, generator=seeded_generator("generate", 7, 12))
    for t in (750, 500, 250, 0):
        with torch.no_grad():
            v, null = (denoiser.model(x, torch.tensor([t]), torch.tensor([label])).sample for label in (4, 10))
        v = null + 2.5 * (v - null)
        a, before = alphas[t], alphas[t - 250] if t >= 250 else torch.tensor(1.0)
        x0 = (a.sqrt() * x - (1 - a).sqrt() * v).clamp(-1, 1)
        noise = (x - a.sqrt() * x0) / (1 - a).sqrt()
        x = before.sqrt() * x0 + (1 - before).sqrt() * noise
    expected = ((x[0].permute(1, 2, 0).clamp(-1, 1) + 1) * 127.5).round().numpy()
    assert np.abs(image - expected).max() <= 1


def test_a_dit_pipeline_gives_the_same_images(families):
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    model = _randomise(
        families["dit"].build(
            sample_size=8, in_channels=4, out_channels=8, num_embeds_ada_norm=1000, attention_head_dim=4
        )
    )
    pipe = DiTPipeline(model, vae, DDIMScheduler(clip_sample=False))
    denoiser = open_model(pipe)
    images = list(sample(denoiser, denoiser.conditions([3, 7]), [0, 1], [1, 2], Sampling(steps=3, guidance=4.0)))
    pipe.set_progress_bar_config(disable=True)
    generators = [seeded_generator("generate", 0, i) for i in (1, 2)]
    expected = pipe([3, 7], guidance_scale=4.0, generator=generators, num_inference_steps=3, output_type="np").images
    assert np.abs(np.stack(images) - expected * 255).max() <= 1


def test_the_models_scheduler_is_left_alone(build):
    denoiser = build()
    before = dict(denoiser.scheduler.__dict__)
    _drawn(denoiser)
    assert denoiser.scheduler.__dict__.keys() == before.keys()
    assert denoiser.scheduler.num_inference_steps is before["num_inference_steps"]


def test_no_global_random_state_is_touched(build):
    denoiser = build("ancestral")
    before = torch.get_rng_state()
    _drawn(denoiser)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_sampler_by_name(build):
    denoiser = build()
    named = _drawn(denoiser, sampler="euler")
    denoiser._scheduler = EulerDiscreteScheduler.from_config(denoiser.scheduler.config)
    assert _close(named, _drawn(denoiser))


def test_images_come_as_soon_as_their_batch_is_done(build):
    denoiser = build()
    calls = []
    handle = denoiser.model.register_forward_hook(lambda *_: calls.append(1))
    images = sample(denoiser, denoiser.conditions([0]), [0] * 4, range(4), Sampling(steps=3, batch_size=2))
    next(images)
    assert len(calls) == 3
    list(images)
    assert len(calls) == 6
    handle.remove()


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_keys_of_each_forward(build, guidance, monkeypatch):
    made, told = [], []

    @contextlib.contextmanager
    def record(model, image, draw, timesteps):
        made.append((image.tolist(), draw.tolist()))
        told.append(timesteps.tolist())
        yield

    monkeypatch.setattr("bigain.generate.row_keys", record)
    _drawn(build(), guidance=guidance, batch_size=5)
    assert len(made) == 3
    assert all(len(image) == len(set(image)) == 5 for image, _ in made), "guidance's rows repeat them"
    assert [set(draw) for _, draw in made] == [{0}, {1}, {2}]
    assert [[int(t) for t in one] for one in told] == [[t] for t in Sampling(3).scheduler(build()).timesteps.tolist()]


def test_compression_reaches_the_sampler_and_its_random_draws_do_not_depend_on_the_batch(build):
    denoiser = build()
    plain = _drawn(denoiser, guidance=3.0)
    with bigain.compressed(denoiser.model, bigain.ToMe(ratio=0.5, destinations="random", redraw="forward")):
        first, second = (_drawn(denoiser, guidance=3.0, batch_size=size) for size in (2, 5))
    assert _close(first, second)
    assert not _close(first, plain)


@pytest.mark.parametrize("scheduler", ["ddim", "flow"])
def test_a_method_acts_at_the_steps_in_its_range(build, scheduler):
    denoiser = build(scheduler)
    plain, images = _drawn(denoiser, guidance=3.0, steps=4), {}
    for ranged in ("", ",timesteps=0-1000", ",timesteps=500-1000", ",timesteps=1000-2000"):
        with bigain.compressed(denoiser.model, f"avgpool:factor=4{ranged}"):
            images[ranged] = np.stack(_drawn(denoiser, guidance=3.0, steps=4))
    assert np.array_equal(images[""], images[",timesteps=0-1000"])
    assert np.array_equal(images[",timesteps=1000-2000"], plain)
    assert not np.array_equal(images[",timesteps=500-1000"], plain)
    assert not np.array_equal(images[",timesteps=500-1000"], images[""])


def test_the_progress_bar_counts_steps(build, capsys):
    _drawn(build(), batch_size=2)
    assert capsys.readouterr().err == ""
    _drawn(build("heun"), batch_size=2, progress=True)
    assert "9/9" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"index": [0, 1]}, "image_ids must be as many as index, 2, not 1"),
        ({"index": [0, 1], "image_ids": [4, 4]}, "image_ids must differ"),
        ({"index": [10]}, r"index must lie in \[0, 10\), not 10"),
        ({"index": [-1]}, "index must .*, not -1"),
        ({"steps": 0}, "steps must be at least 1, not 0"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"guidance": 0.5}, "guidance must be finite and at least 1, which is none, not 0.5"),
        ({"guidance": float("nan")}, "guidance must .*, not nan"),
        ({"sampler": "magic"}, "sampler must be one of ddim, euler, .*not 'magic'"),
    ],
)
def test_bad_arguments_at_the_call(build, change, message):
    denoiser = build()
    conditions = denoiser.conditions(range(10))
    arguments = {"index": [0], "image_ids": [4]} | change

    def draw(index, image_ids, **options):
        return sample(denoiser, conditions, index, image_ids, Sampling(**options))

    with pytest.raises(ValueError, match=message):
        draw(**arguments)


def test_guidance_needs_a_null_class(build):
    conditions = Conditions((0,), {"class_labels": torch.tensor([0])})
    with pytest.raises(ValueError, match=r"guidance must be 1 .*no null class, not 2"):
        sample(build(), conditions, [0], [0], Sampling(guidance=2.0))


def test_a_named_sampler_does_not_fit_flow_matching(build):
    denoiser = build("flow")
    with pytest.raises(ValueError, match="sampler must be None for a model trained by flow matching"):
        sample(denoiser, denoiser.conditions([0]), [0], [0], Sampling(sampler="ddim"))


def test_a_sample_that_is_not_finite(build):
    denoiser = build("v")
    denoiser.model.proj_out_2.weight.data.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match=r"images \[10, 11, 12, 13, 14\] must be finite"):
        _drawn(denoiser)


@pytest.mark.parametrize("sampler", [None, "ddim", "euler"])
def test_more_steps_than_the_model_has_are_refused_before_anything_is_drawn(build, sampler):
    denoiser = build()
    Sampling(1000, sampler=sampler).scheduler(denoiser)
    with pytest.raises(ValueError, match="steps must be at most the model's 1000 timesteps, not 1001"):
        Sampling(1001, sampler=sampler).scheduler(denoiser)
    with pytest.raises(ValueError, match="not 1001"):
        sample(denoiser, denoiser.conditions([0]), [0], [0], Sampling(1001, sampler=sampler))


def test_the_seed_reaches_the_draws_of_methods(build, monkeypatch):
    """With the same noise for every seed, only the draws can differ."""
    monkeypatch.setattr("bigain.generate.seeded_generator", lambda name, seed, image: seeded_generator(name, 0, image))
    denoiser = build()
    with bigain.compressed(denoiser.model, bigain.ToMe(ratio=0.5, destinations="random")):
        first, again, other = (_drawn(denoiser, seed=seed, batch_size=size) for seed, size in ((0, 5), (0, 2), (1, 5)))
    assert _close(first, again)
    assert not _close(first, other)


def test_a_device_that_runs_out_of_memory_names_the_batch_size_to_try(build, monkeypatch):
    denoiser = build()

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(denoiser, "predict", full)
    with pytest.raises(torch.OutOfMemoryError, match="which 4 does not; try 2") as caught:
        _drawn(denoiser, batch_size=4)
    assert isinstance(caught.value.__cause__, torch.OutOfMemoryError)
