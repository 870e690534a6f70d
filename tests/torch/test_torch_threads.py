"""The kernels on PyTorch's threads: which run, how many, and that forks and the bits do not mind."""

from __future__ import annotations

import os
import sys

import pytest
from programs import run

import fastlstm

pytestmark = [
    pytest.mark.needs_torch,
    pytest.mark.skipif(sys.platform != "linux" or len(os.sched_getaffinity(0)) < 2, reason="needs Linux and two cores"),
    pytest.mark.skipif("cpp" not in fastlstm.available_backends(), reason="the extension _cpu is not built"),
]
pytest.importorskip("torch", reason="PyTorch is not installed: pip install torch")

START = """
import torch
import fastlstm.torch
from fastlstm import _cpu

torch.set_num_threads(2)
fastlstm.set_num_threads(2)
inputs = numbers(64, 20, 64), numbers(64, 512), numbers(128, 512), numbers(512)

def digest():
    tape = ops.lstm_forward(*inputs).tape
    return hash(ops.lstm_backward(inputs[0][..., :1].repeat(128, 2), tape).dWh.tobytes())

def of_torch():
    torch.ones(1 << 20).exp_()
"""


def of(program: str) -> list[str]:
    return run(START + program).split()


def test_regions_run_on_the_threads_that_pytorch_has() -> None:
    program = """
_cpu.set_teams_always(True)
of_torch()
before = threads()
print(_cpu.team_size(2), _cpu.team_size(7), len(threads() - before))
digest()
of_torch()
print(len(threads() - before))

torch.set_num_threads(1)  # PyTorch starts no threads: ours are at work
print(_cpu.team_size(2), len(threads() - before))

torch.set_num_threads(4)  # a smaller team leaves it all of them
of_torch()
before = threads()
print(_cpu.team_size(2))
of_torch()
print(threads() == before)
"""
    assert of(program) == ["2", "2", "0", "0", "2", "1", "2", "True"]


def test_a_new_thread_takes_the_number_that_was_set() -> None:
    program = """
_cpu.set_teams_always(True)
fastlstm.set_num_threads(4)
sizes = [_cpu.team_size(4)]
caller = threading.Thread(target=lambda: sizes.append(_cpu.team_size(4)))  # before PyTorch computes there
caller.start()
caller.join()
print(*sizes)
"""
    assert run(START + program, OMP_NUM_THREADS="4").split() == ["2", "2"]


def test_the_bits_are_those_of_our_own_threads() -> None:
    program = """
_cpu.set_teams_always(True)
found = set()
for number in (1, 2, 3):
    torch.set_num_threads(number)
    found.add(digest())
print(len(found))
"""
    assert of(program) == ["1"]


def test_a_forked_child_computes_and_so_do_threads() -> None:
    program = """
_cpu.set_teams_always(True)
of_torch()
expected = digest()
child = os.fork()
if child == 0:
    os._exit(0 if digest() == expected and _cpu.team_size(2) == 2 else 1)
print(os.waitpid(child, 0)[1])

found = []
callers = [threading.Thread(target=lambda: found.extend([of_torch(), digest()])) for _ in range(4)]
for caller in callers:
    caller.start()
for caller in callers:
    caller.join()
print(found.count(expected))
"""
    assert of(program) == ["0", "4"]


def test_ctrl_c_stops_a_call_on_pytorchs_threads() -> None:
    program = """
import _thread
_cpu.set_teams_always(True)
long = numbers(64, 20000, 64)
timer = threading.Timer(0.3, _thread.interrupt_main)
timer.start()
begin = time.monotonic()
try:
    ops.lstm_forward(long, *inputs[1:])
    print("ended")
except KeyboardInterrupt:
    print("stopped")
print(time.monotonic() - begin < 2)
"""
    assert of(program) == ["stopped", "True"]
