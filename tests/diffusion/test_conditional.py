"""The text families on small random pipelines of the real classes, with tokenizers of their own small vocabularies."""

from __future__ import annotations

import string

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    PixArtAlphaPipeline,
    PixArtSigmaPipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

from bigain.diffusion import open_model

PROMPTS = ["a photo of a cat.", "a photo of a dog.", "an edge", "x"]


def _vae(**overrides) -> AutoencoderKL:
    config = dict(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
    )
    return AutoencoderKL(**(config | overrides))


def _clip(folder) -> CLIPTokenizer:
    letters = string.ascii_lowercase + "."
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    tokenizer = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=24)
    tokenizer.save_pretrained(folder)
    return CLIPTokenizer.from_pretrained(folder)


def _clip_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=56,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def _t5(folder) -> T5Tokenizer:
    letters = [(letter, -2.0) for letter in "▁" + string.ascii_lowercase + "."]
    tokenizer = T5Tokenizer(vocab=[("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters], extra_ids=0)
    tokenizer.save_pretrained(folder)
    return T5Tokenizer.from_pretrained(folder)


def _stable_diffusion(families, folder) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_clip_config()),
        tokenizer=_clip(folder / "tokenizer"),
        unet=families["unet"].build(),
        scheduler=DDIMScheduler(prediction_type="v_prediction", clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def _xl(families, folder) -> StableDiffusionXLPipeline:
    return StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_clip_config()),
        text_encoder_2=CLIPTextModelWithProjection(_clip_config()),
        tokenizer=_clip(folder / "tokenizer"),
        tokenizer_2=_clip(folder / "tokenizer_2"),
        unet=families["sdxl"].build(cross_attention_dim=32),
        scheduler=DDIMScheduler(),
        add_watermarker=False,
    )


def _pixart(families, folder, pipeline=PixArtSigmaPipeline, **overrides):
    encoder = T5Config(vocab_size=64, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0)
    return pipeline(
        tokenizer=_t5(folder / "tokenizer"),
        text_encoder=T5EncoderModel(encoder),
        vae=_vae(),
        transformer=families["pixart"].build(**overrides),
        scheduler=DDIMScheduler(),
    )


def _alpha(families, folder) -> PixArtAlphaPipeline:
    return _pixart(
        families,
        folder,
        PixArtAlphaPipeline,
        use_additional_conditions=True,
        attention_head_dim=12,
        cross_attention_dim=24,
    )


PIPELINES = {"stable diffusion": _stable_diffusion, "xl": _xl, "sigma": _pixart, "alpha": _alpha}


@pytest.fixture(params=sorted(PIPELINES))
def pipe(request, families, tmp_path):
    return PIPELINES[request.param](families, tmp_path)


def test_predict_gives_the_model_what_the_pipeline_gives_it(pipe):
    """The pipeline's own first step, with its prompt encoding and size conditions, is what predict computes."""
    denoiser = open_model(pipe)
    seen = []

    def record(module, args, kwargs, output):
        seen.append((args, kwargs, output[0]))

    x = torch.randn(2, *denoiser.sample_shape, generator=torch.Generator().manual_seed(0))
    options = {"use_resolution_binning": False, "clean_caption": False} if "PixArt" in type(pipe).__name__ else {}
    handle = denoiser.model.register_forward_hook(record, with_kwargs=True)
    if denoiser.model.config.get("use_additional_conditions"):
        # The pipeline gives the sizes to models of sample size 128 alone; this one is smaller and takes them too.
        embeds = denoiser.conditions(PROMPTS[:2]).arguments["encoder_hidden_states"]
        mask = denoiser.conditions(PROMPTS[:2]).arguments["encoder_attention_mask"]
        sizes = {"resolution": torch.full((2, 2), 32.0), "aspect_ratio": torch.ones(2, 1)}
        with torch.no_grad():
            denoiser.model(
                x, embeds, timestep=torch.tensor([999, 999]), encoder_attention_mask=mask, added_cond_kwargs=sizes
            )
        t = torch.tensor([999, 999])
    else:
        pipe.set_progress_bar_config(disable=True)
        pipe(PROMPTS[:2], latents=x, num_inference_steps=1, guidance_scale=1.0, output_type="latent", **options)
        t = pipe.scheduler.timesteps.expand(2)
    handle.remove()
    expected = seen[0][2][:, :4]
    # Among others and in another order, to see that rows are found by their index.
    prediction = denoiser.predict(x, t, denoiser.conditions(PROMPTS[::-1]), torch.tensor([3, 2]))
    torch.testing.assert_close(prediction, expected, atol=1e-5, rtol=0)
    assert prediction.dtype == torch.float32


def test_prompts_matter_and_do_not_depend_on_what_they_are_encoded_with(pipe):
    denoiser = open_model(pipe)
    x = torch.randn(1, *denoiser.sample_shape, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    t = torch.tensor([500, 500])
    many = denoiser.conditions([f"prompt {'abcdefgh'[i % 8]}" for i in range(40)] + PROMPTS)  # more than one pass
    cat_and_dog = denoiser.predict(x, t, many, torch.tensor([40, 41]))
    alone = denoiser.predict(x, t, denoiser.conditions(PROMPTS[:2]), torch.tensor([0, 1]))
    torch.testing.assert_close(cat_and_dog, alone, atol=1e-5, rtol=0)
    assert (cat_and_dog[0] - cat_and_dog[1]).abs().max() > 1e-6
    assert len(many) == 44
    assert many.null_index is None


def test_sizes(pipe):
    denoiser = open_model(pipe)
    assert denoiser.kind == "text"
    assert denoiser.sample_shape == (4, 16, 16)
    assert denoiser.image_size == 32
    assert denoiser.encode(torch.zeros(1, 3, 32, 32)).shape == (1, 4, 16, 16)
    assert denoiser.model is (pipe.transformer if hasattr(pipe, "transformer") else pipe.unet)


def test_its_networks_are_all_that_results_depend_on(pipe):
    denoiser = open_model(pipe)
    parts = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2")
    expected = {pipe.components[name] for name in parts if name in pipe.components}
    assert denoiser.networks[0] is denoiser.model
    assert set(denoiser.networks) == expected
    assert len(denoiser.networks) == len(expected) >= 3


def test_half_precision_conditions_follow_the_model(pipe):
    denoiser = open_model(pipe, dtype=torch.bfloat16)
    conditions = denoiser.conditions(PROMPTS)
    x = torch.zeros(1, *denoiser.sample_shape)
    prediction = denoiser.predict(x, torch.tensor([500]), conditions, torch.tensor([1]))
    assert conditions.arguments["encoder_hidden_states"].dtype == torch.bfloat16
    assert prediction.isfinite().all()


@pytest.mark.parametrize(
    ("prompts", "message"), [([], "conditions must hold at least one"), ([3], "conditions must be prompts, not 3")]
)
def test_bad_prompts(families, tmp_path, prompts, message):
    denoiser = open_model(_stable_diffusion(families, tmp_path))
    with pytest.raises(ValueError, match=message):
        denoiser.conditions(prompts)


def test_a_pipeline_without_its_text_encoder(families, tmp_path):
    pipe = _stable_diffusion(families, tmp_path)
    pipe.text_encoder = None
    with pytest.raises(ValueError, match="must have a text_encoder to encode prompts; or give ready-made Conditions"):
        open_model(pipe).conditions(PROMPTS)


def test_an_inpainting_unet_is_refused(families, tmp_path):
    pipe = _stable_diffusion(families, tmp_path)
    pipe.unet = families["unet"].build(in_channels=9)
    with pytest.raises(ValueError, match=r"must take the 4 channels of its image space, not 9; .*inpainting"):
        open_model(pipe)


def test_a_saved_pipeline_opens_from_its_folder(families, tmp_path):
    pipe = _stable_diffusion(families, tmp_path)
    pipe.save_pretrained(tmp_path / "saved")
    x, t, index = torch.ones(1, 4, 16, 16), torch.tensor([500]), torch.tensor([0])
    opened, given = open_model(tmp_path / "saved"), open_model(pipe)
    expected = given.predict(x, t, given.conditions(PROMPTS), index)
    assert torch.equal(opened.predict(x, t, opened.conditions(PROMPTS), index), expected)
    assert opened.process.prediction == "v_prediction"
