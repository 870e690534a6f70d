"""Run the suite: ``python -m benchmarks``."""

# The cores and kernels are chosen before numpy starts its threads.
from benchmarks import machine

machine.pin_to_two_cores()
machine.let_numpy_choose_its_kernels()

from benchmarks import command  # noqa: E402

command.main()
