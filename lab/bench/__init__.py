"""How fast training is, side by side with others on the same machine: `make bench`."""
