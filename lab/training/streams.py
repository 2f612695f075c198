"""Streams of random numbers that do not touch each other."""

import hashlib

import torch


class RandomStream:
    """Random numbers from a seed of their own: inside `with stream:` torch draws from it, on the CPU and the device.

    What is drawn outside neither changes the stream nor is changed by it, so that a network with dropout sees the
    same distortions as one without, in the same order.
    """

    def __init__(self, name, seed, device):
        self.device = device
        own = hashlib.sha256(f"{name} {seed}".encode()).digest()[:8]
        outside = self._now()
        torch.manual_seed(int.from_bytes(own) >> 1)
        self.state = self._now()
        self._become(outside)

    def __enter__(self):
        self.outside = self._now()
        self._become(self.state)

    def __exit__(self, *_):
        self.state = self._now()
        self._become(self.outside)

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = {name: value.cpu() for name, value in state.items()}

    def _now(self):
        return {name: _generator(name).get_rng_state() for name in {"cpu", self.device.type}}

    def _become(self, states):
        for name, state in states.items():
            _generator(name).set_rng_state(state)


def _generator(device_type):
    return torch if device_type == "cpu" else getattr(torch, device_type)
