"""The original tutorials: who wrote them, and what they logged, said and claimed, in results/originals.json."""

from dataclasses import dataclass

from lab.files import ROOT
from lab.ladders.claims import Claim
from lab.run.schema import read_json

ORIGINALS = ROOT / "results" / "originals.json"


@dataclass(frozen=True)
class Tutorial:
    """One of the five: the title of its page, the account that published it, and where its notebooks are."""

    title: str
    author: str
    address: str | None = None
    folder: str = ""

    def __str__(self):
        return f"[{self.title}]({self.address})" if self.address else f"*{self.title}*"


TUTORIALS = {
    "t000": Tutorial(
        "MNIST Fine tuning experiments",
        "gkdivya",
        "https://github.com/gkdivya/EVA",
        "5_CodingDrillDown/Experiments",
    ),
    "t001": Tutorial(
        "Session 1 - MNIST 99.4% Test Accuracy",
        "gmshashank",
        "https://github.com/gmshashank/pytorch_vision",
        "MNIST/Session1",
    ),
    "t002": Tutorial("CodeCodeCode", "not known"),
    "t003": Tutorial(
        "Finetune CNN Architecture on MNIST dataset", "gkdivya", "https://github.com/gkdivya/EVA", "5_CodingDrillDown"
    ),
    "t004": Tutorial(
        "Step by Step Design for digit classification on MNIST data using PyTorch",
        "adil22jaleel",
        "https://github.com/adil22jaleel/era-v1-assignments",
        "s7_assignment, branch s7",
    ),
}


def source_steps():
    """What every step of the originals logged and said, by name."""
    return read_json(ORIGINALS, "list of source steps")


def original_claims():
    """Every effect that they claim, as pairs of the step's name and a Claim."""
    return [(name, Claim(**claim)) for name, step in source_steps().items() for claim in step.get("claims", [])]
