"""Attaching hooks to a model and taking them off again, beside the hooks and wrappers of others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffusers.hooks import HookRegistry, ModelHook
from torch import nn

NAME = "bigain"
GRID, ENTRY = f"{NAME}.grid", f"{NAME}.entry"
_NAMES = (GRID, ENTRY, NAME)


def attach(module: nn.Module, hook: ModelHook, name: str) -> None:
    """Registers a hook; of several on one module the last runs first."""
    with _beneath_accelerate(module):
        HookRegistry.check_if_exists_or_initialize(module).register_hook(hook, name)


def detach(model: nn.Module) -> None:
    """Takes every hook of this package off, and leaves those of others as they are."""
    for module in model.modules():
        registry = _registry(module)
        names = [name for name in _NAMES if registry is not None and registry.get_hook(name) is not None]
        if registry is not None and names:
            with _beneath_accelerate(module):
                for name in names:
                    _remove(registry, name)
            registry.invalidate_child_registries_cache()


def has_other_hooks(model: nn.Module) -> bool:
    """Whether anyone else has registered a hook, such as a cache, which may leave modules out of a forward."""
    registries = (_registry(module) for module in model.modules())
    return any(name not in _NAMES for registry in registries if registry is not None for name in registry.hooks)


def _registry(module: nn.Module) -> HookRegistry | None:
    return getattr(module, "_diffusers_hook", None)


def _remove(registry: HookRegistry, name: str) -> None:
    """`HookRegistry.remove_hook`, which (in diffusers 0.42) cuts off a hook above that has a forward of its own."""
    place = registry._hook_order.index(name)
    above = registry._fn_refs[place + 1] if place + 1 < len(registry._fn_refs) else None
    own = above.forward if above is not None and above.original_forward is not None else None
    registry.remove_hook(name, recurse=False)
    if above is not None and own is not None:
        above.original_forward, above.forward = above.forward, own


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
