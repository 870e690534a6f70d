"""Other code's names on top of this package, so that scripts written for it run unchanged.

``fastlstm.compat.dlfs2`` stands in for the modules of the book "Deep Learning from Scratch 2".
"""
