"""Benchmarks: every claim of speed, checked before it is timed. ``fastlstm bench`` runs them."""
