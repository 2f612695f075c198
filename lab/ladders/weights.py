"""Trained weights of a rung beside its results: results/weights/<rung>.safetensors, a few kB of numbers, never code."""

import json
from pathlib import Path

import torch

from lab.files import write_atomically
from lab.ladders.rungs import find_rungs
from lab.run.results import RESULTS, load_records
from lab.run.schema import DamagedFile

WEIGHTS = RESULTS / "weights"
SEED = 0  # chosen in advance, never the best one


def save_weights(run, folder=WEIGHTS):
    """Keep the network of a finished run, with what its record says about it. Returns the path.

    Raises: ValueError if it is not the published run of its rung.
    """
    from safetensors.torch import save

    record = run.record
    published = [other for other in load_records(record.rung) if other.seed == record.seed]
    if not published or published[0].test_accuracies != record.test_accuracies:
        raise ValueError(f"{record.rung}, seed {record.seed}: this run is not the one in results/{record.rung}.json")
    state = {name: value.cpu().contiguous() for name, value in run.network.state_dict().items()}
    about = {
        "rung": record.rung,
        "seed": str(record.seed),
        "test_correct": str(record.epochs[-1]["test_correct"]),
        "code_digest": record.code_digest,
        "mistakes": json.dumps(_mistakes(run)),
    }
    path = Path(folder) / f"{record.rung}.safetensors"
    write_atomically(path, save(state, about))
    return path


def _mistakes(run):
    """Test images that it gets wrong: index, label, answer."""
    answers, labels = run.predict_test().argmax(1).tolist(), run.digits.test.labels.tolist()
    pairs = enumerate(zip(labels, answers, strict=True))
    return [(index, label, answer) for index, (label, answer) in pairs if label != answer]


def read_about(path):
    """What a file of weights says about itself: strings by name, `mistakes` as a list of index, label, answer.

    Raises: DamagedFile.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as opened:
            about = dict(opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise DamagedFile(f"{path} does not hold weights: {error}. Restore it") from error
    return about | {"mistakes": json.loads(about["mistakes"])} if "mistakes" in about else about


def load_weights(rung_id, folder=WEIGHTS):
    """The trained network of a rung, in eval mode: float32 (N, 1, 28, 28), see `normalise`, to logits (N, 10).

    Raises: FileNotFoundError if no weights are kept for that rung; DamagedFile if they cannot be read, or are not
        those of its network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    network = find_rungs([rung_id])[0].recipe.specimen()
    path = Path(folder) / f"{rung_id}.safetensors"
    if not path.exists():
        kept = ", ".join(sorted(other.stem for other in Path(folder).glob("*.safetensors"))) or "none"
        raise FileNotFoundError(
            f"{path} is not there: weights are kept of {kept}. To make it: make run RUNGS={rung_id} DATASET=mnist, "
            f"then python -m lab weights {rung_id}"
        )
    try:
        network.load_state_dict(load(path.read_bytes()))
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise DamagedFile(f"{path} does not hold the weights of {rung_id}: {reason}. Restore it") from error
    return network.to(memory_format=torch.channels_last)  # as it was trained, so that sums come out the same
