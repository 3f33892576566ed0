"""Proportional attention without a mask: the log of a group's size as one more channel of the queries and keys.

An additive mask keeps PyTorch from its flash kernel. With a channel of ones beside the queries and of log n beside the
keys, their product adds the same log n. The processor divides the logits by the root of the widened head, and the
queries make up for that. Hooks on the outputs of ``to_q``, ``to_k`` and ``to_v`` widen the heads, one on the input of
``to_out`` narrows them: the processor in between is diffusers' own.

Source: ToMe (arXiv 2210.09461), equation 1, for what is added; the channel is this package's.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from diffusers.hooks import ModelHook
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional

from bigain.backbones.state import Session

_MULTIPLE = 8  # of channels in a head, which the flash kernel wants
# Beside the key of an empty group: -1024 or less as a logit in heads of up to 256 channels, whose exponential is 0
# beside any other key's; exact in half precision, where -inf would have to survive the products of the kernel.
_EMPTY = -(2.0**14)


def widened(channels: int) -> int:
    """Channels of a head with at least one more, a multiple of 8."""
    return channels // _MULTIPLE * _MULTIPLE + _MULTIPLE


def widen_queries(queries: Tensor, heads: int) -> Tensor:
    """Queries (B, N, heads * d) as (B, N, heads * widened(d)): scaled for the wider head, ones in the new channels."""
    channels = queries.shape[-1] // heads
    wide = widened(channels)
    scaled = queries.unflatten(-1, (heads, channels)) * math.sqrt(wide / channels)
    return functional.pad(scaled, (0, wide - channels), value=1.0).flatten(-2)


def widen_keys(keys: Tensor, heads: int, bias: Tensor) -> Tensor:
    """Keys (B, M, heads * d) as (B, M, heads * widened(d)), whose first new channel adds a bias to the logits.

    Args:
        bias: (B, 1, M) as from :func:`bigain.operators.assignment.key_bias`, -inf on empty groups.
    """
    channels = keys.shape[-1] // heads
    wide = widened(channels)
    channel = (bias.transpose(1, 2) * math.sqrt(wide)).clamp(min=_EMPTY).to(keys.dtype)  # (B, M, 1)
    channel = channel.unsqueeze(2).expand(-1, -1, heads, -1)
    joined = torch.cat([keys.unflatten(-1, (heads, channels)), channel], dim=-1)
    return functional.pad(joined, (0, wide - channels - 1)).flatten(-2)


def widen_values(values: Tensor, heads: int) -> Tensor:
    """Values (B, M, heads * d) as (B, M, heads * widened(d)), with zeros in the new channels."""
    channels = values.shape[-1] // heads
    split = values.unflatten(-1, (heads, channels))
    return functional.pad(split, (0, widened(channels) - channels)).flatten(-2)


def narrow(values: Tensor, heads: int, channels: int) -> Tensor:
    """Values (B, N, heads * widened(d)) back as (B, N, heads * d)."""
    return values.unflatten(-1, (heads, -1))[..., :channels].flatten(-2)


class WidenHook(ModelHook):
    """Widens what a projection makes, where its attention is being given a bias by channel."""

    def __init__(self, session: Session, heads: int, part: str) -> None:
        super().__init__()
        self.session = session
        self.heads = heads
        self.part = part

    def post_forward(self, module: nn.Module, output: Any) -> Any:
        bias = _bias(self.session)
        if bias is None:
            return output
        if self.part == "to_q":
            return widen_queries(output, self.heads)
        if self.part == "to_k":
            return widen_keys(output, self.heads, bias)
        return widen_values(output, self.heads)


class NarrowHook(ModelHook):
    """Cuts the added channels off again, before the projection of the output."""

    def __init__(self, session: Session, heads: int, channels: int) -> None:
        super().__init__()
        self.session = session
        self.heads = heads
        self.channels = channels

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if _bias(self.session) is None:
            return args, kwargs
        return (narrow(args[0], self.heads, self.channels), *args[1:]), kwargs


class SizeChannel:
    """The hooks of one attention that give it a bias by channel, and the check that they still apply.

    Args:
        attention: whose projections are hooked.
        name: of the attention, for errors.
    """

    def __init__(self, session: Session, attention: Attention, name: str) -> None:
        self.session = session
        self.name = name
        self.heads = attention.heads
        self.channels = attention.inner_dim // attention.heads
        self.projections = _projections(attention)

    @property
    def extra(self) -> int:
        """Channels that are added, over all heads."""
        return self.heads * (widened(self.channels) - self.channels)

    def hooks(self) -> list[tuple[nn.Module, ModelHook]]:
        """The hooks to attach, each with its module."""
        parts = ("to_q", "to_k", "to_v")
        widen: list[tuple[nn.Module, ModelHook]] = [
            (module, WidenHook(self.session, self.heads, part))
            for module, part in zip(self.projections, parts, strict=False)
        ]
        return [*widen, (self.projections[3], NarrowHook(self.session, self.heads, self.channels))]

    def check(self, attention: Attention) -> None:
        """Refuses an attention whose processor or projections were exchanged since the hooks were attached.

        Raises:
            ValueError: names the layer and the way out.
        """
        check_channel(attention, self.name)
        if any(now is not then for now, then in zip(_projections(attention), self.projections, strict=True)):
            raise ValueError(
                f"the projections of {self.name} were exchanged after apply() (a LoRA was loaded or unloaded), which "
                f"size_bias='channel' hooks: remove() and apply() again, or set size_bias='mask'"
            )


def check_channel(attention: Attention, name: str) -> None:
    """Refuses attention between whose projections and whose product of queries and keys anything else happens.

    Raises:
        ValueError: names the layer, what stands in the way and the way out.
    """
    obstacle = None
    if getattr(attention, "fused_projections", False):
        obstacle = "has fused projections"
    elif attention.norm_q is not None or attention.norm_k is not None:
        obstacle = "normalises its queries or keys"
    elif type(attention.processor) is not AttnProcessor2_0:
        obstacle = f"has the processor {type(attention.processor).__name__} and not AttnProcessor2_0"
    if obstacle is not None:
        raise ValueError(f"{name} {obstacle}, so size_bias='channel' does not apply: set size_bias='mask'")


def _projections(attention: Attention) -> tuple[nn.Module, ...]:
    return attention.to_q, attention.to_k, attention.to_v, attention.to_out[0]


def _bias(session: Session) -> Tensor | None:
    return None if session.forward is None else session.forward.key_bias
