"""The kernels of csrc/cuda, through the extension module ``fastlstm._cuda``, on CuPy arrays.

CuPy owns memory, streams and the large matrix products (cuBLAS); the time loop of a sequence is one call into
``_cuda``, on the caller's current stream. Nothing here waits for the device, but for the number of rows of a
`RowGrad`. What needs no product may be captured into a graph; the products may not, because CuPy refuses cuBLAS calls
while a stream is captured.
"""

# The families that stand here; the others are on the host only.
FAMILIES = ("dense", "dropout", "embedding", "gru", "losses", "lstm", "optim", "rnn", "sampling")
