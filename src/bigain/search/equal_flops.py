"""Methods at equal cost: the strength at which a method takes no more FLOPs than another."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import replace

from bigain.diffusion import Denoiser
from bigain.methods import Compression, Method, TokenDownsampling, TokenMerging
from bigain.run.cost import flops
from bigain.search.offers import Space
from bigain.zoo.presets import text_of


def at_equal_flops(denoiser: Denoiser, methods: Iterable[str], references: Iterable[str]) -> dict[str, list[str]]:
    """Per reference the methods, each at the least strength at which a forward takes at most the reference's FLOPs.

    A ratio is searched token by token of the finest grid that takes part, a factor from 2; both by bisection, as more
    strength never takes more FLOPs than less. What the assignment costs is counted too. ``methods`` are specs of one
    method each, whose ratio or factor is replaced, ``references`` of what sets the FLOPs; both come back canonical.

    ValueError where one of ``methods`` is several methods or none, follows a schedule or a threshold, has no layer in
    this model, or takes more FLOPs at its most than a reference; where the number of tokens of a reference depends on
    the image; or where one of the lists is empty.
    """
    space = Space.of(denoiser)
    strengths = {text: _strengths(text, space) for text in methods}
    targets = {}
    for text in references:
        measure = Compression.of(text_of(text))
        if any(method.depends_on_image for method in measure):
            raise ValueError(f"a reference must have FLOPs that do not depend on the image, not a threshold: {text!r}")
        targets[measure.text] = flops(denoiser, measure, denoiser.any_condition)
    if not strengths or not targets:
        raise ValueError("equal FLOPs must have at least one method, and one reference whose FLOPs are the measure")
    return {
        reference: [_cheap_enough(denoiser, text, choices, reference, target) for text, choices in strengths.items()]
        for reference, target in targets.items()
    }


def _cheap_enough(denoiser: Denoiser, text: str, choices: Sequence[Compression], reference: str, target: int) -> str:
    """The first of ``choices`` that takes at most ``target`` FLOPs."""

    def cost(choice: Compression) -> int:
        return flops(denoiser, choice, denoiser.any_condition)

    strongest = choices[-1]
    least = cost(strongest)
    if least > target:
        raise ValueError(
            f"{text!r} must come down to the {target:,} FLOPs of {reference}, not to {least:,} at its most, "
            f"{strongest.text}: {_way_out(strongest[0])}"
        )
    first = bisect_left(choices, True, hi=len(choices) - 1, key=lambda choice: cost(choice) <= target)
    return choices[first].text


def _way_out(method: Method) -> str:
    """What takes fewer FLOPs still."""
    if not isinstance(method, TokenMerging):
        return "give more levels or layers"
    queries = ", or merge the queries too" if method.queries == "full" else ""
    return f"give larger cells, more levels or layers{queries}"


def _strengths(text: str, space: Space) -> list[Compression]:
    """A method at all its strengths, the weakest that compresses first."""
    methods = Compression.of(text_of(text))
    if len(methods) != 1:
        raise ValueError(f"equal FLOPs must be of single methods, not the {len(methods)} of {text!r}")
    [method] = methods
    if method.depends_on_image:
        raise ValueError(f"equal FLOPs must be reached by a ratio, not by a threshold: {text!r}")
    if method.is_scheduled:
        raise ValueError(f"equal FLOPs must be reached by one ratio, which is replaced, not by a schedule: {text!r}")
    levels = {level for number, level in enumerate(space.levels) if method.includes(level, number)}
    grids = [space.grids[level - 1] for level in sorted(levels)]
    grids = grids if method.over_time else [grid.frame for grid in grids]
    if not grids:
        raise ValueError(f"equal FLOPs must be of methods that act in a layer of this model, not {text!r}")
    if isinstance(method, TokenDownsampling):
        longest = max(max(grid.height, grid.width) for grid in grids)
        return [Compression.of(replace(method, factor=factor)) for factor in range(2, longest + 1)]
    assert isinstance(method, TokenMerging)
    tokens = grids[0].tokens
    most = int(min(method.limit(grid) / grid.tokens for grid in grids) * tokens + 1e-6)
    if most < method.fewest_tokens:
        grid = grids[-1]
        raise ValueError(f"equal FLOPs must be of methods that suit a {grid} grid, not {text!r}")
    return [Compression.of(replace(method, ratio=count / tokens)) for count in range(method.fewest_tokens, most + 1)]
