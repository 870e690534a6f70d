"""Graphs of a GPU's work, for whoever repeats a step of a training. Loads CuPy: import it where there is a GPU."""

from fastlstm.backends.cuda.graph import Capture, GraphScalars, bypassed_allocator

__all__ = ["Capture", "GraphScalars", "bypassed_allocator"]
