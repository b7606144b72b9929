"""Self-supervision: clips in the order of time, how answers are measured, and features."""
