"""The kernels of csrc/cuda, through the extension module ``fastlstm._cuda``, on CuPy arrays.

CuPy owns memory, streams and the large matrix products (cuBLAS); the time loop of a sequence is one call into
``_cuda``, on the caller's current stream. Nothing here synchronises, but for the number of rows of a
`RowGrad`. All else may be captured into a graph; products too, where cuBLAS can be called by a handle of our own:
`cublas`.
"""

# The families that stand here; the others are on the host only.
FAMILIES = ("dense", "dropout", "embedding", "gru", "losses", "lstm", "optim", "rnn", "sampling")
