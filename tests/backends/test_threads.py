"""Where threads run and when they do not: bound callers, busy cores, quotas, programs that end while others compute."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from programs import run

import fastlstm
from fastlstm.backends.cpu_quota import cpu_quota

CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []

needs_cpp = pytest.mark.skipif("cpp" not in fastlstm.available_backends(), reason="the extension _cpu is not built")
needs_two_cores = pytest.mark.skipif(len(CORES) < 2, reason="needs two cores, and a system that binds threads to them")


@needs_cpp
@needs_two_cores
def test_a_team_has_no_more_threads_than_its_caller_has_cores() -> None:
    program = """
        from fastlstm import _cpu
        fastlstm.set_num_threads(2)
        print(_cpu.team_size(2))
        os.sched_setaffinity(0, CORES[:1])
        print(_cpu.team_size(2))
        os.sched_setaffinity(0, CORES[:2])
        print(team_comes())
    """
    assert run(program).split() == ["2", "1", "True"]


@needs_two_cores
def test_threads_run_on_the_cores_of_the_process_not_of_their_caller(compiled_backend: str) -> None:
    program = """
        fastlstm.set_num_threads(2)
        if fastlstm.get_backend() == "cpp":
            from fastlstm import _cpu
            _cpu.set_teams_always(True)
        before = threads()
        os.sched_setaffinity(0, CORES[:1])
        ops.matrix_product(numbers(300, 300), numbers(300, 300))
        ops.lstm_forward(numbers(64, 20, 64), numbers(64, 512), numbers(128, 512), numbers(512))
        made = threads() - before
        print(len(made) > 0, all(os.sched_getaffinity(thread) == set(CORES) for thread in made))
    """
    assert run(program, FASTLSTM_BACKEND=compiled_backend, OPENBLAS_NUM_THREADS="1") == "True True"


@needs_cpp
@needs_two_cores
def test_regions_run_alone_while_another_process_keeps_a_worker_from_its_core() -> None:
    program = """
        from fastlstm import _cpu
        fastlstm.set_num_threads(2)
        before = threads()
        assert _cpu.team_size(2) == 2
        (worker,) = threads() - before

        # A worker of the lowest priority, beside a process that never waits.
        busy = os.fork()
        if busy == 0:
            os.sched_setaffinity(0, CORES[1:2])
            while os.getppid() != 1:
                pass
            os._exit(0)
        os.sched_setaffinity(worker, CORES[1:2])
        os.sched_setscheduler(worker, os.SCHED_IDLE, os.sched_param(0))
        try:
            end = time.monotonic() + 60
            sizes = []
            while sizes.count(1) < 90 and time.monotonic() < end:
                sizes = [_cpu.team_size(2) for _ in range(100)]
        finally:
            os.kill(busy, 9)
            os.waitpid(busy, 0)
        print(sizes.count(1) >= 90)

        os.sched_setscheduler(worker, os.SCHED_OTHER, os.sched_param(0))
        print(team_comes())
    """
    assert run(program).split() == ["True", "True"]


def test_a_program_ends_while_its_daemon_threads_compute(compiled_backend: str) -> None:
    program = """
        inputs = numbers(20, 35, 64), numbers(64, 256), numbers(64, 256), numbers(256)
        dhs = numbers(20, 35, 64)

        def compute():
            while True:
                ops.lstm_backward(dhs, ops.lstm_forward(*inputs).tape)

        ops.lstm_backward(dhs, ops.lstm_forward(*inputs).tape)
        for _ in range(3):
            threading.Thread(target=compute, daemon=True).start()
        time.sleep(0.1)
        print("done")
    """
    for _ in range(3):
        assert run(program, FASTLSTM_BACKEND=compiled_backend) == "done"


@pytest.mark.parametrize(
    "imports",
    [
        "import fastlstm, numpy as np",
        "import numpy as np, fastlstm",
        "import numpy as np; np.ones((256, 256)) @ np.ones((256, 256)); import fastlstm",
        "import numpy as np; from scipy.linalg.blas import sgemm; import fastlstm",
    ],
)
def test_threads_of_numpys_products_do_not_keep_the_cores(imports: str) -> None:
    product = "a @ a"
    if "scipy" in imports:
        pytest.importorskip("scipy", reason="SciPy is not installed: pip install scipy")
        product = "sgemm(1, a, a)"
    program = f"""
        import os, time
        a = np.ones((256, 256), np.float32)
        before = time.process_time()
        for _ in range(20):
            assert ({product} == 256).all()
            time.sleep(0.03)
        spent = time.process_time() - before  # 0.4 s and more where they spin for 20 ms
        print(os.environ["OPENBLAS_THREAD_TIMEOUT"], spent < 0.35)
    """
    printed = run(program, start=imports + "\n", OPENBLAS_THREAD_TIMEOUT=None, OPENBLAS_NUM_THREADS=None)
    assert printed.split() == ["18", "True"]


@pytest.mark.parametrize("imports", ["import os, fastlstm", "import os, numpy, fastlstm"])
def test_how_long_a_user_lets_them_wait_stays(imports: str) -> None:
    assert (
        run("print(os.environ['OPENBLAS_THREAD_TIMEOUT'])", start=imports + "\n", OPENBLAS_THREAD_TIMEOUT="26") == "26"
    )


def test_products_in_other_threads_and_children_go_on() -> None:
    program = """
        import multiprocessing, sys, threading
        import numpy as np

        a = np.ones((200, 200))
        right = []

        def total(a):
            return (a @ a).sum()

        def multiply(times):
            for _ in range(times):
                right.append(bool((a @ a == 200).all()))

        threads = [threading.Thread(target=multiply, args=(100,)) for _ in range(3)]
        if "busy" in sys.argv:
            for thread in threads:
                thread.start()
        import fastlstm
        if "busy" not in sys.argv:
            for thread in threads:
                thread.start()
        for thread in threads:
            thread.join()
        with multiprocessing.get_context("fork").Pool(2) as pool:
            sums = pool.map(total, [a, a])
        multiply(1)
        print(len(right), all(right), *map(float, sums))
    """
    for busy in ("", "import sys; sys.argv.append('busy')\n"):
        printed = run(program, start=busy, OPENBLAS_THREAD_TIMEOUT=None, OPENBLAS_NUM_THREADS="2")
        assert printed == f"301 True {200.0**3} {200.0**3}"


def test_products_go_on_in_a_thread_that_only_the_interpreter_knows() -> None:
    program = """
        import _thread, time
        import numpy as np

        a, done = np.ones((300, 300)), []

        def multiply():
            while True:
                done.append(a @ a)

        def wait_for(products):
            del done[:]
            while len(done) < products:
                time.sleep(0.001)

        _thread.start_new_thread(multiply, ())
        wait_for(3)
        import fastlstm
        wait_for(3)
        print("goes on")
    """
    assert run(program, start="", OPENBLAS_THREAD_TIMEOUT=None, OPENBLAS_NUM_THREADS="2") == "goes on"


VERSION_1 = "31 30 0:29 {root} /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct"
VERSION_2 = "31 30 0:29 {root} /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"


def system(root: Path, groups: str, mount: str, files: dict[str, str]) -> Path:
    """A tree with the files of /proc and of control groups."""
    for name, text in {"proc/self/cgroup": groups, "proc/self/mountinfo": mount, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return root


@pytest.mark.parametrize(
    ("groups", "mount", "files", "quota"),
    [
        ("0::/", VERSION_2.format(root="/"), {}, None),
        ("0::/", VERSION_2.format(root="/"), {"sys/fs/cgroup/cpu.max": "max 100000"}, None),
        ("0::/", VERSION_2.format(root="/"), {"sys/fs/cgroup/cpu.max": "150000 100000"}, 1.5),
        # A group around the process's has less.
        (
            "0::/a/b",
            VERSION_2.format(root="/"),
            {"sys/fs/cgroup/a/cpu.max": "50000 100000", "sys/fs/cgroup/a/b/cpu.max": "200000 100000"},
            0.5,
        ),
        (
            "3:memory:/m\n2:cpu,cpuacct:/job\n0::/",
            VERSION_1.format(root="/"),
            {"sys/fs/cgroup/cpu/job/cpu.cfs_quota_us": "300000", "sys/fs/cgroup/cpu/job/cpu.cfs_period_us": "100000"},
            3.0,
        ),
        ("2:cpu,cpuacct:/", VERSION_1.format(root="/"), {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1"}, None),
        # A container that sees its own group only, under the name it has outside.
        (
            "2:cpu,cpuacct:/docker/1a2b",
            VERSION_1.format(root="/docker/1a2b"),
            {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": "200000", "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000"},
            2.0,
        ),
        ("0::/", VERSION_2.format(root="/"), {"sys/fs/cgroup/cpu.max": "nonsense"}, None),
    ],
)
def test_quotas_of_control_groups(
    tmp_path: Path, groups: str, mount: str, files: dict[str, str], quota: float | None
) -> None:
    assert cpu_quota(system(tmp_path, groups, mount, files)) == quota


def test_a_system_without_control_groups_has_no_quota(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path) is None
