"""Attaching hooks to a model and taking them off again, among the hooks and wrappers of others.

Private parts of others are used here and nowhere else: of diffusers' `HookRegistry` the lists `_hook_order` and
`_fn_refs` and the references in them, and the `_old_forward` that accelerate's wrappers keep.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers.hooks import HookRegistry, ModelHook
from torch import nn

NAME = "bigain"
GRID, ENTRY = f"{NAME}.grid", f"{NAME}.entry"
_NAMES = (GRID, ENTRY, NAME)


def attach(module: nn.Module, hook: ModelHook, name: str) -> None:
    """Registers a hook; of several on one module the last runs first."""
    with _beneath_accelerate(module):
        HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, name)
        hook.wrapper = module.forward  # what whoever stands above calls to call this hook


def detach(model: nn.Module) -> bool:
    """Takes every hook of this package off, and leaves those of others as they are; whether there was any.

    Raises:
        RuntimeError: something replaced a forward since and hides its hook; names the module. All hooks are still on.
    """
    hooked = [
        (module, registry, name)
        for module, registry in _registries(model)
        for name in _NAMES
        if registry.get_hook(name) is not None
    ]
    for module, registry, name in hooked:
        if not _callers(module, registry, registry.hooks[name]):
            raise RuntimeError(
                f"the forward of a {type(module).__name__} was replaced while it was compressed, so that its hook "
                f"cannot be taken off: put that forward back as it was, then call remove() again"
            )
    for module, registry, name in hooked:
        if hasattr(registry.hooks[name], "undo"):
            registry.hooks[name].undo()
        _remove(module, registry, name)
        registry.invalidate_child_registries_cache()
    return bool(hooked)


def has_skipping_hooks(model: nn.Module) -> bool:
    """Whether anyone else has put a forward of their own in place of a module's: a cache, which may leave it out."""
    return any(
        name not in _NAMES and hasattr(hook, "new_forward")
        for _, registry in _registries(model)
        for name, hook in registry.hooks.items()
    )


def _registries(model: nn.Module) -> Iterator[tuple[nn.Module, HookRegistry]]:
    """Modules with a registry of their own: a compiled module shows the attributes of what it compiles as its own."""
    for module in model.modules():
        if "_diffusers_hook" in module.__dict__:
            yield module, module.__dict__["_diffusers_hook"]


def _remove(module: nn.Module, registry: HookRegistry, name: str) -> None:
    """Whoever called the hook, a wrapper or another hook, calls then what the hook called.

    `HookRegistry.remove_hook` (diffusers 0.42) cuts off a hook above that has a forward of its own, and knows nothing
    of accelerate's wrappers. Where the class's own forward is left, the module keeps no attribute over it: whoever
    exchanges the class of a module later, as tomesd does, would exchange nothing.
    """
    hook, place = registry.hooks[name], registry._hook_order.index(name)
    below = hook.fn_ref.forward if hook.fn_ref.original_forward is None else hook.fn_ref.original_forward
    for attributes, attribute in _callers(module, registry, hook):
        attributes[attribute] = below
    if module.__dict__.get("forward") is below and _is_of_the_class(module, below):
        del module.__dict__["forward"]
    del registry.hooks[name], registry._hook_order[place], registry._fn_refs[place]


def _is_of_the_class(module: nn.Module, forward: Any) -> bool:
    """Whether a forward is the bound method of the module's class, or of one that this stands on."""
    defined = [parent.__dict__.get("forward") for parent in type(module).__mro__]
    return getattr(forward, "__self__", None) is module and forward.__func__ in defined


def _callers(module: nn.Module, registry: HookRegistry, hook: ModelHook) -> list[tuple[dict[str, Any], str]]:
    """Where the forward that calls a hook is kept: attributes of what stands above it, with their names."""
    return [
        (holder.__dict__, attribute)
        for holder in (module, *registry._fn_refs)
        for attribute in ("forward", "_old_forward", "original_forward")
        if holder.__dict__.get(attribute) is hook.wrapper
    ]


@contextmanager
def _beneath_accelerate(module: nn.Module) -> Iterator[None]:
    """Inside, ``module.forward`` is what accelerate's wrapper of it calls (offloading to the CPU, device maps).

    A pipeline takes that wrapper off after every call and puts it on again, and what had been put around it is lost.
    """
    if "_old_forward" not in module.__dict__:
        yield
        return
    attributes = module.__dict__  # where accelerate keeps both; set so, they are no parameters and no buffers
    wrapper, attributes["forward"] = attributes["forward"], attributes["_old_forward"]
    try:
        yield
    finally:
        attributes["_old_forward"], attributes["forward"] = attributes["forward"], wrapper
