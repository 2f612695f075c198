"""What run records and results files hold; one that holds anything else is refused, with file and field named."""

import functools
import json

import fastjsonschema

COUNT = {"type": "integer", "minimum": 0}
COUNT_OR_NONE = {"type": ["integer", "null"], "minimum": 0}
TEXT = {"type": "string"}
SPLITS = "(train|held_out|test)"


def _object(properties, **more):
    return {"type": "object", "required": list(properties), "properties": properties} | more


EPOCH = _object(
    {
        "epoch": {"type": "integer", "minimum": 1},
        "learning_rate": {"type": "number", "minimum": 0},
        "train_total": COUNT,
        "train_correct": COUNT,
        "test_total": COUNT,
        "test_correct": COUNT,
    },
    patternProperties={
        f"^{SPLITS}_(correct|total)$": COUNT,
        f"^{SPLITS}_(loss|seconds)$": {"type": "number", "minimum": 0},
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
        "recipe": _object({"network": TEXT, "epochs": COUNT}),
        "code_digest": TEXT,
        "device": TEXT,
        "threads": COUNT,
        "versions": {"type": "object", "additionalProperties": TEXT},
        "epochs": {"type": "array", "items": EPOCH},
        "clean_train_correct": COUNT_OR_NONE,
        "clean_train_total": COUNT_OR_NONE,
    },
    additionalProperties=False,
)
RESULTS = _object({"rung": TEXT, "recipe": {"type": "object"}, "runs": {"type": "array", "items": RECORD}})
SCHEMAS = {"run record": RECORD, "file of results": RESULTS}


class DamagedFile(ValueError):
    """A file that is not what its name says."""


def read_json(path, kind):
    """The content of a "run record" or of a "file of results".

    Raises: DamagedFile naming the file, the field and what is expected there.
    """
    text = path.read_text()
    try:
        return _checker(kind)(json.loads(text, parse_constant=_refuse_constant))
    except (ValueError, fastjsonschema.JsonSchemaValueException) as error:
        field = str(error).removeprefix("data.").removeprefix("data ")
        raise DamagedFile(
            f"{path} is not a {kind}: {field}. Restore it from a good copy, or delete it and run again"
        ) from error


@functools.cache
def _checker(kind):
    return fastjsonschema.compile(SCHEMAS[kind])


def _refuse_constant(name):
    raise ValueError(f"{name} is not a number that a finished epoch can have")
