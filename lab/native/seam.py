"""The functions of trainer.cpp and the structures that they take, as ctypes knows them; checks at the seam."""

import ctypes
import functools
from pathlib import Path

import numpy as np
import torch

from lab.compiling import find_compiler, load, read_sources
from lab.training.augment import ColorJitter
from lab.training.data import CLASSES, MEAN, STD

SOURCES = read_sources(Path(__file__).parent)
SIDE = 28
STEP = np.dtype([("rate", "f8"), ("momentum", "f4"), ("take", "f4"), ("key", "u8")], align=True)
POINTER, COUNT = ctypes.c_void_p, ctypes.c_int64


class Data(ctypes.Structure):
    """Where images and labels lie in memory; what they were made of has to outlive it."""

    _fields_ = [("images", POINTER), ("labels", POINTER), ("black", ctypes.c_float), ("white", ctypes.c_float)]

    @classmethod
    def of(cls, split, order):
        """Raises: ValueError for anything else than uint8 (N, 1, 28, 28), int64 (N,) below 10, and indices below N."""
        images, labels = split.images.contiguous(), split.labels.contiguous()
        _require_array("images", images, torch.uint8, (len(labels), 1, SIDE, SIDE))
        _require_array("labels", labels, torch.int64, (len(images),))
        _require_array("order", order, torch.int64, (len(order),))
        _require_below("labels", labels, CLASSES)
        _require_below("order", order, len(images))
        data = cls(images.data_ptr(), labels.data_ptr(), -MEAN / STD, (1 - MEAN) / STD)
        data.kept = images, labels
        return data


class Transform(ctypes.Structure):
    _fields_ = [("jitters", ctypes.c_int32), ("bilinear", ctypes.c_int32), ("fill", ctypes.c_float)]

    @classmethod
    def of(cls, transform):
        jitters = type(transform) is ColorJitter
        return cls(1) if jitters else cls(0, transform.interpolation == "bilinear", transform.fill)


class Distortion(ctypes.Structure):
    _fields_ = [("transforms", POINTER), ("count", COUNT), ("drawn", POINTER)]

    @classmethod
    def of(cls, transforms, drawn, count):
        """`drawn` for `count` images; it has to outlive it. Raises: ValueError if it is no such array."""
        each = (1, SIDE, SIDE) if transforms is None else (len(transforms), 5)
        _require_array("drawn", drawn, torch.float32, (count, *each))
        told = (Transform * len(transforms or ()))(*map(Transform.of, transforms or ()))
        distortion = cls(ctypes.addressof(told), -1 if transforms is None else len(transforms), drawn.data_ptr())
        distortion.kept = told
        return distortion


class Method(ctypes.Structure):
    _fields_ = [("decay", ctypes.c_float), ("nesterov", ctypes.c_int32), ("muon", ctypes.c_int32)]


class State(ctypes.Structure):
    names = "weights velocity average_weights gradient statistics average_statistics"
    _fields_ = [(name, POINTER) for name in names.split()]


FUNCTIONS = {  # what they return, what they take
    "create": (POINTER, [POINTER, ctypes.c_int, ctypes.c_int, COUNT, COUNT]),
    "destroy": (None, [POINTER]),
    "copy_mask": (None, [POINTER, ctypes.c_int, ctypes.c_int, POINTER]),
    "train": (COUNT, [POINTER, State, Data, POINTER, COUNT, Distortion, POINTER, Method, POINTER, POINTER, POINTER]),
    "infer": (None, [POINTER, State, Data, POINTER, COUNT, POINTER]),
}


def load_library():
    """The compiled trainer; a few seconds of compiling, once on a machine. Raises: CannotCompile."""
    return _load(*find_compiler())


@functools.cache
def _load(*command):
    return load("trainer", SOURCES, command, _declare)


def _declare(library):
    """Tell ctypes the types of a library's functions. Raises: AttributeError if it lacks one of them."""
    for name, (returned, taken) in FUNCTIONS.items():
        function = getattr(library, name)
        function.restype, function.argtypes = returned, taken
    return library


def require_steps(steps, images, batch_size):
    """Raises: ValueError unless every batch of that many images has its step."""
    if steps.dtype != STEP or not steps.flags.c_contiguous:
        raise ValueError(f"compiled trainer: steps must be what plan_steps gives, not {steps.dtype}")
    if len(steps) * batch_size < images:
        raise ValueError(f"compiled trainer: {len(steps)} steps are too few for {images} images")


def _require_array(name, tensor, dtype, shape):
    if tensor.dtype != dtype or tensor.shape != shape or tensor.device.type != "cpu" or not tensor.is_contiguous():
        found = f"{tensor.dtype} {tuple(tensor.shape)} on {tensor.device}"
        raise ValueError(f"compiled trainer: {name} must be {dtype} {tuple(shape)} in one piece, not {found}")


def _require_below(name, indices, end):
    if len(indices) and not (indices.min() >= 0 and indices.max() < end):
        raise ValueError(f"compiled trainer: {name} go from {indices.min()} to {indices.max()}, not below {end}")
