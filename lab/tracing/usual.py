"""Whether a layer is one of torch's own, as torch makes it.

A layer is usual if a fresh torch layer could replace it: of exactly that type, with every setting as usual, no hook
and no method of its own, and weights of the usual kind that are trained. What is not is refused by name.
"""

import inspect

from torch import nn

TRAITS = ("shape", "dtype", "layout", "device", "requires_grad")  # of a tensor


def layers_of(layer):
    """The layers of an nn.Sequential in the order in which they act, with nested sequences expanded.

    A subclass that works in the same way is allowed. Raises: NotImplementedError for any other.
    """
    if not isinstance(layer, nn.Sequential):
        return [layer]
    usual = nn.Sequential()
    methods = dict(inspect.getmembers(nn.Sequential, inspect.isfunction)) | {"__init__": None}
    found = {name: method and getattr(type(layer), name) for name, method in methods.items()}
    found |= {name: value for name, value in _traits(layer).items() if hasattr(usual, name)}
    expected = methods | _traits(usual)
    _require_same(layer, found | {"_modules": None}, expected | {"_modules": None})
    return [inner for part in layer for inner in layers_of(part)]


def require_usual(layer, usual):
    """Raises: NotImplementedError naming the layer and what differs from `usual`, a layer that torch has just made."""
    require_known(layer, type(layer) is type(usual))
    _require_same(layer, _traits(layer), _traits(usual))


def require_own_weights(network):
    """Raises: NotImplementedError if layers share a tensor, or one belongs to no layer; a convolution may act twice."""
    layers = layers_of(network)
    convolutions = {layer for layer in layers if type(layer) is nn.Conv2d}
    others = [layer for layer in layers if layer not in convolutions]
    tensors = [part for layer in (*convolutions, *others) for part in (layer._parameters | layer._buffers).values()]
    places = {tensor.untyped_storage().data_ptr() for tensor in (*network.parameters(), *network.buffers())}
    if sum(tensor is not None for tensor in tensors) != len(places):
        raise NotImplementedError("it does not know weights that are shared like this, or that belong to no layer")


def _require_same(layer, found, expected):
    for name in expected | found:
        one, other = found.get(name), expected.get(name)
        require_known(layer, type(one) is type(other) and one == other, f": its {name} is not as usual")


def _traits(layer):
    """Everything about a layer, by name, except the values of its weights and statistics."""
    traits = {name: value for name, value in vars(layer).items() if name not in ("_parameters", "_buffers", "training")}
    for name, tensor in (layer._parameters | layer._buffers).items():
        traits |= {f"{name}.{trait}": getattr(tensor, trait, None) for trait in TRAITS}
        hooks = [getattr(tensor, kind, None) for kind in ("_backward_hooks", "_post_accumulate_grad_hooks")]
        traits |= {f"type of {name}": type(tensor), f"hooks of {name}": any(hooks)}
    return traits


def require_known(layer, known, reason=" in this place"):
    """Raises: NotImplementedError naming the layer, with a reason, unless it is known."""
    if not known:
        inner = [type(part).__name__ for part in getattr(layer, "_modules", {}).values()]
        name = f"{type(layer).__name__}({', '.join(inner)})" if inner else str(layer)
        raise NotImplementedError(f"it does not know {name}{reason}")
