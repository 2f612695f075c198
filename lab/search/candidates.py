"""What a search may try: networks spelled in one line, or rungs with some settings changed.

Two kinds of candidate, both plain dictionaries, so that a line of JSON holds one:

    {"layers": "c8 c8 M c12 c12 G", "rate": 0.2}      a network of lab/search/notation.py; the rest from DEFAULTS
    {"rung": "a07", "batch_size": 64, "average": 0.998}     a published rung, with other values in fields of Recipe

Schedules and transforms are written as in records: {"name": "OneCycleLR", "max_learning_rate": 0.1}.
"""

from dataclasses import fields

import model
from lab.ladders import effects
from lab.ladders.cells import SCHEDULES, TRANSFORMS
from lab.rules import check, is_a, number, one_of
from lab.run.results import RESULTS, published_recipe
from lab.search.notation import ACTIVATIONS, Notation
from lab.training import augment
from lab.training.recipe import Recipe, as_call
from lab.training.schedules import CosineCycle, LinearCycle

DEFAULTS = {
    "activation": "relu",
    "epochs": 15,
    "batch_size": 64,
    "optimizer": "SGD",
    "cycle": "cosine",
    "rate": 0.1,  # the peak of the cycle
    "warmup": 0.2,
    "start": 0.1,
    "momentum": 0.9,
    "weight_decay": 0.0,
    "average": 0.998,
    "hardest": 0.0,  # share of the images that epochs after the first show
    "rotation": 10.0,  # degrees
    "shift": 1 / 28,  # share of the width
    "scale": 0.1,
    "shear": 0.0,  # degrees
    "interpolation": "nearest",
}
CYCLES = {"cosine": CosineCycle, "linear": LinearCycle}
RULES = {  # of settings that go into a calculation before a recipe or a transform checks them
    "layers": is_a(str, "words of lab/search/notation.py"),
    "activation": one_of(*ACTIVATIONS),
    "cycle": one_of(*CYCLES),
    "rate": number(above=0),
    "start": number(above=0, high=1),
    "momentum": number(0, below=1),
    "scale": number(0, below=1),
}
OFF = 0  # the value of a setting that records leave out


def build_recipe(settings):
    """The recipe of a candidate.

    Raises: ValueError naming a setting that does not exist or has no such value, or a rung that is not published.
    """
    return _changed_rung(settings) if "rung" in settings else _from_layers(settings)


def complete(settings):
    """All settings of a candidate by name, including those it leaves at their defaults."""
    return build_recipe(settings).as_dict() if "rung" in settings else DEFAULTS | settings


def changes(settings, base):
    """In words, how a candidate differs from another, `base`: "average 0.998, dropout 0.0"."""
    theirs, ours = complete(base), complete(settings)
    names = [name for name in theirs | ours if ours.get(name, OFF) != theirs.get(name, OFF)]
    return ", ".join(_words(name, ours.get(name, OFF), theirs.get(name)) for name in names)


def name_in_words(settings):
    """The layers of a candidate, or its rung and how it differs from it."""
    rung = settings.get("rung")
    return f"{rung}: {changes(settings, {'rung': rung})}" if rung else settings["layers"]


def draws(settings):
    """What decides random numbers, see `lab.ladders.effects.draws`; a different activation draws the same."""
    recipe = build_recipe(settings).as_dict()
    recipe["arguments"].pop("activation", None)
    return effects.draws(recipe)


def _from_layers(settings):
    unknown = set(settings) - set(DEFAULTS) - {"layers"}
    if unknown or "layers" not in settings:
        raise ValueError(
            f"a candidate has layers and any of {', '.join(DEFAULTS)}, or a rung and fields of its recipe; "
            f"found {', '.join(settings)}"
        )
    values = DEFAULTS | settings
    check("candidate:", values, RULES)
    distortion = augment.RandomAffine(
        degrees=values["rotation"],
        translate=values["shift"],
        scale=(1 - values["scale"], 1 + values["scale"]),
        shear=values["shear"],
        interpolation=values["interpolation"],
    )
    return Recipe(
        network=Notation,
        arguments={"layers": values["layers"], "activation": values["activation"]},
        epochs=values["epochs"],
        batch_size=values["batch_size"],
        optimizer=values["optimizer"],
        learning_rate=values["rate"] * values["start"],
        momentum=values["momentum"],
        nesterov=values["momentum"] > 0,
        weight_decay=values["weight_decay"],
        schedule=CYCLES[values["cycle"]](values["rate"], warmup=values["warmup"], start=values["start"]),
        augmentation=(distortion,),
        average=values["average"],
        hardest=values["hardest"],
    )


def _changed_rung(settings):
    known = {item.name for item in fields(Recipe)}
    if unknown := sorted(set(settings) - known - {"rung"}):
        raise ValueError(f"a candidate from a rung has fields of its recipe; found {', '.join(unknown)}")
    values = _published(settings["rung"]) | {name: value for name, value in settings.items() if name in known}
    network = getattr(model, str(values["network"]), None)
    if not isinstance(network, type):
        raise ValueError(f"candidate: network={values['network']!r} must be the name of a class in model.py")
    values["schedule"] = values["schedule"] and _named(values["schedule"], SCHEDULES)
    if not isinstance(values["augmentation"], list):
        raise ValueError(f"candidate: augmentation={values['augmentation']!r} must be a list of transforms")
    values["augmentation"] = tuple(_named(one, TRANSFORMS) for one in values["augmentation"])
    values["betas"] = _tuple(values["betas"])
    return Recipe(**values | {"network": network})


def _published(rung):
    names = sorted(path.stem for path in RESULTS.glob("[a-z][0-9][0-9]*.json"))
    if rung not in names:
        raise ValueError(f"candidate: rung={rung!r} must be one that is published: {', '.join(names)}")
    return published_recipe(rung)


def _named(written, kinds):
    """A schedule or transform from its form in records."""
    if not isinstance(written, dict) or written.get("name") not in kinds:
        raise ValueError(f'candidate: {written!r} must be one of {", ".join(kinds)}, as {{"name": ..., settings}}')
    settings = {name: _tuple(value) for name, value in written.items() if name != "name"}
    try:
        return kinds[written["name"]](**settings)
    except TypeError as error:
        raise ValueError(f"candidate: {written!r}: {error}") from None


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


def _words(name, value, other):
    if name == "arguments":
        return ", ".join(
            f"{key} {part}" for key, part in value.items() if key not in (other or {}) or other[key] != part
        )
    if name == "augmentation":
        return ", ".join(as_call(_briefly(one)) for one in value) or "no distortions"
    return f"{name} {as_call(_briefly(value))}"


def _briefly(written):
    """A schedule or transform without its default settings, numbers to three digits; any other value as it is."""
    if not isinstance(written, dict):
        return written
    usual = {item.name: item.default for item in fields((SCHEDULES | TRANSFORMS)[written["name"]])}
    return {
        name: float(f"{value:.3g}") if isinstance(value, float) else value
        for name, value in written.items()
        if name == "name" or _tuple(value) != usual[name]
    }
