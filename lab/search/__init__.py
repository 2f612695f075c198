"""Trying many networks on held-out training images, with no look at the test set."""
