"""A running average of weights.

Source: Polyak & Juditsky 1992; with exponential decay as in Tarvainen & Valpola 2017, "Mean teachers".
"""

from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def build_average(recipe, network):
    """A running average of the network, batch statistics included, or None if the recipe keeps none."""
    if not recipe.average:
        return None

    def update(averages, values, batches):
        get_ema_multi_avg_fn(average_decay(recipe.average, int(batches)))(averages, values, batches)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


def average_decay(most, batches):
    """Decay per batch of an average after this many batches: small at first, so that it forgets its start.

    The average covers about the last tenth of the batches so far, until `most` limits it. Source: TensorFlow's
    `tf.train.ExponentialMovingAverage`.
    """
    return min(most, (1 + batches) / (10 + batches))
