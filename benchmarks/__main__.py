"""Run the table: ``python -m benchmarks``."""

# The cores are chosen before numpy starts its threads.
from benchmarks import machine

machine.pin_to_two_cores()

from benchmarks import table  # noqa: E402

table.main()
