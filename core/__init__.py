"""StarGAN v2: networks, objective, data, training and sampling. See docs/architecture.md for the map."""
