"""StarGAN v2: networks, objective, data, training and sampling. See docs/architecture.md for the map."""

__version__ = "0.1.0"
