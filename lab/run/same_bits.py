"""Which digests of code were shown to give the same bits, see `lab.ladders.carry`: results/same_bits.json."""

import json

from lab.files import ROOT, write_atomically
from lab.run.schema import read_json

SAME_BITS = ROOT / "results" / "same_bits.json"


def equal_digests(rung, digest, path=SAME_BITS):
    """`digest`, and those of all earlier code that was shown to give the same bits for a rung."""
    known, entries = {digest}, [entry for entry in _read(path) if entry["rung"] == rung]
    while found := {entry["old"] for entry in entries if entry["new"] in known} - known:
        known |= found
    return known


def _read(path):
    return read_json(path, "list of equal code") if path.exists() else []


def note(path, entry):
    """Add an entry: rung, old and new digest."""
    lines = ",\n".join(json.dumps(known) for known in [*_read(path), entry])
    write_atomically(path, f"[\n{lines}\n]\n")
