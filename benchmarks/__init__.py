"""What the program costs, measured: see README.md in this folder."""
