"""Layers that mix pixels by a rule: the window of the layer's input that each output sees."""

from torch import nn

from lab.tracing.watch import Opaque

POOLS = (nn.MaxPool2d, nn.AvgPool2d)
ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)
RULED = (nn.Conv2d, *POOLS, *ADAPTIVE, nn.ZeroPad2d, nn.Linear)


def has_rule(module):
    """Whether a module does exactly what torch's own layer of its kind does."""
    kind = next((kind for kind in RULED if isinstance(module, kind)), None)
    steps = ("forward", "_conv_forward")
    return kind is not None and all(
        getattr(type(module), step, None) is getattr(kind, step, None) and step not in vars(module) for step in steps
    )


def window(module, label, given, output):
    """(kernel, stride, padding, dilation) of a module that has a rule, as it made `output` of the tensor `given`.

    Raises: Opaque beginning with the label, if the window is not square, or not traced on what was given.
    """
    where = f"{side_of(given)}x{side_of(given)}"
    if given.ndim != (2 if isinstance(module, nn.Linear) else 4):
        raise Opaque(f"{label} on a {where} map moves pixels in a way that is not traced")
    if isinstance(module, nn.Conv2d):
        return _convolution_window(module, label)
    if isinstance(module, POOLS):
        sides = [_only(side, label) for side in (module.kernel_size, module.stride, module.padding)]
        return *sides, _only(getattr(module, "dilation", 1), label)
    if isinstance(module, nn.ZeroPad2d):
        return 1, 1, _only(module.padding, label), 1  # a negative padding cuts pixels off
    if isinstance(module, ADAPTIVE):
        sides = tuple(output.shape[2:])
        if given.shape[-1] % sides[-1] or len(set(sides)) > 1:
            raise Opaque(f"{label} pools {where} to {sides}; only a square that divides it evenly is traced")
        kernel = given.shape[-1] // sides[-1]
        return kernel, kernel, 0, 1
    return 1, 1, 0, 1


def _convolution_window(module, label):
    kernel, dilation = _only(tuple(module.weight.shape[2:]), label), _only(module.dilation, label)
    reach = (kernel - 1) * dilation
    same = {"same": reach // 2, "valid": 0}  # torch pads an odd remainder at the far end
    padding = same[module.padding] if isinstance(module.padding, str) else _only(module.padding, label)
    from_outside = {"zeros": False, "circular": padding > 0}
    # a window that reaches as far in as out contains every pixel that is mirrored or repeated for it
    if from_outside.get(module.padding_mode, 2 * padding > reach):
        raise Opaque(f"{label} pads with pixels from outside its window: padding_mode={module.padding_mode!r}")
    return kernel, _only(module.stride, label), padding, dilation


def _only(value, label):
    sides = set(value) if isinstance(value, tuple | list) else {value}
    if len(sides) > 1:
        raise Opaque(f"{label} has {value} where only squares are traced")
    return sides.pop()


def side_of(activations):
    """Pixels per side of the maps that a tensor holds; 1 if it holds none."""
    return activations.shape[-1] if activations.ndim == 4 else 1
