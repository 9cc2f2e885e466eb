"""Device, processes, memory, files, console: what the program runs on."""
