"""Whether methods fit a model, each other, and the grid of its tokens; each refusal names what must be otherwise."""

from __future__ import annotations

from diffusers.models.attention_processor import Attention

from bigain.backbones.families import Layer, Layout
from bigain.methods import Method, TokenDownsampling, TokenMerging, spec
from bigain.operators.grid import Grid


def check_methods(methods: tuple[Method, ...], where: Layout) -> None:
    """Refuses methods that do not fit a model or each other.

    Raises:
        ValueError: names the field, its value and what is allowed.
    """
    for method in methods:
        _check_places(method, where)
        if where.grid is not None:
            method.check(where.grid)
            _check_takes(method, where.grid)
    for number, layer in enumerate(where.layers):
        _check_layer(layer, [method for method in methods if method.includes(layer.level, number)])


def _check_takes(method: Method, grid: Grid) -> None:
    """Refuses a ratio that is less than a token of a grid; where a schedule or a threshold decides, that may be."""
    if not isinstance(method, TokenMerging) or method.is_identity or method.is_scheduled:
        return
    if method.most_merged(grid) == 0:
        raise ValueError(
            f"ratio must be at least 1/{grid.tokens} in {spec(method)}, one token of a {grid.height}x{grid.width} "
            f"grid, not {method.ratio}: nothing would be compressed by it"
        )


def _check_places(method: Method, where: Layout) -> None:
    """Refuses levels and layers that a model does not have, and cross-attention where it has none."""
    kind = type(where.model).__name__
    levels = sorted(level for level in method.levels if level > where.levels)
    if levels:
        raise ValueError(
            f"levels must lie in 1 to {where.levels}, the finest grid with attention to the coarsest of this {kind}, "
            f"not {levels}"
        )
    layers = sorted(layer for layer in method.layers or () if layer >= len(where.layers))
    if layers:
        raise ValueError(
            f"layers must lie in 0 to {len(where.layers) - 1}, the transformer blocks of this {kind}, not {layers}"
        )
    blocks = [layer.block for number, layer in enumerate(where.layers) if method.includes(layer.level, number)]
    crossed = isinstance(method, TokenMerging) and "cross_attention" in method.locations
    if crossed and all(block.attn2 is None for block in blocks):
        raise ValueError(
            f"locations of {spec(method)} must do without 'cross_attention', which this {kind} does not have in its "
            f"layers"
        )


def _check_layer(layer: Layer, methods: list[Method]) -> None:
    """Refuses methods that do not go together in a layer, or not with its attention."""
    merging = [method for method in methods if isinstance(method, TokenMerging)]
    downsampling = [method for method in methods if isinstance(method, TokenDownsampling)]
    if len(merging) > 1 or len(downsampling) > 1:
        raise ValueError(
            f"methods must be at most one merging and one downsampling in a layer, not {spec(methods)} in {layer.name}"
        )
    if methods and layer.block.only_cross_attention:
        raise ValueError(
            f"{layer.name} must have self-attention to be compressed, not only_cross_attention: leave it out, by "
            f"levels or layers"
        )
    if downsampling and any(method.size_aware for method in merging):
        raise ValueError(
            f"size_aware must be False where {spec(downsampling)} replaces the merged keys that it weighs, not True in "
            f"{layer.name}"
        )
    full = any(method.queries == "full" for method in merging)
    if full and downsampling:
        raise ValueError(
            f"queries must be 'merged' where {spec(downsampling)} makes the keys and values, not 'full' in {layer.name}"
        )
    attention, name = layer.block.attn1, f"{layer.name}.attn1"
    if methods:
        _check_attention(attention, name)
    if full or downsampling:
        check_not_fused(attention, name)


def _check_attention(module: Attention, name: str) -> None:
    """Refuses attention that normalises its tokens inside, where merged or pooled tokens would be normalised apart."""
    for part in ("group_norm", "spatial_norm", "norm_cross"):
        if getattr(module, part, None) is not None:
            raise ValueError(
                f"{name} must not normalise tokens inside the attention to be compressed, but has a {part}"
            )


def check_not_fused(module: Attention, name: str) -> None:
    """Refuses fused projections, which take queries, keys and values from the same tokens.

    Raises:
        ValueError: names the layer and the way out.
    """
    if getattr(module, "fused_projections", False):
        raise ValueError(
            f"{name} must have separate projections for its keys and values, not fused ones: call "
            f"unfuse_qkv_projections() first"
        )
