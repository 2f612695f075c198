"""Rungs, their goals, what is measured of their runs, and claims about it."""
