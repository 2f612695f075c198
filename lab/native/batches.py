"""What happens to each batch: the random numbers and the rates that training with torch would use."""

import numpy as np
import torch

from lab.native.describe import dropped_of
from lab.native.seam import SIDE, STEP
from lab.training.augment import ColorJitter, RandomAffine, RandomRotation, distort
from lab.training.averaging import average_decay
from lab.training.schedules import step_after_batch

KNOWN = (RandomRotation, RandomAffine, ColorJitter)


def known_transforms(recipe):
    """The transforms of a recipe if the trainer can apply all of them itself, else None."""
    return recipe.augmentation if all(type(transform) in KNOWN for transform in recipe.augmentation) else None


def draw(trainee, recipe, split, order):
    """The random numbers that training with torch would draw for some batches, and what they decide.

    Returns: float32 (N, transforms, 5) where the trainer distorts, see images.h; else grey levels, float32
        (N, 1, 28, 28), as torch has distorted them.
    """
    transforms, drawn = known_transforms(recipe), []
    with trainee.augmentation:
        for batch in order.split(recipe.batch_size):
            if transforms is None:
                drawn.append(distort(split.images[batch], recipe.augmentation) * 255)
            else:
                parameters = [_parameters(transform, len(batch)) for transform in transforms]
                drawn.append(torch.stack(parameters, dim=1) if parameters else torch.empty(len(batch), 0, 5))
    return torch.cat(drawn).contiguous()


def _parameters(transform, count):
    """What `transform` draws for `count` images, (N, 5) as images.h lists it."""
    if type(transform) is RandomAffine:
        degrees, shift, scale, shear = transform.draw(count, SIDE)
        return torch.stack([degrees, *shift.T, scale, shear], dim=1)
    if type(transform) is RandomRotation:  # counter-clockwise, see lab.training.augment.rotate
        return torch.stack([-transform.draw(count), *torch.tensor([0.0, 0, 1, 0])[:, None].expand(-1, count)], dim=1)
    return torch.stack([*map(torch.Tensor.float, transform.draw(count)), *torch.zeros(2, count)], dim=1)


def plan_steps(trainee, recipe, batches):
    """How an epoch's batches are trained on, as STEP; the schedule advances as far as it would with torch.

    Rates and momenta are the schedule's own. `take` is the share of the new weights that enters the average after each
    batch, 1 where none is kept. Dropout, if there is any, draws from keys made of torch's random numbers.
    """
    trainee.optimizer.zero_grad()
    (group, *_), steps = trainee.optimizer.param_groups, np.zeros(batches, dtype=STEP)
    before = int(trainee.average.n_averaged) if recipe.average else 0
    for count, step in enumerate(steps, start=before):
        step["rate"], step["momentum"] = group["lr"], group["momentum"]
        step["take"] = 1 - average_decay(recipe.average, count) if recipe.average and count else 1
        trainee.optimizer.step()  # without gradients it does nothing, but the schedule expects it
        step_after_batch(recipe, trainee.schedule)
    if any(map(dropped_of, trainee.network.modules())):
        steps["key"] = torch.randint(2**63 - 1, (batches,)).numpy()
    return steps
