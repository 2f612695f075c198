"""Images per second of a training loop; standard library alone, since peers have environments of their own."""

import time

WARM_UP_BATCHES, SECONDS = 16, 8.0
BATCH = 128


class EnoughMeasured(Exception):
    """Raised to leave a training loop once the time is over."""


class Meter:
    """Called after every batch: counts them after a warm-up, until the time is over."""

    def __init__(self):
        self.batches, self.started = -WARM_UP_BATCHES, None

    def __call__(self):
        self.batches += 1
        if self.batches == 0:
            self.started = time.perf_counter()
        elif self.batches > 0 and time.perf_counter() - self.started > SECONDS:
            raise EnoughMeasured

    @property
    def images_per_second(self):
        return self.batches * BATCH / (time.perf_counter() - self.started)


def measure(train):
    """Images per second of `train`, a function that trains an epoch and calls what it is given after every batch."""
    meter = Meter()
    try:
        while True:
            train(meter)
    except EnoughMeasured:
        return meter.images_per_second
