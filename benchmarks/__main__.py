"""Run the suite: ``python -m benchmarks``."""

# The cores are chosen before numpy starts its threads.
from benchmarks import machine

machine.pin_to_two_cores()

from benchmarks import command  # noqa: E402

command.main()
