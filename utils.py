"""The one import of every notebook: a table of contents of what stands in lab/."""

# ruff: noqa: I001  (in the order of a run, not of the alphabet)

# the data, and distortions of training images
from lab.data import Digits, Split, load_digits, normalise
from lab.augment import ColorJitter, RandomAffine, RandomRotation, distort

# a run: its parameters, its recipe, the training
from lab.parameters import check_parameters
from lab.recipe import OneCycleLR, Recipe, ReduceLROnPlateau, StepLR
from lab.fitting import Run, fit
from lab.training import TrainingDiverged, evaluate, predict, prepare, train_epoch

# how far each layer sees
from lab.receptive_field import layer_table, receptive_field, trace_layers

# results, and how sure they are
from lab.results import RunRecord, Summary, load_records
from lab.claims import difference

# the page: text and tables, figures
from lab.show import find_mistakes, ladder_table, report, show_change, show_layers, signal_strength
from lab.plots import plot_curves, plot_digits, plot_mistakes, plot_schedules, plot_seeds

__all__ = [
    "ColorJitter",
    "Digits",
    "OneCycleLR",
    "RandomAffine",
    "RandomRotation",
    "Recipe",
    "ReduceLROnPlateau",
    "Run",
    "RunRecord",
    "Split",
    "StepLR",
    "Summary",
    "TrainingDiverged",
    "check_parameters",
    "difference",
    "distort",
    "evaluate",
    "find_mistakes",
    "fit",
    "ladder_table",
    "layer_table",
    "load_digits",
    "load_records",
    "normalise",
    "plot_curves",
    "plot_digits",
    "plot_mistakes",
    "plot_schedules",
    "plot_seeds",
    "predict",
    "prepare",
    "receptive_field",
    "report",
    "show_change",
    "show_layers",
    "signal_strength",
    "trace_layers",
    "train_epoch",
]
