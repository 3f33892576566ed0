"""A node that compresses the tokens of self-attention in U-Nets: Stable Diffusion 1, 2 and XL.

It knows of ComfyUI what its model patches promise, and imports nothing of it:

- the model has ``clone()``, ``set_model_attn1_patch(f)`` and ``set_model_attn1_output_patch(g)``;
- before a self-attention ``f(n, context, value, options)`` gives its three inputs anew, each (B, N, C);
- after it ``g(n, options)`` gives its output anew, with the same ``options``;
- ``options["original_shape"]`` is the shape of the latents, (B, C, H, W).
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from bigain.methods import METHODS, Compression, Context, Method, TokenDownsampling, TokenMerging
from bigain.operators.assignment import merge, unmerge
from bigain.operators.grid import Grid

FACTORS = (2, 3, 4)  # of pooling: 75, 89 and 94% of the keys go
_KEPT = "bigain"  # where a block's options keep how its tokens merged

# By what the node shows.
CHOICES = {
    "Laplacian-gated merging (L-GTM)": "lgtm",
    "Quadtree merging": "quadtree",
    "Block merging (ABM)": "abm",
    "Token merging (ToMe)": "tome",
    "Average pooling of keys and values": "avgpool",
    "Interpolate-extrapolate keys and values (IE-KVD)": "iekvd",
    "Nearest keys and values (ToDo)": "todo",
}


def method_of(choice: str, strength: float) -> Method:
    """The method of a choice, with the share of the tokens that go; of pooling, the factor that comes nearest.

    ValueError for another choice, or a strength outside of (0, 1).
    """
    if choice not in CHOICES:
        raise ValueError(f"method must be one of {', '.join(CHOICES)}, not {choice!r}")
    if not 0 < strength < 1:
        raise ValueError(f"strength must lie between 0 and 1, not {strength}")
    name = CHOICES[choice]
    if issubclass(METHODS[name], TokenDownsampling):
        factor = min(FACTORS, key=lambda one: abs(1 - one**-2 - strength))
        [method] = Compression.of(f"{name}:factor={factor}")
    else:
        [method] = Compression.of(f"{name}:ratio={strength:g}")
    return method


class Patch:
    """What stands before and behind the self-attentions of a U-Net's finest level.

    Which level is the finest shows at once: its blocks come first in a forward.
    """

    def __init__(self, method: Method) -> None:
        self.method = method
        self._most: dict[tuple[int, ...], int] = {}  # tokens of the finest level, by the latents' size

    def before(self, n: Tensor, context: Tensor, value: Tensor, options: dict[str, Any]) -> tuple[Tensor, ...]:
        """The inputs of the attention, with fewer tokens."""
        size = tuple(options["original_shape"][-2:])
        grid = grid_of(size, n.shape[1])
        if n.shape[1] < self._most.setdefault(size, n.shape[1]):
            return n, context, value
        seen = Context(grid, layer=int(options.get("transformer_index", 0)))
        method = self.method
        method.check(grid)
        if isinstance(method, TokenDownsampling):
            return n, method.pool(context, seen), method.pool(value, seen)
        assert isinstance(method, TokenMerging)
        assignment = method.assign(n, seen)
        options[_KEPT] = assignment
        merged = merge(n, assignment, method.operator)
        return merged, merged, merged

    def behind(self, n: Tensor, options: dict[str, Any]) -> Tensor:
        """The output of the attention, with all tokens again."""
        assignment = options.pop(_KEPT, None)
        return n if assignment is None else unmerge(n, assignment)


def grid_of(latents: tuple[int, ...], tokens: int) -> Grid:
    """The grid of so many tokens: that of the latents (H, W), halved and rounded up as often as it takes.

    ValueError where no halving has that many.
    """
    height, width = latents
    while height * width > tokens and max(height, width) > 1:
        height, width = math.ceil(height / 2), math.ceil(width / 2)
    if height * width != tokens:
        raise ValueError(
            f"the tokens must be those of {latents[0]}x{latents[1]} latents, halved some times, not {tokens}: this "
            f"node is for the U-Nets of Stable Diffusion 1, 2 and XL"
        )
    return Grid(height, width)


class CompressTokens:
    """Patches a model."""

    CATEGORY = "model_patches/unet"
    RETURN_TYPES = ("MODEL",)
    FUNCTION = "patch"
    DESCRIPTION = "Fewer tokens in self-attention at the finest level. Faster; strong settings lose detail."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802, ComfyUI's name
        """What the node shows: one choice and one slider."""
        slider = {"default": 0.5, "min": 0.1, "max": 0.95, "step": 0.05}
        return {"required": {"model": ("MODEL",), "method": (list(CHOICES),), "strength": ("FLOAT", slider)}}

    def patch(self, model: Any, method: str, strength: float) -> tuple[Any]:
        """A copy of the model with the patch; the model itself stays as it is."""
        patch = Patch(method_of(method, strength))
        patched = model.clone()
        patched.set_model_attn1_patch(patch.before)
        patched.set_model_attn1_output_patch(patch.behind)
        return (patched,)


NODE_CLASS_MAPPINGS = {"BigainCompressTokens": CompressTokens}
NODE_DISPLAY_NAME_MAPPINGS = {"BigainCompressTokens": "Compress tokens (bigain)"}
