"""What the project's JSON files hold; one that holds anything else is refused, with file and field named."""

import functools
import json

import fastjsonschema

COUNT = {"type": "integer", "minimum": 0}
COUNT_OR_NONE = {"type": ["integer", "null"], "minimum": 0}
NUMBER = {"type": "number", "minimum": 0}
TEXT = {"type": "string"}
SPLITS = "(train|held_out|test)"


def _object(properties, optional=None, **more):
    return {"type": "object", "required": list(properties), "properties": properties | (optional or {})} | more


EPOCH = _object(
    {
        "epoch": {"type": "integer", "minimum": 1},
        "learning_rate": NUMBER,
        "train_total": COUNT,
        "train_correct": COUNT,
        "train_loss": NUMBER,
        "test_total": COUNT,
        "test_correct": COUNT,
        "test_loss": NUMBER,
    },
    patternProperties={
        f"^{SPLITS}_(correct|total)$": COUNT,
        f"^{SPLITS}_(loss|seconds)$": NUMBER,
    },
    additionalProperties=False,
)
RECORD = _object(
    {
        "rung": TEXT,
        "seed": COUNT,
        "dataset": TEXT,
        "dataset_sha256": TEXT,
        "train_total": COUNT,
        "parameters": COUNT,
        "recipe": _object({"network": TEXT, "epochs": COUNT, "held_out": NUMBER}),
        "code_digest": TEXT,
        "device": TEXT,
        "threads": COUNT,
        "versions": {"type": "object", "additionalProperties": TEXT},
        "epochs": {"type": "array", "items": EPOCH},
        "clean_train_correct": COUNT_OR_NONE,
        "clean_train_total": COUNT_OR_NONE,
    },
    optional={"fingerprint": {"type": ["string", "null"]}},
    additionalProperties=False,
)
RESULTS = _object({"rung": TEXT, "recipe": {"type": "object"}, "runs": {"type": "array", "items": RECORD}})
CELL = _object({"cell_type": TEXT, "metadata": {"type": "object"}, "source": {"type": ["string", "array"]}})
SCHEMAS = {
    "run record": RECORD,
    "file of results": RESULTS,
    "list of epochs": RECORD["properties"]["epochs"],
    "list of equal code": {"type": "array", "items": _object({"rung": TEXT, "old": TEXT, "new": TEXT})},
    "notebook": _object({"cells": {"type": "array", "items": CELL}, "metadata": {"type": "object"}}),
    "list of source steps": {"type": "object", "additionalProperties": {"type": "object"}},
    "candidate": {"type": "object"},
    "trial": _object(
        {
            "settings": {"type": "object"},
            "seed": COUNT,
            "parameters": COUNT,
            "correct": {"type": ["array", "null"], "items": COUNT},
            "loss": {"type": ["array", "null"], "items": NUMBER},
            "seconds": NUMBER,
            "code_digest": TEXT,
        },
        additionalProperties=False,
    ),
}


class DamagedFile(ValueError):
    """A file that is not what its name says."""


def read_json(path, kind):
    """The content of a file of one of the kinds of SCHEMAS.

    Raises: DamagedFile naming the file, the field and what is expected there.
    """
    try:
        return parse_json(path.read_text(encoding="utf-8"), kind)
    except ValueError as error:
        raise DamagedFile(
            f"{path} is not a {kind}: {error}. Restore it from a good copy, or delete it and run again"
        ) from error


def parse_json(text, kind):
    """What a text holds, if it is of a kind; ValueError naming the field that is not as it should be."""
    return require(json.loads(text, parse_constant=_refuse_constant), kind)


def require(value, kind):
    """The value, if it is of a kind; ValueError naming the field that is not as it should be."""
    try:
        return _checker(kind)(value)
    except fastjsonschema.JsonSchemaValueException as error:
        raise ValueError(str(error).removeprefix("data.").removeprefix("data ")) from error


@functools.cache
def _checker(kind):
    return fastjsonschema.compile(SCHEMAS[kind])


def _refuse_constant(name):
    raise ValueError(f"{name} is not a number that a finished epoch can have")
