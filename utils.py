"""The one import of every notebook: a table of contents of lab/, in the order of a run."""

# ruff: noqa: F401, I001

# the data, and a first look at them
from lab.training.data import Digits, Split, load_digits, normalise
from lab.pages.plots import plot_digits

# what decides a number: the recipe, its schedules and distortions
from lab.training.recipe import Recipe
from lab.training.schedules import CosineCycle, LinearCycle, OneCycleLR, ReduceLROnPlateau, Schedule, StepLR
from lab.training.augment import ColorJitter, RandomAffine, RandomRotation

# before a run: its parameters, what it changes, its layers and what they see
from lab.run.parameters import check_parameters
from lab.pages.show import show_change, show_layers, show_source
from lab.tracing.receptive_field import layer_table, receptive_field, trace_layers

# the run, and what it is made of
from lab.run.fit import Run, fit
from lab.training.loop import TrainingDiverged, evaluate, predict, prepare, train_epoch

# after a run: its curves, its mistakes, its results beside the published ones
from lab.pages.plots import plot_curves, plot_mistakes, plot_schedules, plot_seeds, plot_test_accuracy
from lab.pages.probes import find_mistakes, multiply_accumulates, remeasure, variance_shift
from lab.pages.show import report
from lab.pages.tables import compare, ladder_table

# pictures of the ideas
from lab.ladders.rungs import find_recipe
from lab.pages.ideas.class_maps import plot_class_maps
from lab.pages.ideas.distorted import plot_distorted
from lab.pages.ideas.every_weight import plot_every_weight
from lab.pages.ideas.fields import plot_fields
from lab.pages.ideas.hardest import plot_hardest
from lab.pages.ideas.masks import plot_masks
from lab.pages.ideas.mixing import plot_mixing
from lab.pages.ideas.paths import plot_paths
from lab.pages.ideas.signals import plot_signals, untrained
from lab.pages.ideas.sizes import plot_sizes
from lab.pages.ideas.spectra import plot_spectra
from lab.pages.ideas.units import plot_units

# a digit of one's own
from lab.pages.own_digit import as_mnist, recognise

# published results, and the claims they support
from lab.run.record import RunRecord
from lab.run.results import load_records
from lab.ladders.claims import Claim
from lab.ladders.effects import difference
from lab.ladders.verdicts import judge, tally_verdicts
from lab.ladders.measures import Summary
from lab.ladders.weights import load_weights

# all rungs side by side
from lab.pages.tables import audit, last_rungs, originals_table, overview, pareto_front, selection_table
from lab.pages.tables import show_overview, tutorial_ends
from lab.pages.plots import plot_consistency, plot_roads, plot_size_against_accuracy
from lab.pages.seeds import consistency_table, spread_table
from lab.pages.hard_digits import compare_mistakes, hardness_table, show_disagreement, show_nobodys_digits

# every reading of the test set for a question
from lab.search.readings import readings_of

# how long whole runs take
from lab.pages.speed import seconds_table

# the two trainers
from lab.pages.trainers import compare_trainers, judge_trainers, show_trainers
from lab.pages.plots import plot_trainers

# the search
from lab.search.blocks import plot_blocks
from lab.search.page import ablation_table, plot_search, screen_table, search_table
