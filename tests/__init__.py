"""Tests. This file makes them a regular package, since torch-fidelity installs a package of the same name."""
