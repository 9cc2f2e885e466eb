"""StarGAN v2: networks, objective, data, training and sampling. See README.md for the map."""
