"""What a search may try: every setting reaches the recipe, and what cannot be tried is refused by name."""

from dataclasses import replace

import pytest

import model
from lab.ladders.rungs import find_rungs
from lab.search.candidates import build_recipe, changes, draws, name_in_words
from lab.training.augment import RandomAffine
from lab.training.schedules import CosineCycle, LinearCycle, OneCycleLR

CYCLE = {"name": "OneCycleLR", "max_learning_rate": 0.1}
AFFINE = {"name": "RandomAffine", "degrees": 10, "scale": [0.9, 1.1]}


@pytest.mark.parametrize("rung", ["a07", "b10", "c06", "d06", "e03"])
def test_a_rung_by_itself_is_its_published_recipe(rung):
    assert build_recipe({"rung": rung}) == find_rungs([rung])[0].recipe


def test_fields_of_a_rung_are_replaced():
    settings = {"rung": "a07", "arguments": {"dropout": 0.0}, "schedule": CYCLE, "augmentation": [AFFINE]}
    (rung,) = find_rungs(["a07"])
    assert build_recipe(settings) == replace(
        rung.recipe,
        arguments={"dropout": 0.0},
        schedule=OneCycleLR(0.1),
        augmentation=(RandomAffine(10, scale=(0.9, 1.1)),),
    )
    narrow = {"network": "SixConvolutions", "arguments": {"widths": [8, 12, 12, 12, 12, 24], "dropout": 0.05}}
    assert build_recipe({"rung": "c06"} | narrow).network is model.SixConvolutions
    assert build_recipe({"rung": "b10", "schedule": None}).schedule is None
    assert build_recipe({"layers": "c4 G", "rate": 0.2}).schedule == CosineCycle(0.2)
    straight = {"layers": "c4 G", "rate": 0.2, "cycle": "linear", "warmup": 0.1}
    assert build_recipe(straight).schedule == LinearCycle(0.2, warmup=0.1)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"rung": "a99"}, "rung='a99' must be one that is published: .*a07"),
        ({"rung": ["a07"]}, "must be one that is published"),
        ({"rung": "a07", "rate": 0.1}, "fields of its recipe; found rate"),
        ({"rung": "a07", "layers": "c4 G"}, "fields of its recipe; found layers"),
        ({"rung": "a07", "network": "nn"}, "network='nn' must be the name of a class"),
        ({"rung": "a07", "network": 3}, "network=3 must be the name of a class"),
        ({"rung": "a07", "schedule": {"name": "Recipe"}}, "must be one of StepLR"),
        ({"rung": "a07", "schedule": "OneCycleLR"}, "must be one of StepLR"),
        ({"rung": "a07", "schedule": CYCLE | {"peak": 1}}, "peak"),
        ({"rung": "a07", "augmentation": [{"name": "ElasticTransform"}]}, "must be one of RandomRotation"),
        ({"rung": "a07", "augmentation": [AFFINE | {"degrees": -1}]}, "degrees=-1 must be"),
        ({"rung": "a07", "augmentation": None}, "augmentation=None must be a list"),
        ({"rung": "a07", "augmentation": "RandomRotation"}, "augmentation='RandomRotation' must be a list"),
        ({"rung": "originals"}, "must be one that is published"),
        ({"rung": "a07", "batch_size": 0}, "batch_size=0 must be"),
        ({"batch_size": 64}, "or a rung"),
    ],
)
def test_what_cannot_be_tried_is_refused_by_name(settings, reason):
    with pytest.raises(ValueError, match=reason):
        build_recipe(settings)


def test_changes_are_told_in_words_in_both_directions():
    base = {"rung": "a07", "average": 0.998, "schedule": CYCLE}
    other = {"rung": "a07", "arguments": {"dropout": 0.0}, "augmentation": [AFFINE]}
    cycle, affine = "schedule OneCycleLR(max_learning_rate=0.015)", "RandomAffine(degrees=10, scale=[0.9, 1.1])"
    assert changes(other, base) == f"dropout 0.0, {cycle}, {affine}, average 0"
    assert changes(base, base | {"schedule": CYCLE | {"warmup": 0.3}}) == ""
    assert changes({"rung": "a07", "augmentation": []}, {"rung": "a07"}) == "no distortions"
    slanted = AFFINE | {"translate": 1 / 28, "shear": 2}
    assert changes({"rung": "a07", "augmentation": [slanted]}, {"rung": "a07", "augmentation": [AFFINE]}) == (
        "RandomAffine(degrees=10, translate=0.0357, scale=[0.9, 1.1], shear=2)"
    )
    assert changes({"layers": "c4 G"}, {"layers": "c4 G", "rate": 0.2}) == "rate 0.1"
    assert name_in_words({"rung": "a07", "batch_size": 64}) == "a07: batch_size 64"
    assert name_in_words({"layers": "c4 G"}) == "c4 G"


def test_candidates_draw_alike_where_only_the_steps_differ():
    one = {"rung": "a07"}
    assert draws(one) == draws(one | {"schedule": CYCLE, "average": 0.9, "learning_rate": 0.1, "momentum": 0.1})
    for other in ({"batch_size": 64}, {"augmentation": []}, {"arguments": {"dropout": 0.0}}, {"held_out": 0.1}):
        assert draws(one) != draws(one | other)
    assert draws({"layers": "c4 G"}) == draws({"layers": "c4 G", "activation": "silu", "rate": 0.2})
    assert draws({"layers": "c4 G"}) != draws({"layers": "c4 G", "rotation": 3.0})
