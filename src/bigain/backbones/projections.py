"""Keys and values projected from pooled tokens, and laid out again for the norm and rotary embedding that follow."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.hooks import ModelHook
from torch import Tensor, nn

from bigain.backbones.hooks import without_autocast
from bigain.backbones.joint import Site
from bigain.backbones.seam import Seam
from bigain.backbones.spans import pools_first, spans
from bigain.methods import Method, TokenDownsampling
from bigain.operators.grid import cell_count, cell_index

PROJECTIONS = ("to_k", "to_v")


class ProjectionHook(ModelHook):
    """Runs a linear projection on the pooled image tokens of its input, and gives all tokens of a window its result.

    The seam behind it pools these equal values again. So a value is what pooling after the projection gives, and a key
    has the norm and, before rotary embedding, the value of the pooled token; a nearest token's are its own.
    """

    def __init__(self, seam: Seam) -> None:
        super().__init__()
        self.seam = seam

    def new_forward(self, module: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Projects (B, S, C) to (B, S, C')."""
        seam = self.seam
        forward = seam.session.current()
        if not seam.turn(forward) or not pools_first(seam.method):
            seam.projected = (x.shape[1], x.shape[1])
            return self.fn_ref.original_forward(x, *args, **kwargs)
        start = seam.start(x.shape[1], forward.image_tokens)
        parts, places, count = [x[:, :start]], [torch.arange(start, device=x.device)], start
        for span in spans(forward, seam.method, seam.alone):
            part: Tensor = x[:, start + span.begin : start + span.end]
            place = torch.arange(part.shape[1], device=x.device)
            if isinstance(span.method, TokenDownsampling):
                context = span.context(forward, seam.layer)
                span.method.check(context.grid)
                with without_autocast(part):
                    part = span.method.pool(span.folded(part), context).reshape(x.shape[0], -1, x.shape[2])
                window, windows = span.method.window, cell_count(context.grid, span.method.window)
                shift = torch.arange(span.together, device=x.device)[:, None] * windows
                place = (cell_index(context.grid, window, x.device) + shift).flatten()
            parts.append(part)
            places.append(place + count)
            count += part.shape[1]
        rest = x[:, start + forward.image_tokens :]
        parts.append(rest)
        places.append(torch.arange(count, count + rest.shape[1], device=x.device))
        fewer = torch.cat(parts, 1)
        forward.projected[seam.name] = forward.projected.get(seam.name, 0) + 1
        seam.projected = (x.shape[1], fewer.shape[1])
        return self.fn_ref.original_forward(fewer, *args, **kwargs).index_select(1, torch.cat(places))


def check_projections(site: Site, method: Method) -> None:
    """Refuses pooling before projections that are one with others, and methods that it would make into another."""
    attention: Any = site.attention
    if getattr(attention, "fused_projections", False):
        raise ValueError(
            f"{site.name} must have separate projections for its keys and values with pool_at='projection', not fused "
            f"ones: call unfuse_qkv_projections() first, or use pool_at='attention'"
        )
    if not all(isinstance(getattr(attention, name, None), nn.Module) for name in PROJECTIONS):
        raise ValueError(
            f"{site.name} must have {' and '.join(PROJECTIONS)} with pool_at='projection', not one projection for all "
            f"as a {type(attention).__name__}: use pool_at='attention', or other layers"
        )
    if getattr(method, "reads_score", False):
        raise ValueError(
            f"pool_at must be 'attention' in {site.name} for {method.name}, which selects tokens and leaves nothing to "
            f"lay out in the others' places, not 'projection'"
        )
