"""What the project's JSON files hold; one that holds anything else is refused, with file and field named."""

import functools
import json
from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, get_args, get_origin, get_type_hints

import fastjsonschema

TYPES = {str: "string", int: "integer", float: "number", dict: "object", list: "array", NoneType: "null"}


def schema_of(kind):
    """The JSON schema of a type, a dataclass, or a dictionary of fields and their types.

    Numbers are at least 0. Lists and dictionaries may state their element type, `list[int]`, unions are of plain types,
    and an annotated type has its own schema: `Annotated[dict, {...}]`. A field may be left out
    only if its metadata say "optional", as in records of earlier code.
    """
    if isinstance(kind, dict):
        return object_schema({name: schema_of(part) for name, part in kind.items()})
    if is_dataclass(kind):
        hints, optional = get_type_hints(kind, include_extras=True), {}
        for item in fields(kind):
            if item.metadata.get("optional"):
                optional[item.name] = schema_of(hints.pop(item.name))
        required = {name: schema_of(hint) for name, hint in hints.items()}
        return object_schema(required, optional, additionalProperties=False)
    if get_origin(kind) is Annotated:
        return get_args(kind)[1]
    if isinstance(kind, UnionType):
        parts = [schema_of(part) for part in get_args(kind)]
        return {name: value for part in parts for name, value in part.items()} | {
            "type": [part["type"] for part in parts]
        }
    plain, of = get_origin(kind) or kind, get_args(kind)
    schema = {"type": TYPES[plain]} | ({"minimum": 0} if plain in (int, float) else {})
    if plain is list and of:
        schema["items"] = schema_of(of[0])
    if plain is dict and of:
        schema["additionalProperties"] = schema_of(of[1])
    return schema


def object_schema(required, optional=None, **more):
    return {"type": "object", "required": list(required), "properties": required | (optional or {})} | more


CELL = object_schema(
    {"cell_type": {"type": "string"}, "metadata": {"type": "object"}, "source": {"type": ["string", "array"]}}
)
SCHEMAS = {  # by kind of file; readers of others add theirs
    "list of equal code": schema_of(list[dict]) | {"items": schema_of({"rung": str, "old": str, "new": str})},
    "notebook": object_schema({"cells": {"type": "array", "items": CELL}, "metadata": {"type": "object"}}),
    "list of source steps": schema_of(dict[str, dict]),
    "candidate": schema_of(dict),
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
    """What a text holds, if it is of a kind; ValueError naming the invalid field."""
    return require(json.loads(text, parse_constant=_refuse_constant), kind)


def require(value, kind):
    """The value, if it is of a kind; ValueError naming the invalid field."""
    try:
        return _checker(kind)(value)
    except fastjsonschema.JsonSchemaValueException as error:
        raise ValueError(str(error).removeprefix("data.").removeprefix("data ")) from error


@functools.cache
def _checker(kind):
    return fastjsonschema.compile(SCHEMAS[kind])


def _refuse_constant(name):
    raise ValueError(f"{name} is not a number that a finished epoch can have")
