"""Which models of diffusers are supported and what each can do, and what is refused, to be read without PyTorch.

The tests hold it against the registries that decide: `bigain.backbones.SUPPORTED` and `bigain.diffusion.open_model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Support:
    """A class of networks, or some models of it.

    Args:
        network: name of the class in diffusers.
        models: published ones.
        attention: "self", of image tokens beside cross-attention, in diffusers' BasicTransformerBlock: there tokens
            merge around attentions and MLPs; "joint" with the text, or over "video": there around MLPs or blocks.
        pipelines: names of the classes with which it classifies and generates; there it cannot where there are none.
        trained: whether tests and results are of trained weights, those of an embedded model; else of random ones.
    """

    network: str
    models: str
    attention: Literal["self", "joint", "video"]
    pipelines: tuple[str, ...] = ()
    trained: bool = False


SUPPORTED: tuple[Support, ...] = (
    Support("UNet2DConditionModel", "Stable Diffusion 1, 2", "self", ("StableDiffusionPipeline",), trained=True),
    Support("UNet2DConditionModel", "Stable Diffusion XL", "self", ("StableDiffusionXLPipeline",)),
    Support("DiTTransformer2DModel", "DiT", "self", ("DiTPipeline",), trained=True),
    Support("PixArtTransformer2DModel", "PixArt-α, PixArt-Σ", "self", ("PixArtAlphaPipeline", "PixArtSigmaPipeline")),
    Support("SD3Transformer2DModel", "Stable Diffusion 3, 3.5", "joint", ("StableDiffusion3Pipeline",)),
    Support("FluxTransformer2DModel", "FLUX.1, FLUX.1 Kontext", "joint", ("FluxPipeline",), trained=True),
    Support("Flux2Transformer2DModel", "FLUX.2", "joint", ("Flux2KleinPipeline",)),
    Support("ChromaTransformer2DModel", "Chroma", "joint", ("ChromaPipeline",)),
    Support("QwenImageTransformer2DModel", "Qwen-Image", "joint", ("QwenImagePipeline",)),
    Support("ZImageTransformer2DModel", "Z-Image", "joint", ("ZImagePipeline",)),
    Support("AuraFlowTransformer2DModel", "AuraFlow", "joint", ("AuraFlowPipeline",)),
    Support("Lumina2Transformer2DModel", "Lumina 2", "joint", ("Lumina2Pipeline",)),
    Support("PRXTransformer2DModel", "PRX", "joint"),
    Support("WanTransformer3DModel", "Wan 2.1, 2.2", "video", ("WanPipeline",), trained=True),
    Support("LTXVideoTransformer3DModel", "LTX-Video", "video", ("LTXPipeline",)),
    Support("HunyuanVideoTransformer3DModel", "HunyuanVideo", "video", ("HunyuanVideoPipeline",)),
    Support("CogVideoXTransformer3DModel", "CogVideoX", "video"),
)


@dataclass(frozen=True)
class Refusal:
    """What is refused, with an error that says so, and why; ``network`` is a class of diffusers where it is one."""

    what: str
    why: str
    network: str | None = None


REFUSED: tuple[Refusal, ...] = (
    Refusal(
        "Qwen-Image-2.1",
        "its attention is called for parts of one causal sequence, with cached keys",
        "QwenImage21Transformer2DModel",
    ),
    Refusal("Sana", "linear attention: fewer keys and values save next to nothing", "SanaTransformer2DModel"),
    Refusal("FLUX.2 Klein with cached keys", "kv_cache_mode: its processor joins them where they cannot be reached"),
    Refusal("U-Nets of DeepFloyd IF and Kandinsky 2", "their attention is not in a Transformer2DModel"),
    Refusal("context parallelism", "where attention is joint or over video: text and grid are cut among processes"),
    Refusal("rows of different sizes", "where attention is joint or over video: one grid holds for all rows"),
    Refusal("any other class", "bigain.apply refuses it, and lists these"),
)
