"""The command ``fastlstm``."""

from fastlstm.cli.command import main

__all__ = ["main"]
