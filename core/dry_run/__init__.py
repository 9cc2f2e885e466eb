"""What a command line would do and cost, without doing it."""
