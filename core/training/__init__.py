"""The training loop, its log and its page."""
