"""What each layer of a network sees of its input, in closed form.

The jump is the distance in input pixels between neighbouring outputs. It and the receptive field start at 1:

    receptive_field_out = receptive_field_in + (kernel - 1) * dilation * jump_in
    jump_out            = jump_in * stride

Padding changes the size of a map, never these two. Source: Araujo, Norris & Sim 2019, "Computing receptive
fields of convolutional neural networks", Distill.
"""

from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import pandas
import torch

from lab.tracing.acting import acting_modules, blank_images, undisturbed
from lab.tracing.watch import Mark, NoReading, Opaque, Watch, tensors_in
from lab.tracing.windows import has_rule, side_of, window


@dataclass(frozen=True)
class Layer:
    """One leaf module as it acted on an image; jump and receptive field in pixels of the input.

    Kernel, stride and padding are None for a layer that works pixel by pixel or only reshapes. A dilated
    kernel is given without its gaps, which count in the receptive field only.
    """

    name: str  # module path, as in `network.named_modules()`
    kind: str  # class name
    out_channels: int
    out_size: int
    kernel: int | None
    stride: int | None
    padding: int | None
    jump: int
    receptive_field: int
    parameters: int  # those shared with earlier layers are not counted again


class Unit(NamedTuple):
    """The output of one direct child of a network."""

    out_channels: int
    out_size: int
    receptive_field: int


def trace_layers(network, image_size=28):
    """Follow blank images through the network and describe every leaf module that they pass, in eval mode.

    The network's modes, statistics and gradients, and torch's random numbers, stay as they are.

    Args:
        network: one chain of modules, from float (N, C, image_size, image_size), with C as its first convolution or
            normalisation expects it. Convolutions and pooling at any size; Linear once the map is 1x1. Adaptive
            pooling counts as pooling with the kernel that it has at this image size. Other modules, and what the
            network does between modules, may do anything that leaves pixels in place, see `lab.tracing.watch`.
        image_size: side length in pixels.

    Returns: list of Layer, in the order in which they act.
    Raises: ValueError naming the layer or the operation, if its receptive field has no square closed form or cannot
        be known; as `undisturbed`, if the network does not work on such images.
    """
    with undisturbed(network):
        images = blank_images(network, image_size)
        watch, tracer = Watch(images, type(network).__name__), _Tracer(network)
        with watch, NoReading(watch), tracer.attached(watch):
            result = network(images)
    if not isinstance(result, torch.Tensor):
        raise Opaque(f"{watch.name} returns a {type(result).__name__}, not one tensor")
    mark = watch.look_up([result])
    if mark != Mark(watch.stage):
        raise Opaque(_with_reason(f"{watch.name} does not return just what its last layer gave", mark))
    if not tracer.layers:
        raise Opaque(f"{watch.name} has no layer that acts on its images")
    return tracer.layers


def receptive_field(network, image_size=28):
    """Side length, in input pixels, of the square that one final output sees; raises as `trace_layers`."""
    return trace_layers(network, image_size)[-1].receptive_field


def known_receptive_field(network):
    """The receptive field, or None where it cannot be traced: for tables that a reader may add to."""
    try:
        return receptive_field(network)
    except Opaque:
        return None


def trace_units(network, image_size=28):
    """One Unit per direct child of the network, in the order in which they act; raises as `trace_layers`."""
    last_of_child = {layer.name.split(".")[0]: layer for layer in trace_layers(network, image_size)}
    return [Unit(layer.out_channels, layer.out_size, layer.receptive_field) for layer in last_of_child.values()]


def layer_table(network, image_size=28, detail=False):
    """Lay out the trace as a table, indexed by module path.

    Args:
        detail: one row per leaf module; otherwise one per convolution, pooling and linear layer, with the
            parameters of the normalisation after it added to its own. Either way the column adds up to all
            parameters of the network, each counted once: those that no layer above holds have a last row.

    Returns: DataFrame with columns layer, kernel, stride, padding, out (channels x height x width), jump,
        receptive field, parameters.
    Raises: as `trace_layers`.
    """
    layers = trace_layers(network, image_size)
    table = pandas.DataFrame(
        {
            "layer": layer.kind,
            **{key: getattr(layer, key) if layer.kernel else "" for key in ("kernel", "stride", "padding")},
            "out": f"{layer.out_channels}x{layer.out_size}x{layer.out_size}",
            **{key.replace("_", " "): getattr(layer, key) for key in ("jump", "receptive_field", "parameters")},
        }
        for layer in layers
    ).set_index(pandas.Index([layer.name for layer in layers], name="module"))
    if not detail and any(layer.kernel for layer in layers):
        owner = (table["kernel"] != "").cumsum().clip(lower=1)
        table["parameters"] = table.groupby(owner)["parameters"].transform("sum")
        table = table[table["kernel"] != ""].infer_objects()
    return _with_rest(table, network, [layer.name for layer in layers])


def acting_table(network, image_size=28):
    """The columns layer, out and parameters of `layer_table` in detail, for any network; raises as `undisturbed`."""
    leaves, counted, rows = _leaves(network), set(), []
    for name, module, output in acting_modules(network, image_size):
        if module in leaves:
            out = "x".join(map(str, output.shape[1:])) if isinstance(output, torch.Tensor) else "–"
            rows.append((name, type(module).__name__, out, _count_new(module, counted)))
    table = pandas.DataFrame(rows, columns=["module", "layer", "out", "parameters"]).set_index("module")
    return _with_rest(table, network, table.index)


def _with_rest(table, network, shown):
    """The table, and a last row for parameters that none of the modules shown holds, if there are any."""
    held = {parameter for name in shown for parameter in network.get_submodule(name).parameters()}
    rest = {name: parameter.numel() for name, parameter in network.named_parameters() if parameter not in held}
    if not rest:
        return table
    row = dict.fromkeys(table.columns, "") | (table.iloc[-1].to_dict() if len(table) else {})
    row |= {column: "" for column in ("kernel", "stride", "padding") if column in row}
    names = [*rest][:3] + [f"{len(rest) - 3} more"] * (len(rest) > 3)
    row |= {"layer": f"none: {', '.join(names)}", "parameters": sum(rest.values())}
    index = pandas.Index(["(elsewhere)"], name="module")
    return pandas.concat([table.astype(object), pandas.DataFrame([row], index=index, dtype=object)]).infer_objects()


def _leaves(network):
    """Names of all modules that are layers: without submodules, or with ones that only make their weights."""
    modules = network.named_modules()
    return {module: name for name, module in modules if has_rule(module) or not list(module.children())}


class _Tracer:
    """Hooks that list the leaf modules of a network as they act."""

    def __init__(self, network):
        self.names = _leaves(network)
        self.layers, self.counted = [], set()

    @contextmanager
    def attached(self, watch):
        """Hook in next to what a module itself does, so that other hooks are watched like any operation between."""
        self.watch = watch
        hooks = [module.register_forward_pre_hook(self.enter, with_kwargs=True) for module in self.names]
        hooks += [module.register_forward_hook(self.leave, with_kwargs=True, prepend=True) for module in self.names]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def enter(self, module, args, settings):
        given, own = tensors_in([args, settings]), [*module.parameters(), *module.buffers()]
        mark = None if self.watch.inside else self.watch.look_up(given + own, type(module).__name__)
        if mark is None:  # a part of another layer, or something that acts on weights
            return
        if mark != Mark(self.watch.stage) or (has_rule(module) and (len(given) != 1 or self.watch.look_up(own))):
            wrong = f"{self._label(module)} does not take just what the layer before gave"
            raise Opaque(_with_reason(f"{wrong}; only chains can be traced", mark))
        if has_rule(module):
            self.watch.inside = module

    def leave(self, module, args, settings, output):
        given = tensors_in([args, settings])
        if self.watch.inside is not module and (self.watch.inside or self.watch.look_up(given) is None):
            return
        label, shown = self._label(module), (None, None, None, 1)
        if not isinstance(output, torch.Tensor):
            raise Opaque(f"{label} does not return one tensor")
        if self.watch.inside:
            shown = window(module, label, given[0], output)
            self.watch.inside = None
            self.watch.pass_layer(output)
        mark = self.watch.look_up([output])
        if mark != Mark(self.watch.stage):
            where = f"on a {side_of(given[0])}x{side_of(given[0])} map"
            raise Opaque(_with_reason(f"{label} {where} moves pixels in a way that is not traced", mark))
        self._add(module, output, *shown)

    def _add(self, module, output, kernel, stride, padding, dilation):
        jump, field = (self.layers[-1].jump, self.layers[-1].receptive_field) if self.layers else (1, 1)
        field += ((kernel or 1) - 1) * dilation * jump
        channels = output.shape[1] if output.ndim > 1 else 1
        made = self.names[module], type(module).__name__, channels, side_of(output), kernel, stride, padding
        self.layers.append(Layer(*made, jump * (stride or 1), field, _count_new(module, self.counted)))

    def _label(self, module):
        return f"{self.watch.name}: layer {self.names[module]!r} ({type(module).__name__})"


def _count_new(module, counted):
    """How many parameters of a module are not in the set `counted`; they are added to it."""
    new = set(module.parameters()) - counted
    counted |= new
    return sum(parameter.numel() for parameter in new)


def _with_reason(text, mark):
    return f"{text}: {mark.reason}" if mark and mark.reason else text
