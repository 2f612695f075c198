"""What happens to images between the layers of a network, operation by operation.

Between two layers a network may do anything that leaves every pixel in place and mixes it with no other: `F.relu(x)`,
`x * scale`, `x * x.sigmoid()`, `x.flatten(1)` once a map is 1x1. Torch shows a Watch every operation that it is asked
for. The Watch remembers how many layers each tensor has passed, and what was done to it that cannot be followed.
"""

from typing import NamedTuple

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

# names of torch's operations, without the _ of those that write in place
SHAPES = {"_reshape_alias", "_to_copy", "_unsafe_view", "alias", "cat", "clone", "copy", "detach", "expand"}
SHAPES |= {"lift_fresh", "repeat", "slice", "split", "squeeze", "unsqueeze", "view"}  # height and width must not change
POINTWISE = {"_prelu_kernel", "celu", "elu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu"}
POINTWISE |= {"log_sigmoid_forward", "masked_fill", "mish", "native_dropout", "rrelu_with_noise", "softplus"}
POINTWISE |= {"softshrink", "threshold"}  # that torch, or an early version of it, does not tag as pointwise
SOFTMAXES = {"_log_softmax", "_softmax"}
OVER_PIXELS = {"native_group_norm", "native_layer_norm"}  # of one image
NORMS = {"_batch_norm_no_update", "_native_batch_norm_legit_no_training", "cudnn_batch_norm", "miopen_batch_norm"}
NORMS |= {"native_batch_norm"}
SHAPE_ONLY = {"empty_like", "full_like", "new_empty", "new_empty_strided", "new_full", "new_ones", "new_zeros"}
SHAPE_ONLY |= {"ones_like", "rand_like", "randint_like", "randn_like", "zeros_like"}  # they read no pixel
READERS = {"__array__", "__dlpack__", "apply_", "data_ptr", "map2_", "map_", "numpy", "tolist"}  # methods of tensors


class Opaque(ValueError):
    """What a network does to its images cannot be followed."""


class Mark(NamedTuple):
    """What is known of a tensor that depends on the images: how many layers it has passed, and what hides the rest."""

    stage: int
    reason: str | None = None  # None: nothing does


class Watch(TorchDispatchMode):
    """A context that follows images through all that torch does to them.

    Tensors are known by their memory, so that views and writing in place are followed, too.

    Args:
        images: float (N, C, height, width).
        name: of the network, for messages.
    Raises: Opaque, when the network takes numbers out of a tensor, since what happens to them is unknown.
    """

    def __init__(self, images, name):
        super().__init__()
        self.name, self.stage = name, 0
        self.inside = None  # the layer at work whose rule is known: what it does meanwhile is not followed
        self._marks = {}  # Mark by address of memory; with the memory itself, so that the address is not reused
        self._mark([images], Mark(0))

    def pass_layer(self, output):
        """Note that the images have passed one more layer, which gave this tensor."""
        self.stage += 1
        self._mark([output], Mark(self.stage))

    def refuse_reading(self, operation):
        raise Opaque(f"{self.name} takes numbers out of a tensor that depends on its images, by {operation!r}")

    def look_up(self, tensors, name="something"):
        """The Mark of some tensors together; None if they do not depend on the images. `name` is what joins them."""
        marks = [self._marks[address][0] for address in map(_address, tensors) if address in self._marks]
        if not marks:
            return None
        reason = next((mark.reason for mark in marks if mark.reason), None)
        if len({mark.stage for mark in marks}) > 1:
            reason = reason or f"{name!r} joins tensors from before and after a layer"
        return Mark(max(mark.stage for mark in marks), reason)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [] if self.inside else [part for part in tensors_in([args, kwargs]) if self.look_up([part])]
        result = func(*args, **kwargs)
        if given:
            settings = dict(zip((argument.name for argument in func._schema.arguments), args, strict=False)) | kwargs
            self._follow(func, settings, given, tensors_in(result))
        return result

    def _follow(self, func, settings, given, made):
        """Mark what an operation has made of marked tensors, and those that it has written into."""
        name = func._schema.name.removeprefix("aten::")
        if name in SHAPE_ONLY:
            return
        writes = {part.name for part in func._schema.arguments if part.alias_info and part.alias_info.is_write}
        written = tensors_in([settings.get(part) for part in writes - {"noise"}])  # which rrelu makes itself
        if not made and not written:
            self.refuse_reading({"_local_scalar_dense": "item"}.get(name, name))
        stage, reason = self.look_up(given, name)
        if reason is None and any(self.look_up([tensor]) is None for tensor in written):
            reason = f"{name!r} writes into a tensor that was there before"
        if reason is None and not _keeps_pixels(func, name.rstrip("_"), settings, given, made):
            reason = f"{name!r} may move pixels or mix them"
        self._mark(made + written, Mark(stage, reason))

    def _mark(self, tensors, mark):
        for tensor in tensors:
            self._marks[_address(tensor)] = mark, _memory(tensor)


class NoReading(TorchFunctionMode):
    """A context in which nothing can be read off a watched tensor behind torch's back, as with `x.numpy()`."""

    def __init__(self, watch):
        super().__init__()
        self.watch = watch

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in READERS and self.watch.look_up(tensors_in(args)):
            self.watch.refuse_reading(name)
        return func(*args, **(kwargs or {}))


def tensors_in(value):
    """All tensors in nested lists, tuples and dictionaries."""
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in tensors_in(part)]


def _keeps_pixels(func, name, settings, given, made):
    """Whether an operation leaves every pixel where it was, and mixes it with no other."""
    maps = {_map(tensor) for tensor in given + made[:1]}  # after the first come tensors that only torch itself uses
    if len(maps) > 1 or None in maps:
        return False
    is_pixel = maps == {(len(given[0]), 1, 1)}
    if name in SOFTMAXES:
        dimension = settings["dim"] % given[0].ndim
        return dimension == 1 or (dimension > 1 and is_pixel)
    if name in OVER_PIXELS | NORMS:
        by_weights = len(given) == 1 and given[0] is settings["input"]
        return by_weights and (is_pixel if name in OVER_PIXELS else not settings.get("training"))
    return name in SHAPES | POINTWISE or torch.Tag.pointwise in func.tags


def _map(tensor):
    """Images, height and width of what a tensor holds; None if it holds no maps in torch's order."""
    if tensor.ndim and tensor.shape[2:].numel() == 1:
        return len(tensor), 1, 1
    return (len(tensor), *tensor.shape[2:]) if tensor.ndim == 4 else None


def _memory(tensor):
    try:
        return tensor.untyped_storage()
    except NotImplementedError:  # a sparse tensor, say, has more than one piece
        return tensor


def _address(tensor):
    memory = _memory(tensor)
    return memory._cdata if isinstance(memory, torch.UntypedStorage) else id(memory)
