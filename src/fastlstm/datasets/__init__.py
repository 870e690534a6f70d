"""Data sets as arrays of ids.

Files are looked for where their path says and below the folder that the environment variable FASTLSTM_DATA_DIR names.
"""

from fastlstm.datasets.addition import addition, read_addition
from fastlstm.datasets.pairs import SequencePairs, hold_out

__all__ = ["SequencePairs", "addition", "hold_out", "read_addition"]
