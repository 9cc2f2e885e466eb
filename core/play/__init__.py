"""A page on this computer to play with a model."""
