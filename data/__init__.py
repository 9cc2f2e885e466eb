"""Data sets: code that makes them lives here, and so do, ignored by git, the pictures themselves."""
