"""Ctrl-C within a kernel, forks while others compute, and limits of memory and threads: the process goes on."""

from __future__ import annotations

import sys

import pytest
from programs import run

import fastlstm

pytestmark = [
    pytest.mark.skipif("cpp" not in fastlstm.available_backends(), reason="the extension _cpu is not built"),
    pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals and fork"),
]

CTRL_C = """
        import signal
        from types import SimpleNamespace
        from fastlstm import _cpu

        fastlstm.set_backend("cpp")
        fastlstm.set_num_threads(THREADS)
        _cpu.set_teams_always(True)

        def press_after(seconds):
            threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_ctrl_c_leaves_a_kernel_before_its_end(threads: int) -> None:
    program = """
        h, W, targets = numbers(8000, 256), numbers(256, 60000), rng.integers(0, 60000, 8000)
        dW = np.full((256, 60000), np.nan, np.float32)
        press_after(0.5)
        try:
            ops.linear_cross_entropy(h, W, None, targets, out=SimpleNamespace(loss=None, dh=None, dW=dW, db=None))
        except KeyboardInterrupt:
            print("stopped", np.isnan(dW).any())

        # The same thread, its pool and its buffers are fit for use.
        inputs = numbers(20, 35, 64), numbers(64, 256), numbers(64, 256), numbers(256)
        before = ops.lstm_forward(*inputs).hs
        xs, Wx, Wh = numbers(128, 3000, 512), numbers(512, 2048), numbers(512, 2048)
        press_after(0.3)
        try:
            ops.lstm_forward(xs, Wx, Wh, None, training=False)
        except KeyboardInterrupt:
            print("stopped")
        print(np.array_equal(before, ops.lstm_forward(*inputs).hs))
    """
    assert run(CTRL_C.replace("THREADS", str(threads)) + program) == "stopped True\nstopped\nTrue"


def test_handler_that_raises_nothing_lets_the_kernel_go_on_and_may_compute() -> None:
    program = """
        inputs = numbers(20, 35, 64), numbers(64, 256), numbers(64, 256), numbers(256)
        seen = []
        signal.signal(signal.SIGINT, lambda *_: seen.append(ops.lstm_forward(*inputs).hs))
        a = numbers(2000, 2000)
        while not seen:
            press_after(0.0)
            product = ops.matrix_product(a, a)
        print(np.array_equal(product, ops.matrix_product(a, a)))
        print(np.array_equal(seen[0], ops.lstm_forward(*inputs).hs))
    """
    assert run(CTRL_C.replace("THREADS", "2") + program) == "True\nTrue"


def test_interrupted_backward_leaves_a_tape_that_can_be_used_again() -> None:
    program = """
        xs, Wx, Wh = numbers(64, 150, 256), numbers(256, 1024), numbers(256, 1024)
        forward = ops.lstm_forward(xs, Wx, Wh, None)
        whole = ops.lstm_backward(None, ops.lstm_forward(xs, Wx, Wh, None).tape, dh_n=forward.h_n)
        pressed = 0
        for seconds in (0.1, 0.15, 0.2):
            press_after(seconds)
            try:
                while True:
                    ops.lstm_backward(None, forward.tape, dh_n=forward.h_n)
            except KeyboardInterrupt:
                pressed += 1
        again = ops.lstm_backward(None, forward.tape, dh_n=forward.h_n)
        print(pressed, all(np.array_equal(a, b) for a, b in zip(whole, again) if a is not None))
    """
    assert run(CTRL_C.replace("THREADS", "2") + program) == "3 True"


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_child_forked_while_a_thread_is_in_the_backward_of_a_tape_can_use_it(kind: str) -> None:
    program = """
        import signal

        fastlstm.set_backend("cpp")
        gates = 4 if KIND == "lstm" else 3
        inputs = numbers(32, 40, 64), numbers(64, gates * 64), numbers(64, gates * 64), numbers(gates * 64)
        forward, backward = getattr(ops, KIND + "_forward"), getattr(ops, KIND + "_backward")
        out = forward(*inputs)
        whole = backward(out.hs, out.tape)

        def compute():
            while True:
                backward(out.hs, out.tape)

        threading.Thread(target=compute, daemon=True).start()
        good = 0
        for _ in range(12):
            time.sleep(0.01)
            child = os.fork()
            if child == 0:
                signal.alarm(30)  # ends a child that waits for a lock which nobody opens
                again = backward(out.hs, out.tape)
                same = all(np.array_equal(a, b) for a, b in zip(whole, again) if a is not None)
                os._exit(0 if same else 1)
            good += os.waitpid(child, 0)[1] == 0
        print(good)
    """
    assert run(f"        KIND = {kind!r}\n" + program) == "12"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep RLIMIT_AS")
def test_error_says_how_much_memory_for_what_could_not_be_had() -> None:
    program = """
        import resource
        from pathlib import Path

        fastlstm.set_backend("cpp")
        inputs = numbers(8, 20, 32), numbers(32, 128), numbers(32, 128), numbers(128)
        before = ops.lstm_forward(*inputs).hs
        xs, Wx, Wh = numbers(400, 100, 8), numbers(8, 4096), numbers(1024, 4096)
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + (256 << 20), -1))
        for _ in range(3):
            try:
                ops.lstm_forward(xs, Wx, Wh, None)
            except MemoryError as error:
                print("GB could not be had for" in str(error))
        print(np.array_equal(before, ops.lstm_forward(*inputs).hs))
    """
    assert run(program) == "True\nTrue\nTrue\nTrue"


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_NPROC counts threads on Linux")
def test_no_more_threads_to_be_had_is_a_smaller_team() -> None:
    program = """
        import resource

        fastlstm.set_backend("cpp")
        from fastlstm import _cpu
        _cpu.set_teams_always(True)
        inputs = numbers(64, 20, 64), numbers(64, 256), numbers(64, 256), numbers(256)
        fastlstm.set_num_threads(1)
        alone = ops.lstm_forward(*inputs).hs
        resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
        if os.getuid() == 0:
            os.setuid(65534)  # root has no such limit
        fastlstm.set_num_threads(4)
        print(_cpu.team_size(4), np.array_equal(alone, ops.lstm_forward(*inputs).hs))
    """
    assert run(program) == "1 True"
