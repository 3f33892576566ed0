"""Fewer keys and values in attentions whose queries stay whole, between rotary embedding and softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from bigain.backbones.around import left
from bigain.backbones.hooks import NothingCompressedError, without_autocast
from bigain.backbones.joining import Call
from bigain.backbones.joint import Family, Grids, Site
from bigain.backbones.keys import Fewer, calls_of, merged, pooled, whole
from bigain.backbones.spans import Span, Turns, place_of, pools_first, spans
from bigain.backbones.state import Forward, Seen, Session
from bigain.backbones.twin import forget, twin_of
from bigain.methods import Context, TokenDownsampling, TokenMerging
from bigain.operators.assignment import group_sizes
from bigain.operators.grid import Grid


class Seam(Turns):
    """Stands in one attention's processor, and compresses the keys and values of its image tokens."""

    def __init__(self, session: Session, family: Family, site: Site) -> None:
        super().__init__([each for each in session.taking_turns(site.layer) if place_of(each[1]) != "mlp"])
        self.session = session
        self.family = family
        self.name = site.name
        self.attention: Any = site.attention
        self.layer = site.layer
        methods = [method for _, method in self.numbered]
        self.shortens = any(place_of(method) == "attention" for method in methods)  # or weighs what the block merged
        self.at_projections = any(pools_first(method) for method in methods)
        self.features: Tensor | None = None  # the attention's input in the forward in progress
        # Token counts of the latest forward, for the summary; written, never read, by the hooks.
        self.grid: Grid | None = None
        self.grids: Grids = ()
        self.queries = self.keys_before = self.keys = self.width = 0
        self.projected: tuple[int, int] | None = None  # tokens of a projection of keys or values, before and after
        self.original = self.attention.processor
        self.twin = twin_of(self.original, self.through, self.name)
        self.attention.processor = self.twin

    @property
    def is_in_place(self) -> bool:
        """Whether nobody has exchanged the processor since."""
        return self.attention.processor is self.twin

    def undo(self) -> None:
        """Puts the processor back, unless somebody has put another there."""
        if self.is_in_place:
            self.attention.processor = self.original
        forget(self.twin)

    @property
    def _weighs(self) -> bool:
        """Whether what acts has merged before the block."""
        return place_of(self.method) == "block"

    def see(self, entering: Tensor, forward: Forward) -> None:
        """Finds what acts at this t, and keeps what enters the attention, by which tokens are matched."""
        self.turn(forward)
        self.features = entering if isinstance(self.method, TokenMerging) and not self._weighs else None

    def through(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, backend: Any) -> list[Call]:
        """Fewer keys and values (B, S, H, D), and the mask for them; several calls where ``backend`` takes no mask."""
        forward = self.session.current()
        if forward.arrived.get(self.name):  # the second attention of a processor is over other keys
            return [Call(key, value, mask)]
        forward.arrived[self.name] = True
        self.queries, self.width = query.shape[1], query.shape[2] * query.shape[3]
        if not self.turn(forward):
            self.grid, self.grids = forward.grids[0], forward.grids
            self.keys_before = self.keys = key.shape[1]
            return [Call(key, value, mask)]
        if pools_first(self.method) and forward.projected.get(self.name) != 2:
            raise NothingCompressedError(
                f"{self.name} must project its keys and values in the to_k and to_v that apply() hooked: were they "
                f"fused or exchanged since? Then remove() and apply() again"
            )
        parts, size_aware = (self._weighed if self._weighs else self._fewer)(forward, key, value)
        return calls_of([part for part in parts if part.key.shape[1]], mask, size_aware, backend, self.name)

    def _fewer(self, forward: Forward, key: Tensor, value: Tensor) -> tuple[list[Fewer], bool]:
        """What takes the place of keys and values (B, S, H, D), and whether it weighs by its size."""
        length, tokens = key.shape[1], forward.image_tokens
        if length < tokens:
            raise ValueError(f"{self.name} must attend to the {tokens} tokens of its grids, not to {length} in all")
        start = self.start(length, tokens)
        own = self.features
        if own is not None:
            own = own[:, self.start(own.shape[1], tokens) :]
        each = list(spans(forward, self.method, self.alone))
        parts = [whole(key, value, 0, start)]
        parts += [self._compressed(forward, span, start, key, value, own) for span in each]
        parts.append(whole(key, value, start + tokens, length))
        self.features = None
        self.grid, self.grids, self.keys_before = forward.grids[0], forward.grids, length
        self.keys = sum(part.key.shape[1] for part in parts)
        forward.note(self.number, self.keys < length)
        return parts, self._size_aware(length > tokens, each)

    def _weighed(self, forward: Forward, key: Tensor, value: Tensor) -> tuple[list[Fewer], bool]:
        """Keys and values (B, S', H, D) of tokens that merged before the block: they stay, and weigh by their size."""
        assigned, length = forward.assigned[self.layer], key.shape[1]
        begin = self.start(length, sum(left(span, assignment) for span, assignment in assigned))
        parts = [whole(key, value, 0, begin)]
        for span, assignment in assigned:
            part = whole(key, value, begin, begin + left(span, assignment))
            begin += part.key.shape[1]
            if assignment is not None:
                part.sizes = group_sizes(assignment).reshape(key.shape[0], -1)
                part.kept = part.kept.expand(key.shape[0], -1)
            parts.append(part)
        parts.append(whole(key, value, begin, length))
        self.grid, self.grids, self.keys = forward.grids[0], forward.grids, length
        self.keys_before = length + sum(span.grid.tokens - left(span, one) for span, one in assigned)
        return parts, self.method.size_aware is not False

    def start(self, length: int, tokens: int) -> int:
        """Where the image's tokens begin in a sequence."""
        return 0 if self.family.image == "first" else length - tokens

    def _size_aware(self, others: bool, each: Sequence[Span]) -> bool:
        """Whether groups weigh by their size: as asked, else where they share the softmax with what is no group."""
        method = self.method
        if method.size_aware is not None:
            return method.size_aware
        if others or len(each) > 1 or isinstance(method, TokenMerging):
            return True
        return any(side % step for side, step in zip(each[0].grid.sides, method.window, strict=True))

    def _compressed(
        self, forward: Forward, span: Span, start: int, key: Tensor, value: Tensor, features: Tensor | None
    ) -> Fewer:
        """Of the tokens of one span of keys and values (B, S, H, D), whose image's tokens begin at ``start``."""
        begin, end = start + span.begin, start + span.end
        method: Any = span.method
        if method is None:
            return whole(key, value, begin, end)
        key, value, context = key[:, begin:end], value[:, begin:end], span.context(forward, self.layer)
        if isinstance(method, TokenDownsampling):
            part = pooled(method, span, context, key, value)
            self._observe(method, span.folded(key.flatten(2)), context, None)
        else:
            assert features is not None  # `see` ran before
            own = span.folded(features[:, span.begin : span.end])
            method.check(context.grid)
            with without_autocast(own):
                assignment = method.assign(own.detach(), context)
            self._observe(method, own, context, assignment)
            part = merged(method, span, assignment, key, value)
        part.kept = part.kept + begin
        return part

    def _observe(self, method: Any, tokens: Tensor, context: Context, assignment: Any) -> None:
        if self.session.observer is not None:
            features = None if assignment is None else tokens.detach()
            self.session.observer(Seen(self.name, method, tokens.detach(), features, context, assignment))
