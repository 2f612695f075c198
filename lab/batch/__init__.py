"""Many notebooks at once: executed, told of, indexed, published."""
