"""The log and the HTML pages of a run."""
