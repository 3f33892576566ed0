"""Twins of attention processors, whose keys and values pass through ours on their way into the attention.

A twin runs the code of the processor itself, over names of which two are ours: diffusers' `dispatch_attention_fn` and
PyTorch's functional module. So it reaches keys and values after their norms and rotary embedding, in every family that
attends by one of the two, and stays what it was in all else: its class is a subclass, its state the same dictionary.
Private parts of diffusers are used here for one thing: its registry of processors, which looks classes up exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeAlias

from diffusers.hooks._helpers import AttentionProcessorRegistry
from torch import Tensor
from torch.nn import functional

from bigain.backbones.joining import Call, joined

Through: TypeAlias = Callable[[Tensor, Tensor, Tensor, Tensor | None, Any], list[Call]]
"""Of query, key, value (B, S, H, D), mask or None, and backend or None: the keys, values and mask in their place.

It is one call, or several where the backend takes no mask.
"""

_NATIVE = "native"  # what PyTorch's function is among diffusers' backends
_DISPATCH, _FUSED = "dispatch_attention_fn", "scaled_dot_product_attention"


def twin_of(processor: Any, through: Through, name: str) -> Any:
    """A processor like ``processor``, the one at ``name`` in its model, whose attention goes ``through``.

    TypeError where its code attends by neither of the two functions, as linear attention does, or in a helper.
    """
    kind = type(processor)
    call = kind.__call__
    code = getattr(call, "__code__", None)
    if not isinstance(call, FunctionType) or code is None or not {_DISPATCH, _FUSED} & {*code.co_names}:
        raise TypeError(
            f"{name} must attend by {_DISPATCH} or {_FUSED} in its processor to be compressed, not by a {kind.__name__}"
        )
    # Without its name the scope stands for itself: torch.compile looks a module's names up in the module.
    scope = {key: value for key, value in call.__globals__.items() if key != "__name__"}
    for key in code.co_names:
        if key == _DISPATCH:
            scope[key] = _through_dispatch(scope[key], through)
        elif scope.get(key) is functional:
            scope[key] = _Functional(through)
    own = FunctionType(code, scope, call.__name__, call.__defaults__, call.__closure__)
    own.__kwdefaults__ = call.__kwdefaults__
    made = type(
        kind.__name__, (kind,), {"__call__": own, "__module__": kind.__module__, "__qualname__": kind.__qualname__}
    )
    result: Any = object.__new__(made)
    result.__dict__ = processor.__dict__
    AttentionProcessorRegistry._register()
    if kind in AttentionProcessorRegistry._registry:
        AttentionProcessorRegistry.register(made, AttentionProcessorRegistry.get(kind))
    return result


def forget(twin: Any) -> None:
    """Takes the class of a twin out of diffusers' registry."""
    AttentionProcessorRegistry._registry.pop(type(twin), None)


def _through_dispatch(dispatch: Any, through: Through) -> Any:
    def dispatched(query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any) -> Any:
        calls = through(query, key, value, attn_mask, options.get("backend"))
        if len(calls) > 1:
            return joined(dispatch, query, calls, options)
        return dispatch(query, calls[0].key, calls[0].value, attn_mask=calls[0].mask, **options)

    return dispatched


class _Functional:
    """`torch.nn.functional`, but for the attention."""

    def __init__(self, through: Through) -> None:
        self._through = through

    def __getattr__(self, name: str) -> Any:
        return getattr(functional, name)

    def scaled_dot_product_attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, **options: Any
    ) -> Tensor:
        """The attention of (B, H, S, D) on other keys and values."""
        rows = [x.transpose(1, 2) for x in (query, key, value)]
        [call] = self._through(rows[0], rows[1], rows[2], attn_mask, _NATIVE)
        key, value = call.key.transpose(1, 2), call.value.transpose(1, 2)
        return functional.scaled_dot_product_attention(query, key, value, attn_mask=call.mask, **options)
