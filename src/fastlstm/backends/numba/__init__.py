"""Kernels compiled by Numba when they are first called. Importing them compiles nothing.

The operator families stand in the modules of the same names. What they share::

    compiling    the decorators: no GIL, machine code cached on disk where that can be written
    workers      a few threads of our own, instead of Numba's parallel=True
    elementary   exp, sigmoid, tanh and log1p that LLVM vectorises
    reductions   sums and maxima that it vectorises
    products     matrix products on packed weights
    recurrence   what the LSTM and the plain RNN have in common

Every output element is summed in one fixed order, whatever the number of threads, so results are the same bits.
"""
