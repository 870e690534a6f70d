"""mpiexec for tests: which one, and whether what it starts finds each other."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parent
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(SUPPORT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    # Open MPI asks for these where there are fewer cores than processes, and where root runs it.
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
}


def find_mpiexec() -> str:
    """That of the environment the tests run in, whose library mpi4py finds first; else any. Skips without one."""
    beside = Path(sys.executable).with_name("mpiexec")
    command = str(beside) if beside.exists() else shutil.which("mpiexec")
    if importlib.util.find_spec("mpi4py") is None or command is None:
        pytest.skip('needs mpi4py and mpiexec: pip install "fastlstm[mpi]"')
    code = "from mpi4py import MPI; raise SystemExit(MPI.COMM_WORLD.Get_size() != 2)"
    arguments = [command, "-n", "2", sys.executable, "-c", code]
    tried = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    if tried.returncode:
        pytest.skip(f"{command} and the library that mpi4py loads do not belong together: {tried.stderr[-300:]}")
    return command


def start(mpiexec: str, n: int, arguments: Sequence[str | Path], folder: Path | None = None) -> subprocess.Popen[str]:
    """n processes of Python."""
    return subprocess.Popen(
        [mpiexec, "-n", str(n), sys.executable, *arguments],
        env=ENVIRONMENT,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Ctrl-C reaches a program that the shell started in the foreground.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
