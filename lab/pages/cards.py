"""Model cards: what each file of results/weights/ is, and what it is not good for.

Source of the form: Mitchell et al. 2019, "Model cards for model reporting".
"""

from collections import Counter

from lab.files import ROOT
from lab.ladders.rungs import find_rungs
from lab.ladders.weights import SEED, WEIGHTS, read_about
from lab.run.record import TEST_IMAGES
from lab.run.results import load_records
from lab.training.data import CLASSES

CARD = """\
# {title} ({parameters:,} parameters)

`{file}` holds the network of [{title}]({page}), trained with seed {seed}, which was chosen in advance.

## What it is for

It reads one handwritten digit in 28x28 grey levels. It is there to be looked at, taught with and compared; not to read
anything where a mistake costs somebody something.

    import utils

    network = utils.load_weights("{id}")     # a plain torch module; grey levels go through utils.prepare
    utils.recognise("seven.png", "{id}")     # a photo or drawing of one digit

`python -m lab export {id} --onnx` writes it for any other runtime, normalisation inside.

## How it was trained

On {train_total:,} training images of MNIST{held_out}, {epochs} epochs, in batches of {batch_size}, {augmentation}. The
test images were measured after every epoch; [what was chosen by them](../README.md#how-numbers-are-made) is told.
[The page]({page}) has network, recipe and log.

## How good it is

{result}

This file is right on {right:,} of the {total:,} test images.

## What it gets wrong

| digit | wrong | read as |
|--|--|--|
{mistakes}

Test images, by index: {indices}.

## Limits

- It knows ten classes and always names one of them, for a letter or a scribble, too; how far its probabilities can be
  trusted was not measured.
- It was trained on digits that fill a box of 20x20 pixels, centred by mass, light on dark, cut from forms that
  employees and high-school students in the USA filled in. Drawings with a mouse, photographs and other hands differ;
  `utils.recognise` brings them into this form, but what accuracy remains there was not measured.
- The test images are of other writers than the training images, but of the same two groups and the same forms: how
  well it reads the sevens of other countries nobody has measured.
"""


def cards(result):
    """Pairs of path and text for every network whose weights are kept; `result` makes the table of a rung."""
    for rung in find_rungs():
        path = WEIGHTS / f"{rung.id}.safetensors"
        if path.exists():
            about = read_about(path)
            yield path.with_suffix(".md"), card(rung, about["mistakes"], result(rung))


def card(rung, wrong, table):
    """The card of a network; `wrong` lists index, label and answer of each test image that it gets wrong."""
    recipe = rung.recipe
    record = next(record for record in load_records(rung.id) if record.seed == SEED)
    kinds = ", ".join(type(each).__name__ for each in recipe.augmentation)
    return CARD.format(
        id=rung.id,
        title=rung.title,
        parameters=recipe.parameters,
        file=f"{rung.id}.safetensors",
        page=f"../../{rung.path.relative_to(ROOT).as_posix()}",
        seed=SEED,
        train_total=record.train_total,
        held_out=f", {recipe.held_out:,} more held out for its schedule" if recipe.held_out else "",
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        augmentation=f"distorted by {kinds}" if kinds else "not distorted",
        result=table,
        right=TEST_IMAGES - len(wrong),
        total=TEST_IMAGES,
        mistakes="\n".join(_row(digit, wrong) for digit in range(CLASSES)),
        indices=", ".join(str(index) for index, _, _ in wrong),
    )


def _row(digit, wrong):
    said = Counter(answer for _, label, answer in wrong if label == digit)
    answers = ", ".join(f"{answer} ({count})" if count > 1 else f"{answer}" for answer, count in said.most_common())
    return f"| {digit} | {sum(said.values())} | {answers or '–'} |"
