"""The families of flow matching on small random pipelines of the real classes: what they predict, draw and classify."""

from __future__ import annotations

import gc
import json
import math
import weakref

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

import bigain
from bigain.classify import DiffusionClassifier, Scoring
from bigain.diffusion import open_model
from bigain.generate import Sampling, sample
from bigain.operators.random import seeded_generator


def _randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def _quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _opened(flow, **sizes):
    """A denoiser of random weights that are large enough for its answers to differ."""
    pipe = _quiet(flow.build())
    for model in filter(None, (pipe.transformer, getattr(pipe, "transformer_2", None))):
        for parameter in model.parameters():
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.3 / math.sqrt(parameter[0].numel() / 16))
    return open_model(pipe, **(flow.sizes | sizes))


def _images(denoiser, count: int = 2) -> torch.Tensor:
    return torch.tanh(_randn(count, *denoiser.decode(torch.zeros(1, *denoiser.sample_shape)).shape[1:]))


def _called(denoiser, prompts, noise, guided, steps, **options):
    """The pipeline's own call from prompts, on our noise."""
    shape = denoiser.sample_shape
    side = denoiser._asked_side
    frames = {"num_frames": denoiser.frames} if len(shape) == 4 else {}
    arguments = dict(
        height=side,
        width=side,
        latents=denoiser.latents_of(noise),
        num_inference_steps=steps,
        max_sequence_length=denoiser.text_length,
        **frames,
    )
    return denoiser.pipe(prompt=list(prompts), **(arguments | guided | options))


def test_predict_is_what_the_pipeline_hands_to_its_scheduler(flow):
    """Prompts, time, sign, packing and positions, at the first two steps of the pipeline's own call."""
    denoiser, seen = _opened(flow), []
    step = denoiser.pipe.scheduler.step

    def record(output, t, x, **options):
        seen.append((output.clone(), t, x.clone()))
        return step(output, t, x, **options)

    denoiser.pipe.scheduler.step = record
    noise = _randn(2, *denoiser.sample_shape)
    _called(denoiser, flow.prompts[:2], noise, flow.guided[1], 3, output_type="latent")
    assert len(seen) == 3
    conditions = denoiser.conditions(flow.prompts[::-1])  # among others and in another order
    for output, t, x in seen:
        x_t, expected = ((flow.stepped or denoiser.samples_of)(one).float() for one in (x, output))
        prediction = denoiser.predict(x_t, t.expand(2), conditions, torch.tensor([3, 2]))
        torch.testing.assert_close(prediction, expected, atol=2e-5, rtol=1e-4)
        assert expected.std() > 1e-3


def test_an_exact_network_leads_the_pipeline_and_the_process_to_x0(flow, monkeypatch):
    """A network that knows the velocity, in its own sign and time, in place of the transformer."""
    denoiser, told = _opened(flow), []
    x0, noise = _randn(2, *denoiser.sample_shape, seed=1), _randn(2, *denoiser.sample_shape)
    velocity = flow.sign * (noise - x0)
    layout = flow.layout or denoiser.latents_of

    def forward(*args, **kwargs):
        told.append(kwargs["timestep"] if "timestep" in kwargs else args[1])
        return (layout(velocity),)

    for model in denoiser.models:
        monkeypatch.setattr(model, "forward", forward)
    latents = _called(denoiser, flow.prompts[:2], noise, flow.guided[1], 4, output_type="latent", return_dict=False)[0]
    torch.testing.assert_close(denoiser.samples_of(latents).float(), x0, atol=1e-4, rtol=0)
    assert float(told[0].flatten()[0]) == pytest.approx(flow.noise, rel=2e-3, abs=2e-3)

    pipelines = list(told)
    process, conditions = denoiser.process, denoiser.conditions(flow.prompts[:2])
    for number, t in enumerate(denoiser.pipe.scheduler.timesteps):
        x_t = process.noise(x0, noise, t.expand(2))
        prediction = denoiser.predict(x_t, t.expand(2), conditions, torch.tensor([0, 1]))
        torch.testing.assert_close(process.x0(x_t, prediction, t.expand(2)), x0, atol=1e-4, rtol=0)
        torch.testing.assert_close(prediction, process.target(x0, noise, t.expand(2)), atol=1e-5, rtol=0)
        torch.testing.assert_close(told[-1].flatten()[:1].float(), pipelines[number].flatten()[:1].float())


@pytest.mark.parametrize("guidance", [3.0, 1.0])
def test_images_are_the_pipelines_own(flow, guidance):
    denoiser = _opened(flow)
    conditions = denoiser.conditions(flow.prompts[:2])
    images = list(sample(denoiser, conditions, [1, 0], [5, 6], Sampling(3, guidance, seed=2)))
    noise = torch.stack(
        [torch.randn(*denoiser.sample_shape, generator=seeded_generator("generate", 2, i)) for i in (5, 6)]
    )
    latent = denoiser.pipe.vae is None
    options = {"output_type": "latent" if latent else "np", "return_dict": False}
    expected = _called(denoiser, flow.prompts[1::-1], noise, flow.guided[guidance == 1], 3, **options)[0]
    if latent:
        expected = (denoiser.decode(denoiser.samples_of(expected)).movedim(-3, -1).numpy() + 1) / 2
    expected = expected[:, 0] if denoiser.frames == 1 and expected.ndim == 5 else expected
    assert np.abs(np.stack(images) - expected * 255).max() <= 1
    assert np.stack(images).std() > 1


def test_guidance_changes_images_and_any_batch_size_gives_the_same(flow):
    denoiser = _opened(flow)
    conditions = denoiser.conditions(flow.prompts[:2])
    drawn = [
        np.stack(list(sample(denoiser, conditions, [1, 0, 1], [5, 6, 7], Sampling(2, guidance, batch_size=size))))
        for guidance, size in ((3.0, 3), (3.0, 2), (1.0, 3))
    ]
    assert np.abs(drawn[0].astype(int) - drawn[1]).max() <= 1
    assert (drawn[0] != drawn[2]).any()


def _classifier(denoiser, flow, **options):
    return DiffusionClassifier(denoiser, flow.prompts, n_samples=(3,), to_keep=(1,), **options)


def _errors(results) -> np.ndarray:
    return np.stack([one.errors for one in results])


def test_classifying_twice_gives_the_same_bits_and_batches_agree_with_rows(flow):
    denoiser = _opened(flow)
    images = _images(denoiser)
    first, second = (_errors(_classifier(denoiser, flow, batch_size=5).predict(images)) for _ in range(2))
    assert np.array_equal(first, second)
    rows = _errors(_classifier(denoiser, flow, batch_size=1).predict(images))
    np.testing.assert_allclose(first, rows, rtol=2e-5)
    assert np.ptp(first, axis=1).min() > 1e-6, "the prompts must matter"


def test_pooling_reaches_the_classifier_and_the_sampler(flow):
    denoiser = _opened(flow)
    images, conditions = _images(denoiser), denoiser.conditions(flow.prompts[:2])
    plain = _errors(_classifier(denoiser, flow, batch_size=4).predict(images))
    drawn = np.stack(list(sample(denoiser, conditions, [0, 1], [0, 1], Sampling(2, 1.0, batch_size=1))))
    size = 1 if denoiser.pipe.__class__.__name__ == "Lumina2Pipeline" else 4  # whose captions differ in length
    with bigain.compressed(denoiser.pipe, "avgpool-2") as handle:
        pooled = _errors(_classifier(denoiser, flow, batch_size=size).predict(images))
        pooled_drawn = np.stack(list(sample(denoiser, conditions, [0, 1], [0, 1], Sampling(2, 1.0, batch_size=1))))
        assert all(row.keys[1] < row.keys[0] for row in handle.summary())
    assert np.abs(pooled - plain).max() > 1e-6
    assert (pooled_drawn != drawn).any()
    assert np.array_equal(_errors(_classifier(denoiser, flow, batch_size=4).predict(images)), plain)


@pytest.mark.parametrize("name", ["sd3", "flux", "zimage", "wan 2.2"])
def test_a_range_of_t_is_in_thousandths_of_the_level(flows, name):
    flow = flows[name]
    denoiser = _opened(flow)
    images, conditions = _images(denoiser), denoiser.conditions(flow.prompts)
    classifier = DiffusionClassifier(denoiser, flow.prompts, n_samples=(5,), to_keep=(1,), batch_size=8)
    assert classifier.timesteps.tolist() == [100, 300, 500, 700, 900]

    def both() -> tuple[np.ndarray, np.ndarray]:
        drawn = list(sample(denoiser, conditions, [0, 1], [0, 1], Sampling(2, 1.0, batch_size=1)))
        return _errors(classifier.predict(images)), np.stack(drawn)

    plain, drawn = both()
    with bigain.compressed(denoiser, "avgpool-2"):
        pooled, pooled_drawn = both()
    with bigain.compressed(denoiser, "avgpool:factor=2,timesteps=0-1000"):
        everywhere, everywhere_drawn = both()
    with bigain.compressed(denoiser, "avgpool:factor=2,timesteps=300-700"):
        ranged, _ = both()
    np.testing.assert_allclose(everywhere, pooled, rtol=2e-5)
    assert np.array_equal(everywhere_drawn, pooled_drawn)
    assert (pooled_drawn != drawn).any()
    acts = np.array([False, False, True, True, False])
    np.testing.assert_allclose(ranged[..., acts], pooled[..., acts], rtol=2e-5)
    np.testing.assert_allclose(ranged[..., ~acts], plain[..., ~acts], rtol=2e-5)
    assert np.abs(pooled - plain)[..., acts].max() > 1e-6


def test_prompts_are_on_the_cpu_and_do_not_depend_on_what_they_are_encoded_with(flow):
    denoiser = _opened(flow)
    x = _randn(1, *denoiser.sample_shape).expand(2, *denoiser.sample_shape)
    t = torch.tensor([500, 500])
    many = denoiser.conditions([f"prompt {'abcdefgh'[i % 8]}" * (1 + i % 2) for i in range(40)] + [*flow.prompts])
    alone = denoiser.predict(x, t, denoiser.conditions(flow.prompts[:2]), torch.tensor([0, 1]))
    torch.testing.assert_close(denoiser.predict(x, t, many, torch.tensor([40, 41])), alone, atol=2e-5, rtol=1e-4)
    assert (alone[0] - alone[1]).abs().max() > 1e-6
    assert all(value.device.type == "cpu" for value in many.arguments.values())
    assert many.read is not None
    assert len(set(many.read)) == len({name.strip() for name in many.names})


def test_a_saved_pipeline_opens_from_its_folder_at_the_size_that_it_says(flow, saved):
    denoiser = _opened(flow)
    shape = denoiser.sample_shape
    folder = saved(denoiser.pipe)
    side = denoiser.image_size * 2
    (folder / "sample.json").write_text(json.dumps({"image_size": side}))
    opened = open_model(folder, **({"image_size": denoiser.image_size} | flow.sizes))
    assert opened.sample_shape == shape
    x, t, index = _randn(1, *opened.sample_shape), torch.tensor([500]), torch.tensor([0])
    expected = denoiser.predict(x, t, denoiser.conditions(flow.prompts[:1]), index)
    prediction = opened.predict(x, t, opened.conditions(flow.prompts[:1]), index)
    torch.testing.assert_close(prediction, expected, atol=2e-5, rtol=1e-4)
    assert (
        open_model(folder, **{name: size for name, size in flow.sizes.items() if name == "frames"}).image_size == side
    )
    assert opened.kind == "text"
    assert opened.process.prediction == "flow"


def test_half_precision_conditions_follow_the_model(flow):
    denoiser = open_model(flow.build(), dtype=torch.bfloat16, **flow.sizes)
    conditions = denoiser.conditions(flow.prompts)
    prediction = denoiser.predict(_randn(1, *denoiser.sample_shape), torch.tensor([500]), conditions, torch.tensor([1]))
    assert conditions.arguments["encoder_hidden_states"].dtype == torch.bfloat16
    assert prediction.dtype == torch.float32
    assert prediction.isfinite().all()
    _quiet(denoiser.pipe)
    assert next(sample(denoiser, conditions, [0], [0], Sampling(1, 3.0))).std() > 0


def test_the_classifier_weighs_errors_and_spaces_timesteps_as_asked(flows):
    denoiser = _opened(flows["flux"])
    images = _images(denoiser, 1)
    plain = _classifier(denoiser, flows["flux"])
    weighed = _classifier(denoiser, flows["flux"], loss=Scoring(weighting="epsilon"))
    s = plain.timesteps.numpy() / 1000
    np.testing.assert_allclose(
        _errors(weighed.predict(images)), _errors(plain.predict(images)) * (1 - s) ** 2, rtol=1e-5
    )
    shifted = _classifier(denoiser, flows["flux"], loss=Scoring(spacing="scheduler"))
    assert (shifted.timesteps > plain.timesteps).all()
    assert shifted.fit(_images(denoiser, 20), candidates=5, error_rate=0.2).fitted.timesteps


def test_a_schedule_is_refused_for_what_is_not_trained_by_flow_matching():
    with pytest.raises(ValueError, match="spacing must be uniform for a model not trained by flow matching"):
        DiffusionClassifier("glyphs-dit", range(3), loss=Scoring(spacing="scheduler"))


@pytest.mark.parametrize("name", ["black-forest-labs/FLUX.1-schnell", "Tongyi-MAI/Z-Image-Turbo", "x/FLUX.2-klein-4B"])
def test_a_distilled_model_is_named_when_it_classifies(flows, name):
    denoiser = _opened(flows["flux"])
    denoiser.pipe.register_to_config(_name_or_path=name)
    assert denoiser.usual_guidance == 1
    with pytest.warns(UserWarning, match=f"distilled to few steps, by its name, {name}"):
        _classifier(denoiser, flows["flux"])


def test_a_model_that_is_not_distilled_warns_of_nothing(flows, recwarn):
    denoiser = _opened(flows["flux"])
    denoiser.pipe.register_to_config(_name_or_path="x/FLUX.2-klein-base-4B")
    _classifier(denoiser, flows["flux"])
    assert not [one for one in recwarn if "distilled" in str(one.message)]
    assert denoiser.usual_guidance == 3.5


def test_schnell_is_known_under_any_name(flows):
    pipe = flows["flux"].build(guidance_embeds=False, num_layers=19)
    assert open_model(pipe).distilled is None
    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    assert "schnell" in open_model(pipe).distilled


def test_image_sizes(flows):
    pipe = flows["flux"].build()
    assert open_model(pipe).image_size == 16  # the autoencoder's
    assert open_model(pipe, image_size=24).sample_shape == (4, 12, 12)
    with pytest.raises(ValueError, match="image_size must be a multiple of 4 for this model, not 18"):
        open_model(pipe, image_size=18)
    with pytest.raises(ValueError, match="frames must be left out for a Flux model, which has no frames, not 5"):
        open_model(pipe, frames=5)
    with pytest.raises(ValueError, match="image_size must be left out for a denoiser"):
        open_model(open_model(pipe), image_size=16)
    with pytest.raises(ValueError, match="image_size must be left out for a StableDiffusion model, which says it"):
        open_model("glyphs-sd", image_size=64)
    with pytest.raises(ValueError, match="image_size must be left out for a ClassConditional model"):
        open_model("glyphs-dit", image_size=64)


def test_a_bad_sample_json_is_named(flows, saved):
    folder = saved(flows["flux"].build())
    (folder / "sample.json").write_text('{"image_size": "large"}')
    with pytest.raises(
        ValueError, match=r"sample.json must hold image_size and frames as integers, not image_size: 'la"
    ):
        open_model(folder)


def test_a_flux_of_pixels_has_no_autoencoder(flows, saved):
    pipe = _quiet(flows["flux"].build(in_channels=12))
    pipe.vae = None
    folder = saved(pipe)
    (folder / "sample.json").write_text('{"image_size": 8}')
    denoiser = open_model(folder)
    assert denoiser.sample_shape == (3, 8, 8)
    conditions = denoiser.conditions(["a cat", "an owl"])
    _quiet(denoiser.pipe)
    image = next(sample(denoiser, conditions, [0], [0], Sampling(2, 1.0)))
    assert image.shape == (8, 8, 3)
    assert len(_classifier(denoiser, flows["flux"]).predict(image)) == 1


def test_a_network_of_more_inputs_is_refused(flows):
    with pytest.raises(ValueError, match=r"must take the 16 channels of its image space, not 20; .*inpainting"):
        open_model(flows["flux"].build(in_channels=20))


def test_without_a_text_encoder_prompts_are_refused(flows):
    pipe = flows["flux"].build()
    pipe.text_encoder_2 = None
    with pytest.raises(ValueError, match="the pipeline must have a text_encoder_2 to encode prompts"):
        open_model(pipe).conditions(["a"])


def test_encoders_are_unloaded_and_what_they_encoded_stays_good(flow):
    denoiser = _opened(flow)
    encoders = [part for name, part in denoiser.pipe.components.items() if name.startswith("text_encoder") and part]
    alive = [weakref.ref(encoder) for encoder in encoders]
    assert alive
    classifier = DiffusionClassifier(denoiser, flow.prompts[:2], n_samples=(1, 2), to_keep=(2, 1))
    images = _images(denoiser, 1)
    before = classifier.predict(images, ["one"])[0]
    del encoders
    denoiser.unload_encoders()
    gc.collect()
    assert [encoder() for encoder in alive] == [None] * len(alive), "nobody else holds them"
    after = classifier.predict(images, ["one"])[0]
    np.testing.assert_array_equal(after.errors, before.errors)
    with pytest.raises(ValueError, match="the pipeline must have a text_encoder"):
        denoiser.conditions(["a"])


def test_guidance_is_one_when_classifying_and_as_asked_for_in_sampling(flows):
    denoiser, seen = _opened(flows["flux"]), []
    denoiser.model.register_forward_pre_hook(
        lambda _m, _a, given: seen.append(given["guidance"].tolist()), with_kwargs=True
    )
    conditions = denoiser.conditions(["a", "b"])
    denoiser.predict(_randn(2, 4, 8, 8), torch.tensor([1, 999]), conditions, torch.tensor([0, 1]))
    list(sample(denoiser, conditions, [0], [0], Sampling(1, 2.5)))
    assert seen == [[1.0, 1.0], [2.5]]


def test_guidance_takes_two_forwards_unless_it_is_an_input(flows):
    for name, calls in (("flux", 1), ("flux without embedded guidance", 2), ("hunyuan", 1), ("wan", 2), ("qwen", 2)):
        denoiser, seen = _opened(flows[name]), []
        denoiser.model.register_forward_pre_hook(lambda *_, seen=seen: seen.append(1))
        list(sample(denoiser, denoiser.conditions(["a"]), [0], [0], Sampling(1, 2.0)))
        assert len(seen) == calls
        assert denoiser.embeds_guidance is (calls == 1)
