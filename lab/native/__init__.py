"""The compiled trainer: the same recipes and random numbers in C++, several times faster on a CPU core."""
