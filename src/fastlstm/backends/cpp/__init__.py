"""The compiled kernels of csrc/cpu, through the extension module ``fastlstm._cpu``."""

import fastlstm._cpu as _cpu
from fastlstm.backends.threads import hand_to_cpp

# Asked here so that a wrong FASTLSTM_MAX_ISA is one clear error before the first operator runs.
INSTRUCTION_SET = _cpu.isa()
hand_to_cpp(_cpu)
