"""The hooks: on the root, where the grid is seen, where a level begins, on each block, and on its attentions and MLP.

Only the public hook mechanism of diffusers is used: no class is swapped, no attention processor replaced and no
forward copied, so LoRA, IP-Adapter, custom processors and torch.compile go on working.
"""

from __future__ import annotations

import inspect
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from diffusers.hooks import ModelHook
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from bigain.backbones.attachment import has_skipping_hooks
from bigain.backbones.state import Forward, Session
from bigain.methods.base import Location
from bigain.operators.assignment import Assignment, key_bias, merge, unmerge
from bigain.operators.grid import Grid


class NothingCompressedError(RuntimeError, ValueError):
    """A forward ran under a method and no token was taken away: the settings do not fit the grid."""


class Arguments:
    """Finds an argument of a module's forward by name, however the caller passed it."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        parameters = list(inspect.signature(type(module).forward).parameters)[1:]  # without self
        self.places = {name: parameters.index(name) for name in names if name in parameters}

    def get(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if name in kwargs:
            return kwargs[name]
        place = self.places.get(name, len(args))
        return args[place] if place < len(args) else None


class RootHook(ModelHook):
    """Begins and ends the state of a forward."""

    def __init__(self, session: Session, module: nn.Module, sample: str) -> None:
        super().__init__()
        self.session = session
        self.module = module
        self.sample = sample
        self.arguments = Arguments(module, (sample, "timestep"))

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if module is not self.module:
            raise RuntimeError(
                f"this {type(module).__name__} is a copy of a compressed one, and its hooks would run the weights of "
                f"that: call bigain.remove() on the copy, then apply() to it"
            )
        return args, kwargs

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        session, kind = self.session, type(module).__name__
        if session.forward is not None:
            raise RuntimeError(
                f"a forward of this {kind} is in progress already: a compressed model runs one at a time, so give each "
                f"thread a model of its own"
            )
        forward = session.forward = self._begin(module, args, kwargs)
        try:
            output = self.fn_ref.original_forward(*args, **kwargs)
        finally:
            session.forward = None
        if not forward.compressed and session.plan.must_compress:
            if forward.reached:
                raise NothingCompressedError(
                    f"a forward of {kind} ran and nothing was compressed: the method's settings take no token away on "
                    f"this grid; use a larger ratio, another cell, other levels or layers"
                )
            if not has_skipping_hooks(module):  # a cache may leave blocks or attentions out of a forward
                raise NothingCompressedError(
                    f"a forward of {kind} ran and none of the layers that are to be compressed was in it: were they "
                    f"exchanged after apply()? Then remove() and apply() again"
                )
        return output

    def _begin(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Forward:
        sample = self.arguments.get(self.sample, args, kwargs)
        if sample is None:
            raise TypeError(f"{type(module).__name__} was called without {self.sample}")
        batch = sample.shape[0]
        timestep = self.arguments.get("timestep", args, kwargs)
        if timestep is not None:
            timestep = torch.as_tensor(timestep, device=sample.device).reshape(-1).expand(batch)
        return Forward(timestep, _per_row(self.session.image_keys, sample), _per_row(self.session.draw_keys, sample))


def _per_row(keys: Tensor | None, sample: Tensor) -> Tensor | None:
    """Keys (B,), repeated where classifier-free guidance stacks the batch several times."""
    if keys is None:
        return None
    batch = sample.shape[0]
    if batch % keys.shape[0]:
        raise ValueError(
            f"row_keys were given for {keys.shape[0]} rows, but the model was called with a batch of {batch}"
        )
    return keys.to(sample.device).repeat(batch // keys.shape[0])


def _without_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Tokens are scored and compared in the precision that the operators choose, which autocast would lower."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


class GridHook(ModelHook):
    """Sees the token grid at the input (B, C, h·patch, w·patch) of a module."""

    def __init__(self, session: Session, module: nn.Module, patch: int) -> None:
        super().__init__()
        self.session = session
        self.patch = patch
        self.arguments = Arguments(module, ("hidden_states",))

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        shape = self.arguments.get("hidden_states", args, kwargs).shape
        self.session.current().grid = Grid(shape[-2] // self.patch, shape[-1] // self.patch)
        return args, kwargs


class EntryHook(ModelHook):
    """Keeps the tokens that enter the first block of a level."""

    def __init__(self, session: Session, module: nn.Module, level: int) -> None:
        super().__init__()
        self.session = session
        self.level = level
        self.arguments = Arguments(module, ("hidden_states",))

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        self.session.current().entered[self.level] = self.arguments.get("hidden_states", args, kwargs)
        return args, kwargs


class BlockHook(ModelHook):
    """Holds what the hooks inside one block share: the tokens to match and the block's assignment."""

    def __init__(self, session: Session, module: nn.Module, layer: int, level: int) -> None:
        super().__init__()
        self.session = session
        self.layer = layer
        self.level = level
        self.merging = session.plan.merging(level, layer)
        # Under which a cached assignment is kept: one for each method in each level.
        self.cache_key = (level, session.plan.methods.index(self.merging)) if self.merging is not None else None
        self.downsampling = session.plan.downsampling(level, layer)
        self.arguments = Arguments(module, ("hidden_states",))
        # Token counts of the latest forward, for the summary; written, never read, by the hooks.
        self.grid: Grid | None = None
        self.queries = self.keys = self.cross_queries = self.cross_keys = self.mlp_tokens = 0
        self.assigned = False

    def pre_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        forward = self.session.current()
        tokens = self.arguments.get("hidden_states", args, kwargs)
        context = self.session.context(self.layer)
        if tokens.shape[1] != context.grid.tokens:
            raise ValueError(
                f"block {self.layer} was given {tokens.shape[1]} tokens on a grid of "
                f"{context.grid.height}x{context.grid.width}"
            )
        forward.block_input = tokens
        forward.features = self._features(tokens, forward)
        forward.assignment = None
        self.grid = context.grid
        self.assigned = False
        return args, kwargs

    def _features(self, tokens: Tensor, forward: Forward) -> Tensor | None:
        """What the block's assignment is made from; None where nothing merges."""
        if self.merging is None:
            return None
        return forward.entered[self.level] if self.merging.features == "first" else tokens

    def assignment(self, tokens: Tensor, location: Location) -> Assignment | None:
        """The block's assignment, if tokens merge at ``location``; made at its first use.

        Args:
            tokens: (B, N, C), the input of the module at ``location``.
        """
        merging = self.merging
        if merging is None or location not in merging.locations:
            return None
        forward = self.session.current()
        forward.reached = True
        if forward.assignment is None and merging.cached:
            forward.assignment = forward.cached.get(self.cache_key)
        if forward.assignment is None:
            context = self.session.context(self.layer)
            features = forward.features
            assert features is not None  # kept when the block began
            with _without_autocast(features):
                forward.assignment = merging.assign(features.detach(), context)
            self.assigned = True
            if merging.cached:
                forward.cached[self.cache_key] = forward.assignment
        if forward.assignment.groups < tokens.shape[1]:
            forward.compressed = True
        return forward.assignment


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
        attend = self.fn_ref.original_forward
        if encoder_hidden_states is not None:
            return self._cross(attend, hidden_states, encoder_hidden_states, attention_mask, kwargs)
        block = self.block
        assignment = block.assignment(hidden_states, "self_attention")
        if assignment is None and block.downsampling is None:
            block.queries = block.keys = hidden_states.shape[1]
            return attend(hidden_states, attention_mask=attention_mask, **kwargs)
        if attention_mask is not None:
            raise ValueError(f"{self.name} was given an attention_mask over tokens, which compression cannot keep to")
        queries, sources, bias = hidden_states, None, None
        if assignment is not None and block.merging is not None:
            merged = merge(hidden_states, assignment, block.merging.operator)
            bias = key_bias(assignment, block.merging.size_aware)
            if block.merging.queries == "full":
                sources = merged
            else:
                queries = merged
        if block.downsampling is not None:
            with _without_autocast(hidden_states):
                sources = block.downsampling.pool(hidden_states, block.session.context(block.layer))
            bias = None
            block.session.current().compressed = True
        if sources is not None:
            check_not_fused(module, self.name)
        block.queries = queries.shape[1]
        block.keys = queries.shape[1] if sources is None else sources.shape[1]
        mask = None if bias is None else bias.to(queries.dtype)
        output = attend(queries, encoder_hidden_states=sources, attention_mask=mask, **kwargs)
        return output if assignment is None or queries is hidden_states else unmerge(output, assignment)

    def _cross(
        self,
        attend: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Any,
        mask: Tensor | None,
        kwargs: dict[str, Any],
    ) -> Tensor:
        # IP-Adapter passes (text, image tokens) as encoder_hidden_states, which goes through as it is.
        assignment = self.block.assignment(hidden_states, "cross_attention")
        queries = hidden_states
        if assignment is not None and self.block.merging is not None:
            if "ip_adapter_masks" in kwargs:
                raise ValueError("ip_adapter_masks need every token: leave 'cross_attention' out of locations")
            queries = merge(hidden_states, assignment, self.block.merging.operator)
        text = encoder_hidden_states[0] if isinstance(encoder_hidden_states, tuple) else encoder_hidden_states
        self.block.cross_queries, self.block.cross_keys = queries.shape[1], text.shape[1]
        output = attend(queries, encoder_hidden_states=encoder_hidden_states, attention_mask=mask, **kwargs)
        return output if assignment is None else unmerge(output, assignment)


class MLPHook(ModelHook):
    """Merges tokens around a block's feed-forward."""

    def __init__(self, block: BlockHook, name: str) -> None:
        super().__init__()
        self.block = block
        self.name = name

    def new_forward(self, module: nn.Module, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        forward = self.fn_ref.original_forward
        grid = self.block.session.context(self.block.layer).grid
        assignment = self.block.assignment(hidden_states, "mlp")
        if assignment is None or self.block.merging is None:
            self.block.mlp_tokens = hidden_states.shape[1]
            return forward(hidden_states, *args, **kwargs)
        if hidden_states.shape[1] != grid.tokens:
            raise ValueError(
                f"{self.name} was given a chunk of the tokens: disable_forward_chunking() before merging the MLP"
            )
        merged = merge(hidden_states, assignment, self.block.merging.operator)
        self.block.mlp_tokens = merged.shape[1]
        return unmerge(forward(merged, *args, **kwargs), assignment)


def check_not_fused(module: Attention, name: str) -> None:
    """Refuses fused projections, which take queries, keys and values from the same tokens.

    Raises:
        ValueError: names the layer and the way out.
    """
    if getattr(module, "fused_projections", False):
        raise ValueError(f"{name} has fused projections: call unfuse_qkv_projections() before compressing its K and V")


def check_attention(module: Attention, name: str) -> None:
    """Refuses attention that normalises its tokens inside, where merged or pooled tokens would be normalised apart.

    Raises:
        ValueError: names the layer and what stands in the way.
    """
    for part in ("group_norm", "spatial_norm", "norm_cross"):
        if getattr(module, part, None) is not None:
            raise ValueError(
                f"{name} normalises tokens inside the attention ({part}), which compression does not support"
            )
