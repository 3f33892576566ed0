"""Fewer image tokens around the MLP of a block, or around the whole block, of models that attend jointly or over video.

Around a block its update is un-merged, not its tokens: x + up(block(merge(x)) - merge(x)), as the residual is inside.
A merged token has the position, in rotary embedding and masks, of the token that stands for its group.
"""

from __future__ import annotations

import inspect
from typing import Any, TypeAlias

import torch
from diffusers.hooks import ModelHook
from torch import Tensor, nn

from bigain.backbones.families import Layer
from bigain.backbones.hooks import without_autocast
from bigain.backbones.joint import Family, PerToken
from bigain.backbones.spans import Span, Turns, place_of, spans
from bigain.backbones.state import Forward, Seen, Session
from bigain.operators.assignment import Assignment, merge, unmerge
from bigain.operators.grid import Grid

Assigned: TypeAlias = list[tuple[Span, Assignment | None]]
"""How the tokens of each span merge; None where they stay whole."""


class Around(Turns):
    """Merges the image tokens in one block, by what enters it."""

    def __init__(self, session: Session, family: Family, layer: Layer, number: int) -> None:
        super().__init__([each for each in session.taking_turns(number) if place_of(each[1]) != "attention"])
        self.session = session
        self.family = family
        self.name = layer.name
        self.block: Any = layer.block
        self.layer = number
        self.whole = any(place_of(method) == "block" for _, method in self.numbered)  # or its MLP
        # Token counts of the latest forward, for the summary; written, never read, by the hooks.
        self.grid: Grid | None = None
        self.tokens = self.fewer = self.width = 0  # that enter the MLP or the block, and that run through it
        self.seams: list[Any] = []  # of a whole block's attentions

    def start(self, length: int, tokens: int) -> int:
        """Where the image's tokens begin in a sequence."""
        return 0 if self.family.image == "first" else length - tokens

    def rest(self, x: Tensor, forward: Forward) -> None:
        """Notes that all tokens (B, S, C) run through."""
        self.grid, self.tokens, self.fewer = forward.grids[0], x.shape[1], x.shape[1]

    def assign(self, entering: Tensor, forward: Forward) -> Assigned:
        """Assigns the image tokens among those (B, S, C) that enter the block; none where no method acts."""
        assigned: Assigned = []
        if not self.turn(forward):
            return assigned
        image = entering[:, self.start(entering.shape[1], forward.image_tokens) :]
        for span in spans(forward, self.method, self.alone):
            acting: Any = span.method
            if acting is None:
                assigned.append((span, None))
                continue
            features, context = span.folded(image[:, span.begin : span.end]), span.context(forward, self.layer)
            acting.check(context.grid)
            with without_autocast(features):
                assignment = acting.assign(features.detach(), context)
            assigned.append((span, assignment))
            if self.session.observer is not None:
                met = features.detach()
                self.session.observer(Seen(self.name, acting, met, met, context, assignment))
        forward.assigned[self.layer], self.width = assigned, entering.shape[2]
        return assigned

    def merged(self, x: Tensor, forward: Forward, assigned: Assigned) -> Tensor:
        """Tokens (B, S, C) with fewer of the image's: (B, S', C)."""
        tokens = forward.image_tokens
        if x.shape[1] < tokens:
            raise ValueError(
                f"{self.name} must be given the {tokens} tokens of its grids at once where it merges, not "
                f"{x.shape[1]}: call set_chunk_feed_forward(None) on it"
            )
        start = self.start(x.shape[1], tokens)
        parts = [x[:, :start]]
        for span, assignment in assigned:
            part = x[:, start + span.begin : start + span.end]
            if assignment is not None:
                part = merge(span.folded(part), assignment, self.method.operator).reshape(x.shape[0], -1, x.shape[2])
            parts.append(part)
        parts.append(x[:, start + tokens :])
        result = torch.cat(parts, 1)
        self.grid, self.tokens, self.fewer = forward.grids[0], x.shape[1], result.shape[1]
        forward.note(self.number, self.fewer < self.tokens)
        return result

    def restored(self, z: Tensor, assigned: Assigned) -> Tensor:
        """Tokens (B, S', C) with one of the image's in the place of each that was merged: (B, S, C)."""
        begin = self.start(z.shape[1], sum(left(span, assignment) for span, assignment in assigned))
        parts = [z[:, :begin]]
        for span, assignment in assigned:
            part = z[:, begin : begin + left(span, assignment)]
            begin += part.shape[1]
            if assignment is not None:
                folded = part.reshape(-1, assignment.groups, z.shape[2])
                part = unmerge(folded, assignment).reshape(z.shape[0], -1, z.shape[2])
            parts.append(part)
        parts.append(z[:, begin:])
        return torch.cat(parts, 1)


def left(span: Span, assignment: Assignment | None) -> int:
    """How many tokens a span leaves in each row."""
    return span.grid.tokens if assignment is None else assignment.groups * span.together


def kept(assigned: Assigned, batch: int) -> Tensor:
    """The image token that stands for each that is left: (B, M) int64."""
    parts = []
    for span, assignment in assigned:
        if assignment is None:
            part = torch.arange(span.grid.tokens, device=_device(assigned)).expand(batch, -1)
        else:
            shift = torch.arange(span.together, device=assignment.kept.device) * assignment.index.shape[1]
            part = (assignment.kept + shift.repeat(batch)[:, None]).reshape(batch, -1)
        parts.append(part + span.begin)
    return torch.cat(parts, 1)


def _device(assigned: Assigned) -> torch.device | None:
    return next((assignment.kept.device for _, assignment in assigned if assignment is not None), None)


class JointMLPHook(ModelHook):
    """Runs the MLP of a block on fewer image tokens."""

    def __init__(self, around: Around) -> None:
        super().__init__()
        self.around = around

    def new_forward(self, module: nn.Module, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Runs it on (B, S', C) in place of (B, S, C)."""
        around = self.around
        forward = around.session.current()
        if not around.turn(forward):
            around.rest(x, forward)
            return self.fn_ref.original_forward(x, *args, **kwargs)
        assigned = forward.assigned[around.layer]
        output = self.fn_ref.original_forward(around.merged(x, forward, assigned), *args, **kwargs)
        return around.restored(output, assigned)


class WholeBlockHook(ModelHook):
    """Runs a block on fewer image tokens."""

    def __init__(self, around: Around) -> None:
        super().__init__()
        self.around = around
        self.parameters = list(inspect.signature(type(around.block).forward).parameters)[1:]

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Runs it on fewer tokens, whose rows of per-token arguments are gathered, and un-merges its update."""
        around, family = self.around, self.around.family
        forward, given = around.session.current(), list(args)

        def find(name: str) -> Any:
            place = self.parameters.index(name) if name in self.parameters else len(given)
            return kwargs.get(name, given[place] if place < len(given) else None)

        def change(name: str, value: Any) -> None:
            if name in kwargs:
                kwargs[name] = value
            else:
                given[self.parameters.index(name)] = value

        x: Tensor = find(family.tokens)
        if not around.turn(forward):
            around.rest(x, forward)
            return self.fn_ref.original_forward(*args, **kwargs)
        assigned = around.assign(x, forward)
        merged = around.merged(x, forward, assigned)
        change(family.tokens, merged)
        for argument_ in family.per_token:
            value = find(argument_.name)
            if value is not None:
                change(argument_.name, self._gathered(argument_, value, kept(assigned, x.shape[0]), forward))
        output = self.fn_ref.original_forward(*given, **kwargs)
        if isinstance(output, Tensor):
            return self._updated(x, merged, output, forward, assigned)
        parts = list(output)
        parts[family.output] = self._updated(x, merged, parts[family.output], forward, assigned)
        return tuple(parts)

    def _updated(self, x: Tensor, merged: Tensor, output: Tensor, forward: Forward, assigned: Assigned) -> Tensor:
        """The image's tokens with the update of what they merged into; text as the block gives it."""
        around, tokens = self.around, forward.image_tokens
        start = around.start(x.shape[1], tokens)
        end = start + sum(left(span, assignment) for span, assignment in assigned)
        update = around.restored(output - merged, assigned)[:, start : start + tokens]
        return torch.cat([output[:, :start], x[:, start : start + tokens] + update, output[:, end:]], 1)

    def _gathered(self, per_token: PerToken, value: Any, index: Tensor, forward: Forward) -> Any:
        """The rows of the tokens that are left, of a tensor or of several alike."""
        if isinstance(value, tuple | list):
            chosen = [
                one if per_token.first and number else self._gathered(per_token, one, index, forward)
                for number, one in enumerate(value)
            ]
            return tuple(chosen)
        axis, tokens = per_token.axis, forward.image_tokens
        length = value.shape[axis]
        if length < tokens:  # one row for all tokens
            return value
        start = self.around.start(length, tokens)
        batch, every = index.shape[0], torch.arange(length, device=index.device)
        before, after = (part.expand(batch, -1) for part in (every[:start], every[start + tokens :]))
        rows = torch.cat([before, index + start, after], 1)
        if per_token.shared:
            self._check_shared(per_token, rows)
            return value.index_select(axis, rows[0])
        value = value.expand(batch, *value.shape[1:])
        shape = [batch] + [1] * (value.dim() - 1)
        shape[axis] = rows.shape[1]
        target = [*value.shape]
        target[axis] = rows.shape[1]
        return value.gather(axis, rows.view(shape).expand(target))

    def _check_shared(self, per_token: PerToken, rows: Tensor) -> None:
        """Refuses rows that keep different tokens where they have one position each; it waits for the device."""
        if len(rows) == 1:
            return
        what = f"{per_token.name} of {self.around.name} is one for all rows"
        if torch.compiler.is_compiling():
            raise ValueError(
                f"batch must be 1 in a compiled forward that merges around blocks here, as {what}, not {len(rows)}"
            )
        if not torch.equal(rows, rows[:1].expand_as(rows)):
            raise ValueError(
                f"rows must keep the same tokens, as {what}: run one image at a time, a batch of 1, or merge all "
                f"blocks alike, such as abm at its limit, not {self.around.method} with {len(rows)} rows that differ"
            )
