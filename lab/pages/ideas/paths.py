"""The path of the weights through training, in the plane where most of it happens, with the loss behind it."""

import matplotlib.pyplot as plt
import torch
from torch.nn import functional as F

from lab.numbers import percent
from lab.pages.ideas import at_rest, by_what_it_sees
from lab.pages.picture import finish, listed
from lab.training.loop import prepare

GRID, MARGIN, IMAGES = 21, 0.15, 300
LEAST = 3  # points that make a plane


class Plane:
    """The plane through a point along the two largest directions in which other points lie.

    Args:
        points: float32 (N, weights); the last is the middle.

    `share` is the part of all squared distances from the middle that lies in the plane.
    Source: Li et al. 2018, "Visualizing the loss landscape of neural nets".
    """

    def __init__(self, points):
        self.middle = points[-1]
        _, sizes, directions = torch.linalg.svd(points - self.middle, full_matrices=False)
        self.directions = directions[:2]
        self.share = (sizes[:2].square().sum() / sizes.square().sum()).item()

    def project(self, points):
        """Points (N, weights) as places in the plane, (N, 2)."""
        return (points - self.middle) @ self.directions.T

    def point(self, place):
        return self.middle + torch.as_tensor(place) @ self.directions


def loss_at(network, weights, images, labels):
    """Mean loss of a network with these weights; its normalisations use the statistics of the images."""
    network = by_what_it_sees(at_rest(network))
    ends = 0
    for part in network.parameters():
        start, ends = ends, ends + part.numel()
        part.data.copy_(weights[start:ends].view(part.shape))
    with torch.inference_mode():
        return F.cross_entropy(network(images), labels).item()


def plot_paths(runs, *, grid=GRID):
    """Draw the weights of runs of one network after every epoch, in one plane, and the training loss in that plane.

    The plane goes through the end of the last run. A path is lighter where its epochs are earlier; a dashed one is the
    running average. The loss is that of the first 300 training images, undistorted, without dropout.

    Args:
        runs: Runs by name, of one network, with a trail; one without is left out and named.
    """
    left_out = [name for name, run in runs.items() if not run.trail]
    if left_out:
        print(
            f"Without {', '.join(left_out)}: trained before trails were kept. Delete its checkpoint to train it anew."
        )
    trails = {name: torch.stack(run.trail[1:]) for name, run in runs.items() if run.trail}
    if not trails:
        return None
    if min(map(len, trails.values())) < LEAST:
        print(f"No picture of the path: it takes {LEAST} epochs.")
        return None
    lines = {
        name if row == 0 else f"{name}, average": trail[:, row]
        for name, trail in trails.items()
        for row in range(trail.shape[1])
    }
    plane = Plane(torch.cat([*lines.values()]))
    places = {name: plane.project(points) for name, points in lines.items()}
    figure, axis = plt.subplots(figsize=(6.5, 5))
    run = runs[[*trails][-1]]
    images, labels = prepare(run.digits.train.images[:IMAGES], ()), run.digits.train.labels[:IMAGES]
    everywhere = torch.cat([*places.values()])
    low, high = everywhere.amin(0), everywhere.amax(0)
    across, up = (
        torch.linspace(a - MARGIN * (b - a), b + MARGIN * (b - a), grid) for a, b in zip(low, high, strict=True)
    )
    losses = [[loss_at(run.network, plane.point((x, y)), images, labels) for x in across] for y in up]
    levels = torch.tensor(losses).log10()
    shade = axis.contourf(across, up, levels, levels=20, cmap="Greys", alpha=0.7)
    figure.colorbar(shade, ax=axis, label="log10 of the training loss")
    for position, (name, line) in enumerate(places.items()):
        style = "--" if name.endswith("average") else "-"
        axis.plot(*line.T, style, color=f"C{position}", linewidth=1, label=name)
        axis.scatter(*line.T, s=18, color=f"C{position}", alpha=torch.linspace(0.25, 1, len(line)).numpy())
    axis.set(xlabel="first direction", ylabel="second direction")
    axis.legend(fontsize=8)
    steps = {name: (line[1:] - line[:-1]).norm(dim=1) for name, line in lines.items()}
    said = [f"{name} moves by {step[0]:.2f} in epoch 2 and {step[-1]:.2f} in the last" for name, step in steps.items()]
    words = f"Weights after every epoch in the plane that holds {percent(plane.share)} of their distances from the end"
    return finish(figure, f"{words}: {listed(said)}")
