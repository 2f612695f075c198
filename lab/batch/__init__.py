"""Many notebooks at once: executed, reported, indexed, published."""
