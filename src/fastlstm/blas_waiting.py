"""How long the threads of numpy's OpenBLAS wait for their next product by spinning: imported before numpy.

Else they spin for 2^26 cycles of the processor's clock, about 20 ms, on cores that the kernels' threads need: an LSTM
call after a product of numpy's takes twice as long then. 2^18 cycles, 0.1 ms, are as long as threads of ours spin.
OpenBLAS reads the variable when it is loaded: it is too late where numpy has been imported before.
"""

import os
import sys

if "numpy" not in sys.modules:
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "18")
