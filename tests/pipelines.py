"""Small random pipelines of flow matching, of the real classes, with text encoders and tokenizers of their own."""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from tokenizers.pre_tokenizers import ByteLevel
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    Gemma2Config,
    Gemma2Model,
    LlamaConfig,
    LlamaModel,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3Model,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
    UMT5Config,
    UMT5EncoderModel,
)
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig

LETTERS = string.ascii_lowercase + "."


def clip_tokenizer(length: int = 24) -> CLIPTokenizer:
    tokens = ["<|startoftext|>", "<|endoftext|>", *LETTERS, *(f"{letter}</w>" for letter in LETTERS)]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=length)


def clip_config(max_position_embeddings: int = 24) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=56,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=max_position_embeddings,
        projection_dim=16,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def t5_tokenizer() -> T5Tokenizer:
    letters = [(letter, -2.0) for letter in "▁" + string.ascii_uppercase + LETTERS]
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *letters]
    return T5Tokenizer(vocab=vocabulary, extra_ids=0, model_max_length=20)


def t5_config(d_model: int = 16) -> T5Config:
    return T5Config(
        vocab_size=64, d_model=d_model, d_kv=8, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )


def vae(**overrides: Any) -> AutoencoderKL:
    """16 pixels to 8x8 latents of 4 channels."""
    config = dict(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=4,
        latent_channels=4,
        scaling_factor=0.5,
        shift_factor=0.25,
        sample_size=16,
    )
    return AutoencoderKL(**(config | overrides))


@dataclass(frozen=True)
class Flow:
    """A family: how to build a small pipeline, and what its pipeline and network take.

    Args:
        build: makes one; keyword arguments change the transformer's config.
        noise: what the network is told of pure noise.
        sign: of its output against noise - x0.
        guided: keyword arguments of a call of the pipeline with guidance 3, and of one without guidance.
        sizes: that it is opened with.
        layout: a velocity (B, C, ...) as the network gives it, packed; None for the pipeline's latents.
        stepped: what the scheduler sees as samples; None for as the pipeline's latents.
        prompts: of a length that the network takes in one compressed batch.
    """

    build: Callable[..., Any]
    noise: float
    sign: int = 1
    guided: Any = field(default_factory=lambda: (dict(guidance_scale=3.0), dict(guidance_scale=1.0)))
    layout: Callable[[Tensor], Any] | None = None
    sizes: dict[str, int] = field(default_factory=dict)
    stepped: Callable[[Tensor], Tensor] | None = None
    prompts: tuple[str, ...] = ("a photo of a cat.", "a photo of an owl.", "an edge", "x")


def flux(**overrides: Any) -> Any:
    config = dict(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 6, 6), guidance_embeds=True,
    )  # fmt: skip
    return diffusers.FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae(),
        text_encoder=CLIPTextModel(clip_config()),
        tokenizer=clip_tokenizer(),
        text_encoder_2=T5EncoderModel(t5_config()),
        tokenizer_2=t5_tokenizer(),
        transformer=diffusers.FluxTransformer2DModel(**(config | overrides)),
    )


def true_guidance(negative: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return dict(true_cfg_scale=3.0, negative_prompt=[negative] * 2), dict(true_cfg_scale=1.0)


def chroma(**overrides: Any) -> Any:
    config = dict(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(4, 6, 6), approximator_num_channels=8, approximator_hidden_dim=16,
        approximator_layers=1,
    )  # fmt: skip
    return diffusers.ChromaPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
        vae=vae(),
        text_encoder=T5EncoderModel(t5_config()),
        tokenizer=t5_tokenizer(),
        transformer=diffusers.ChromaTransformer2DModel(**(config | overrides)),
    )


def sd3(t5: bool = True, **overrides: Any) -> Any:
    config = dict(
        sample_size=8, patch_size=2, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, caption_projection_dim=16, pooled_projection_dim=32, out_channels=4,
        pos_embed_max_size=16, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip
    return diffusers.StableDiffusion3Pipeline(
        transformer=diffusers.SD3Transformer2DModel(**(config | overrides)),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=CLIPTextModelWithProjection(clip_config()),
        tokenizer=clip_tokenizer(),
        text_encoder_2=CLIPTextModelWithProjection(clip_config()),
        tokenizer_2=clip_tokenizer(),
        text_encoder_3=T5EncoderModel(t5_config(d_model=32)) if t5 else None,
        tokenizer_3=t5_tokenizer() if t5 else None,
    )


def bytes_tokenizer(length: int = 4000, words: str = "") -> Qwen2Tokenizer:
    """A token for each byte, those of a chat, and the words of a text."""
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet())]
    tokenizer = Qwen2Tokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=length)
    tokenizer.add_tokens(sorted(set(words.split())))
    tokenizer.chat_template = (
        "{% for one in messages %}<|im_start|>{{ one['role'] }}\n{{ one['content'] }}<|im_end|>\n{% endfor %}"
    )
    return tokenizer


def language(config: Any, **overrides: Any) -> Any:
    """The config of a small decoder of 259 tokens."""
    return config(
        **dict(
            vocab_size=264, hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2,
            num_key_value_heads=2, head_dim=8, max_position_embeddings=4000, pad_token_id=0, bos_token_id=0,
            eos_token_id=0,
        )
        | overrides
    )  # fmt: skip


def qwen(**overrides: Any) -> Any:
    config = dict(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(4, 6, 6),
    )  # fmt: skip
    text = language(Qwen2_5_VLTextConfig, rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 2]})
    vision = dict(depth=1, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=16)
    reader = Qwen2_5_VLConfig(text_config=text.to_dict(), vision_config=vision)
    return diffusers.QwenImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=diffusers.AutoencoderKLQwenImage(
            base_dim=4,
            z_dim=4,
            dim_mult=[1, 1],
            num_res_blocks=1,
            temperal_downsample=[True],
            latents_mean=[0.1, 0.2, 0.3, 0.4],
            latents_std=[0.5, 1.0, 1.5, 2.0],
        ),
        text_encoder=Qwen2_5_VLForConditionalGeneration(reader),
        tokenizer=bytes_tokenizer(),
        transformer=diffusers.QwenImageTransformer2DModel(**(config | overrides)),
    )


def zimage(**overrides: Any) -> Any:
    config = dict(
        in_channels=4, dim=32, n_layers=2, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
        axes_dims=[4, 6, 6], axes_lens=[1024, 64, 64],
    )  # fmt: skip
    return diffusers.ZImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=vae(),
        text_encoder=Qwen3Model(language(Qwen3Config)),
        tokenizer=bytes_tokenizer(48),
        transformer=diffusers.ZImageTransformer2DModel(**(config | overrides)),
    )


def lumina2(**overrides: Any) -> Any:
    config = dict(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=24, num_layers=2, num_refiner_layers=1,
        num_attention_heads=3, num_kv_heads=1, multiple_of=2, ffn_dim_multiplier=None, cap_feat_dim=16,
        scaling_factor=1.0, axes_dim_rope=(4, 2, 2), axes_lens=(512, 64, 64),
    )  # fmt: skip
    return diffusers.Lumina2Pipeline(
        transformer=diffusers.Lumina2Transformer2DModel(**(config | overrides)),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
        vae=vae(),
        text_encoder=Gemma2Model(language(Gemma2Config)),
        tokenizer=bytes_tokenizer(),
    )


def auraflow(**overrides: Any) -> Any:
    config = dict(
        sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_mmdit_layers=1, num_single_dit_layers=2,
        attention_head_dim=8, num_attention_heads=2, joint_attention_dim=16, caption_projection_dim=16,
        pos_embed_max_size=64,
    )  # fmt: skip
    return diffusers.AuraFlowPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=UMT5EncoderModel(umt5_config()),
        vae=vae(shift_factor=None),
        transformer=diffusers.AuraFlowTransformer2DModel(**(config | overrides)),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    )


def flux2(distilled: bool = False, **overrides: Any) -> Any:
    config = dict(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=48, axes_dims_rope=(4, 4, 4, 4), timestep_guidance_channels=16, guidance_embeds=False,
    )  # fmt: skip
    autoencoder = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2, norm_num_groups=4, latent_channels=4, sample_size=16,
    )  # fmt: skip
    autoencoder.bn.running_mean.copy_(torch.linspace(-1, 1, 16))
    autoencoder.bn.running_var.copy_(torch.linspace(0.5, 2, 16))
    return diffusers.Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder,
        text_encoder=Qwen3ForCausalLM(language(Qwen3Config, num_hidden_layers=27)),
        tokenizer=bytes_tokenizer(48),
        transformer=diffusers.Flux2Transformer2DModel(**(config | overrides)),
        is_distilled=distilled,
    )


def tokens_of(x: Tensor) -> Tensor:
    return x.flatten(2).transpose(1, 2)


def hunyuan(**overrides: Any) -> Any:
    config = dict(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=12, num_layers=1,
        num_single_layers=1, num_refiner_layers=1, patch_size=2, patch_size_t=1, guidance_embeds=True,
        text_embed_dim=16, pooled_projection_dim=16, rope_axes_dim=(4, 4, 4),
    )  # fmt: skip
    return diffusers.HunyuanVideoPipeline(
        text_encoder=LlamaModel(language(LlamaConfig, num_hidden_layers=3, vocab_size=400)),
        tokenizer=bytes_tokenizer(256, DEFAULT_PROMPT_TEMPLATE["template"]),
        transformer=diffusers.HunyuanVideoTransformer3DModel(**(config | overrides)),
        vae=diffusers.AutoencoderKLHunyuanVideo(
            latent_channels=4, down_block_types=("HunyuanVideoDownBlock3D",) * 3,
            up_block_types=("HunyuanVideoUpBlock3D",) * 3, block_out_channels=(8, 8, 8), layers_per_block=1,
            norm_num_groups=4, spatial_compression_ratio=4, temporal_compression_ratio=4,
        ),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        text_encoder_2=CLIPTextModel(clip_config(max_position_embeddings=77)),
        tokenizer_2=clip_tokenizer(77),
    )  # fmt: skip


def ltx(**overrides: Any) -> Any:
    config = dict(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        num_layers=2, caption_channels=16,
    )  # fmt: skip
    autoencoder = diffusers.AutoencoderKLLTXVideo(
        latent_channels=4, block_out_channels=(8, 8), down_block_types=("LTXVideoDownBlock3D",) * 2,
        decoder_block_out_channels=(8, 8), layers_per_block=(1, 1, 1), decoder_layers_per_block=(1, 1, 1),
        spatio_temporal_scaling=(True, False), decoder_spatio_temporal_scaling=(True, False),
        decoder_inject_noise=(False,) * 3, downsample_type=("conv", "conv"), upsample_residual=(False, False),
        upsample_factor=(1, 1), patch_size=4, patch_size_t=1,
    )  # fmt: skip
    autoencoder.latents_mean.copy_(torch.tensor([0.1, 0.2, 0.3, 0.4]))
    autoencoder.latents_std.copy_(torch.tensor([0.5, 1.0, 1.5, 2.0]))
    return diffusers.LTXPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=autoencoder,
        text_encoder=T5EncoderModel(t5_config()),
        tokenizer=t5_tokenizer(),
        transformer=diffusers.LTXVideoTransformer3DModel(**(config | overrides)),
    )


def umt5_config() -> UMT5Config:
    return UMT5Config(**t5_config().to_diff_dict() | {"model_type": "umt5"})


def wan(two: bool = False, expand: bool = False, pixels: bool = False, **overrides: Any) -> Any:
    config = dict(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=3 if pixels else 4,
        out_channels=3 if pixels else 4, text_dim=16, freq_dim=16, ffn_dim=32, num_layers=2,
    )  # fmt: skip
    network = diffusers.WanTransformer3DModel
    autoencoder = diffusers.AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1],
        num_res_blocks=1,
        temperal_downsample=[True],
        latents_mean=[0.1, 0.2, 0.3, 0.4],
        latents_std=[0.5, 1.0, 1.5, 2.0],
        scale_factor_temporal=2,
        scale_factor_spatial=2,
    )
    return diffusers.WanPipeline(
        tokenizer=t5_tokenizer(),
        text_encoder=UMT5EncoderModel(umt5_config()),
        vae=None if pixels else autoencoder,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
        transformer=network(**(config | overrides)),
        transformer_2=network(**(config | overrides)) if two else None,
        boundary_ratio=0.6 if two else None,
        expand_timesteps=expand,
    )


FLOWS: dict[str, Flow] = {
    "chroma": Flow(chroma, 1.0),
    "sd3": Flow(sd3, 1000.0),
    "sd3 without t5": Flow(lambda: sd3(t5=False), 1000.0),
    "qwen": Flow(qwen, 1.0, guided=true_guidance(" "), sizes=dict(image_size=16)),
    "zimage": Flow(
        zimage,
        0.0,
        -1,
        guided=(dict(guidance_scale=2.0), dict(guidance_scale=0.0)),
        layout=lambda v: list(v[:, :, None]),
    ),
    "lumina2": Flow(lumina2, 0.0, -1),
    "auraflow": Flow(auraflow, 1.0),
    "flux2 klein": Flow(
        flux2,
        1.0,
        sizes=dict(image_size=16),
        layout=tokens_of,
        stepped=lambda x: x.transpose(1, 2).reshape(len(x), 16, 4, 4),
    ),
    "hunyuan": Flow(hunyuan, 1000.0, sizes=dict(image_size=32, frames=5)),
    "ltx": Flow(ltx, 1000.0, sizes=dict(image_size=32, frames=5)),
    "wan": Flow(wan, 1000.0, sizes=dict(image_size=16, frames=5)),
    "wan of one frame": Flow(wan, 1000.0, sizes=dict(image_size=16, frames=1)),
    "wan 2.2": Flow(lambda: wan(two=True), 1000.0, sizes=dict(image_size=16, frames=5)),
    "wan 5b": Flow(lambda: wan(expand=True), 1000.0, sizes=dict(image_size=16, frames=5)),
    "wan of pixels": Flow(lambda: wan(pixels=True), 1000.0, sizes=dict(image_size=8, frames=4)),
    "flux": Flow(flux, 1.0),
    "flux without embedded guidance": Flow(
        lambda **given: flux(guidance_embeds=False, **given), 1.0, guided=true_guidance("")
    ),
}
