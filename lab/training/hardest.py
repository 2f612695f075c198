"""Which images an epoch shows, and in which order: all of them, or those that were hardest when they were last seen.

Source: Loshchilov & Hutter 2015, "Online batch selection for faster training of neural networks", where an image is
drawn the more often, the larger its last loss was. Here the first epoch shows all images, every later one the share
with the largest losses.
"""

import math

import torch


class LastLosses:
    """The loss of every training image when it was last seen, in nats; infinite before that."""

    def __init__(self, images, device):
        self.values = torch.full((images,), torch.inf, device=device)

    def state_dict(self):
        return {"values": self.values}

    def load_state_dict(self, state):
        self.values = state["values"]


def images_by_epoch(recipe, images):
    """How many of `images` training images each epoch shows, as a list."""
    later = math.ceil(recipe.hardest * images) if recipe.hardest else images
    return [images] + [later] * (recipe.epochs - 1)


def batches_by_epoch(recipe, images):
    """The same in batches."""
    return [math.ceil(shown / recipe.batch_size) for shown in images_by_epoch(recipe, images)]


def draw_order(trainee, recipe, images):
    """Which of `images` training images the next epoch shows, int64 on the CPU, in random order."""
    if trainee.losses is None or trainee.losses.values.isinf().any():
        return torch.randperm(images)
    hardest = trainee.losses.values.topk(images_by_epoch(recipe, images)[-1]).indices.cpu()
    return hardest[torch.randperm(len(hardest))]
