"""The book "Deep Learning from Scratch 2" on these kernels: its scripts run unchanged and print the same losses.

Either two lines before a script's first import of the book's modules::

    from fastlstm.compat import dlfs2
    dlfs2.install()

or none at all: ``python -m fastlstm.compat.dlfs2 train.py``. What is replaced and what stays: docs/dlfs2.md.
"""

from fastlstm.compat.dlfs2.installing import install, installed, uninstall

__all__ = ["install", "installed", "uninstall"]
