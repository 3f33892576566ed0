"""The hooks: on the root, where the grid is seen, where a level begins, on each block, and on its attentions and MLP.

They are registered as any hook of diffusers: no class is swapped, no attention processor replaced and no forward
copied, so LoRA, IP-Adapter, custom processors and torch.compile go on working. To be registered and removed among the
hooks of others takes private parts of diffusers and accelerate, all in `bigain.backbones.attachment`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers.hooks import ModelHook
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from bigain.backbones.attachment import has_skipping_hooks
from bigain.backbones.families import Layer
from bigain.backbones.state import Alike, Forward, Seen, Session
from bigain.methods import Context, TokenDownsampling, TokenMerging
from bigain.methods.base import Location
from bigain.operators.assignment import Assignment, key_bias, merge, unmerge
from bigain.operators.grid import Grid


class NothingCompressedError(RuntimeError, ValueError):
    """A forward ran under a method and no token was taken away: the settings do not fit the grid."""


def argument(module: nn.Module, name: str) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]:
    """Finds an argument of a module's forward by name, however the caller passed it; None where it was left out."""
    parameters = list(inspect.signature(type(module).forward).parameters)[1:]  # without self
    place = parameters.index(name) if name in parameters else None

    def find(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in kwargs:
            return kwargs[name]
        return None if place is None or place >= len(args) else args[place]

    return find


class RootHook(ModelHook):
    """Begins and ends the state of a forward."""

    def __init__(self, session: Session, module: nn.Module, sample: str, timestep: str = "timestep") -> None:
        super().__init__()
        self.session = session
        self.module = module
        self.sample = sample
        self.find_sample, self.find_timestep = argument(module, sample), argument(module, timestep)

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Refuses a copy of the model."""
        if module is not self.module:
            raise RuntimeError(
                f"this {type(module).__name__} is a copy of a compressed one, and its hooks would run the weights of "
                f"that: call bigain.remove() on the copy, then apply() to it"
            )
        return args, kwargs

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Runs a forward with a state of its own, and checks that it was compressed."""
        session, kind = self.session, type(module).__name__
        if session.forward is not None:
            raise RuntimeError(
                f"a forward of this {kind} is in progress already: a compressed model runs one at a time, so give each "
                f"thread a model of its own"
            )
        forward = session.forward = self._begin(module, args, kwargs)
        try:
            forward.resting = session.resting_in(forward)
            output = self.fn_ref.original_forward(*args, **kwargs)
        finally:
            session.forward = None
        self._end(module, forward)
        return output

    def _end(self, module: nn.Module, forward: Forward) -> None:
        self._check_compressed(module, forward)

    def _check_compressed(self, module: nn.Module, forward: Forward) -> None:
        """Refuses a forward in which a method took no token away, unless its settings or a cache say so."""
        methods, kind = self.session.methods, type(module).__name__
        required = [number for number, method in enumerate(methods) if not (method.is_identity or method.is_scheduled)]
        acting = [number for number in required if not forward.rests(number)]
        idle = [number for number in acting if not forward.compressed.get(number)]
        for number in idle:
            if number in forward.compressed:
                raise NothingCompressedError(
                    f"{methods[number]} must take tokens away, but nothing was compressed by it in a forward of "
                    f"{kind}: use a larger ratio, another cell, other levels or layers"
                )
        if idle and not has_skipping_hooks(module):  # a cache may leave blocks or attentions out of a forward
            raise NothingCompressedError(
                f"the layers of {methods[idle[0]]} must be in a forward of this {kind}, but none was: were they "
                f"exchanged after apply()? Then remove() and apply() again"
            )

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Forward:
        sample = self.find_sample(args, kwargs)
        if sample is None:
            raise TypeError(f"{type(module).__name__} must be called with {self.sample}")
        batch, device = len(sample), sample[0].device
        timestep = self.find_timestep(args, kwargs)
        if timestep is not None:
            timestep = torch.as_tensor(timestep, device=device)
            if timestep.dim() == 2:  # of each token, where what conditions a video is clean
                timestep = timestep.amax(1)
            timestep = timestep.reshape(-1).expand(batch)
        session = self.session
        image_keys, draw_keys = (_per_row(own, batch, device) for own in (session.image_keys, session.draw_keys))
        return Forward(timestep, image_keys, draw_keys, alike=_alike(session, batch, device))


def _per_row(keys: Tensor | None, batch: int, device: torch.device) -> Tensor | None:
    """Keys (B,), repeated where classifier-free guidance stacks the batch several times."""
    if keys is None:
        return None
    if batch % keys.shape[0]:
        raise ValueError(
            f"row_keys must be one per row, guidance aside, not {keys.shape[0]} rows for a batch of {batch}"
        )
    return keys.to(device).repeat(batch // keys.shape[0])


def _alike(session: Session, batch: int, device: torch.device) -> Alike | None:
    """Which rows are alike, where some are; None in a graph, whose shapes they would change in every forward."""
    if session.alike is None or not session.shares or torch.compiler.is_compiling():
        return None
    kinds, kind = torch.unique(session.alike.cpu(), return_inverse=True)
    if len(kinds) == batch:
        return None
    first = torch.full_like(kinds, len(kind)).scatter_reduce(0, kind, torch.arange(len(kind)), "amin")
    return Alike(first.to(device), kind.to(device).repeat(batch // len(kind)))


def without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Tokens are scored and compared in the precision that the operators choose, which autocast would lower."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


class EnteringHook(ModelHook):
    """Shows the tokens that enter a module to ``see``, with the forward, and changes nothing."""

    def __init__(
        self, session: Session, module: nn.Module, see: Callable[[Tensor, Forward], object], name: str = "hidden_states"
    ) -> None:
        super().__init__()
        self.session = session
        self.find_entering = argument(module, name)
        self.see = see

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Shows what enters."""
        self.see(self.find_entering(args, kwargs), self.session.current())
        return args, kwargs


def see_grid(patch: int, entering: Tensor, forward: Forward) -> None:
    """Notes the token grid at the input (B, C, h·patch, w·patch) of a module."""
    forward.grid = Grid(entering.shape[-2] // patch, entering.shape[-1] // patch)


def see_entry(level: int, entering: Tensor, forward: Forward) -> None:
    """Keeps the tokens that enter the first block of a level."""
    forward.entered[level] = entering


class BlockHook(EnteringHook):
    """Holds what the hooks inside one block share: the tokens to match and the block's assignment."""

    def __init__(self, session: Session, layer: Layer, number: int) -> None:
        super().__init__(session, layer.block, self._begin)
        self.name = layer.name
        self.block = layer.block
        self.layer = number
        self.level = layer.level
        self.mergings = session.acting(TokenMerging, layer.level, number)
        self.downsamplings = session.acting(TokenDownsampling, layer.level, number)
        # What acts at the t of the forward in progress, and its place among all methods.
        self.merging: TokenMerging | None = None
        self.downsampling: TokenDownsampling | None = None
        self.merging_number = self.downsampling_number = -1
        # Token counts of the latest forward, for the summary; written, never read, by the hooks.
        self.grid: Grid | None = None
        self.queries = self.keys = self.cross_queries = self.cross_keys = self.mlp_tokens = 0
        self.assigned = False  # whether the block made an assignment
        self.matched = False  # whether tokens were compared for it

    def _begin(self, entering: Tensor, forward: Forward) -> None:
        if forward.grid is None:
            raise RuntimeError("a block of a compressed model ran before the token grid was seen")
        context = Context(forward.grid, self.layer, forward.timestep, forward.image_keys, forward.draw_keys)
        if entering.shape[1] != context.grid.tokens:
            raise ValueError(
                f"{self.name} must be given the {context.grid.tokens} tokens of a {context.grid.height}x"
                f"{context.grid.width} grid, not {entering.shape[1]}"
            )
        self.merging, self.merging_number = forward.acting(self.mergings)
        self.downsampling, self.downsampling_number = forward.acting(self.downsamplings)
        for method in (self.merging, self.downsampling):
            if method is not None:
                method.check(context.grid)
        by_first = self.merging is not None and self.merging.features == "first"
        forward.context, forward.block_input = context, entering
        forward.features = forward.entered[self.level] if by_first else entering
        forward.assignment = None
        self.grid = context.grid
        self.assigned = self.matched = False

    def merged(self, tokens: Tensor, location: Location) -> tuple[Tensor, Assignment | None]:
        """What tokens (B, N, C) at ``location`` merge into, (B, M, C), and how; they and None where they do not."""
        merging = self.merging
        if merging is None or location not in merging.locations:
            return tokens, None
        forward = self.session.current()
        if location == "mlp" and tokens.shape[:2] != forward.block_input.shape[:2]:
            raise ValueError(
                f"{self.name}.ff must be given all rows and tokens at once where it merges, not a chunk of "
                f"{tuple(tokens.shape[:2])}: call set_chunk_feed_forward(None) on its block, or leave 'mlp' out "
                f"of locations"
            )
        if forward.assignment is None:
            forward.assignment = self._assign(merging, forward)
        assignment = forward.assignment
        forward.note(self.merging_number, assignment.groups < tokens.shape[1])
        if location == "self_attention" and self.session.observer is not None:  # where all merge, and a block's first
            met, features = forward.block_input.detach(), forward.features.detach()
            self.session.observer(Seen(self.name, merging, met, features, forward.context, assignment, self.assigned))
        return merge(tokens, assignment, merging.operator), assignment

    def _assign(self, merging: TokenMerging, forward: Forward) -> Assignment:
        """The block's assignment: one for all blocks of the level where it is cached."""
        key = (self.level, self.merging_number)
        if merging.cached and key in forward.cached:
            return forward.cached[key]
        features, alike = forward.features, forward.alike
        shared = alike is not None and merging.features == "first" and not merging.redraws
        with without_autocast(features):
            if alike is not None and shared:
                assignment = merging.assign(features[alike.first].detach(), forward.context.rows(alike.first))
                assignment = assignment.rows(alike.kind)
            else:
                assignment = merging.assign(features.detach(), forward.context)
        self.assigned = True
        self.matched = assignment.groups < features.shape[1] or assignment.padded
        if merging.cached:
            forward.cached[key] = assignment
        return assignment

    def pooled(self, tokens: Tensor, method: TokenDownsampling) -> Tensor:
        """Tokens (B, M, C) that take the place of the input (B, N, C) of self-attention as its keys and values."""
        forward = self.session.current()
        with without_autocast(tokens):
            sources = method.pool(tokens, forward.context)
        forward.note(self.downsampling_number, sources.shape[1] < tokens.shape[1])
        if self.session.observer is not None:
            self.session.observer(Seen(self.name, method, tokens.detach(), None, forward.context, None))
        return sources


class AttentionHook(ModelHook):
    """Merges tokens around an attention, or gives it pooled or merged keys and values."""

    def __init__(self, block: BlockHook, name: str) -> None:
        super().__init__()
        self.block = block
        self.name = name

    def new_forward(
        self,
        module: Attention,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Runs self-attention, or cross-attention where there are encoder_hidden_states, on fewer tokens."""
        attend = self.fn_ref.original_forward
        if encoder_hidden_states is not None:
            return self._cross(hidden_states, encoder_hidden_states, attention_mask=attention_mask, **kwargs)
        block = self.block
        merged, assignment = block.merged(hidden_states, "self_attention")
        if assignment is None and block.downsampling is None:
            block.queries = block.keys = hidden_states.shape[1]
            return attend(hidden_states, attention_mask=attention_mask, **kwargs)
        if attention_mask is not None:
            raise ValueError(f"{self.name} must have no attention_mask over tokens, which compression cannot keep to")
        queries, sources, bias = merged, None, None
        if assignment is not None and block.merging is not None:
            bias = key_bias(assignment, bool(block.merging.size_aware))
            if block.merging.queries == "full":
                queries, sources = hidden_states, merged
        if block.downsampling is not None:
            sources, bias = block.pooled(hidden_states, block.downsampling), None
        if sources is not None:
            check_not_fused(module, self.name)
        block.queries = queries.shape[1]
        block.keys = queries.shape[1] if sources is None else sources.shape[1]
        mask = None if bias is None else bias.to(queries.dtype)
        output = attend(queries, encoder_hidden_states=sources, attention_mask=mask, **kwargs)
        return output if assignment is None or queries is hidden_states else unmerge(output, assignment)

    def _cross(self, hidden_states: Tensor, encoder_hidden_states: Any, **kwargs: Any) -> Tensor:
        # IP-Adapter passes (text, image tokens) as encoder_hidden_states, which goes through as it is.
        queries, assignment = self.block.merged(hidden_states, "cross_attention")
        if assignment is not None and "ip_adapter_masks" in kwargs:
            raise ValueError("locations must do without 'cross_attention' where ip_adapter_masks need every token")
        text = encoder_hidden_states[0] if isinstance(encoder_hidden_states, tuple) else encoder_hidden_states
        self.block.cross_queries, self.block.cross_keys = queries.shape[1], text.shape[1]
        output = self.fn_ref.original_forward(queries, encoder_hidden_states=encoder_hidden_states, **kwargs)
        return output if assignment is None else unmerge(output, assignment)


class MLPHook(ModelHook):
    """Merges tokens around a block's feed-forward."""

    def __init__(self, block: BlockHook) -> None:
        super().__init__()
        self.block = block

    def new_forward(self, module: nn.Module, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Runs the feed-forward on fewer tokens."""
        merged, assignment = self.block.merged(hidden_states, "mlp")
        self.block.mlp_tokens = merged.shape[1]
        output = self.fn_ref.original_forward(merged, *args, **kwargs)
        return output if assignment is None else unmerge(output, assignment)


def check_not_fused(module: Attention, name: str) -> None:
    """Refuses fused projections, which take queries, keys and values from the same tokens."""
    if getattr(module, "fused_projections", False):
        raise ValueError(
            f"{name} must have separate projections for its keys and values, not fused ones: call "
            f"unfuse_qkv_projections() first"
        )
