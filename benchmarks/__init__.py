"""Benchmarks: every claim of speed, checked before it is timed. ``python -m benchmarks`` prints the table of bounds."""
