"""Training runs that can be repeated with one command, and what they came to."""
