"""Device, processes, memory, files and console."""
