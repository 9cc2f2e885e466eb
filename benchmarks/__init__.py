"""Benchmarks of speed, memory and quality. See README.md in this folder."""
