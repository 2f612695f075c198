"""What a network does to an image, layer by layer, looked at without changing it: receptive fields."""
