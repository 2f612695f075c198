"""The one import of every notebook: a table of contents of what stands in lab/."""

# ruff: noqa: I001  (in the order of a run, not of the alphabet)

# the data, and distortions of training images
from lab.data import Digits, Split, load_digits, normalise
from lab.augment import ColorJitter, RandomAffine, RandomRotation, distort

# a run: its parameters, its recipe, the training
from lab.parameters import check_parameters
from lab.recipe import CosineCycle, OneCycleLR, Recipe, ReduceLROnPlateau, StepLR
from lab.fitting import Run, fit
from lab.training import TrainingDiverged, evaluate, predict, prepare, train_epoch

# how far each layer sees
from lab.receptive_field import layer_table, receptive_field, trace_layers

# what dropout does to batch normalisation
from lab.normalisation import remeasure, variance_shift

# results, and how sure they are
from lab.results import RunRecord, Summary, load_records
from lab.claims import Claim, difference, judge
from lab.weights import load_weights

# the page: text and tables, figures
from lab.show import compare, find_mistakes, ladder_table, report, show_change, show_layers, signal_strength
from lab.plots import plot_curves, plot_digits, plot_mistakes, plot_schedules, plot_seeds, plot_test_accuracy

# all rungs side by side
from lab.overview import (
    audit,
    multiply_accumulates,
    originals_table,
    overview,
    pareto_front,
    selection_table,
    show_overview,
)
from lab.plots import plot_consistency, plot_roads, plot_size_against_accuracy

# the search behind the frontier, on held-out training images
from lab.search_page import ablation_table, plot_search, screen_table, search_table

__all__ = [
    "Claim",
    "ColorJitter",
    "CosineCycle",
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
    "ablation_table",
    "audit",
    "check_parameters",
    "compare",
    "difference",
    "distort",
    "evaluate",
    "find_mistakes",
    "fit",
    "ladder_table",
    "judge",
    "layer_table",
    "load_digits",
    "load_records",
    "load_weights",
    "multiply_accumulates",
    "normalise",
    "originals_table",
    "overview",
    "pareto_front",
    "plot_consistency",
    "plot_curves",
    "plot_digits",
    "plot_mistakes",
    "plot_roads",
    "plot_schedules",
    "plot_search",
    "plot_seeds",
    "plot_size_against_accuracy",
    "plot_test_accuracy",
    "predict",
    "prepare",
    "receptive_field",
    "remeasure",
    "report",
    "screen_table",
    "search_table",
    "selection_table",
    "show_change",
    "show_layers",
    "show_overview",
    "signal_strength",
    "trace_layers",
    "train_epoch",
    "variance_shift",
]
