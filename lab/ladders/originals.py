"""What the original tutorials logged, said and claimed: results/originals.json."""

from lab.files import ROOT
from lab.ladders.claims import Claim
from lab.run.schema import read_json

ORIGINALS = ROOT / "results" / "originals.json"


def source_steps():
    """What every step of the originals logged and said, by name."""
    return read_json(ORIGINALS, "list of source steps")


def original_claims():
    """Every effect that they claim, as pairs of the step's name and a Claim."""
    return [(name, Claim(**claim)) for name, step in source_steps().items() for claim in step.get("claims", [])]
