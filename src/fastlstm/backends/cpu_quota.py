"""The share of the processors that a container or a job may use: the quotas of Linux's control groups.

A quota is no set of processors: ``docker run --cpus 2`` on a machine of 64 leaves all of them in sight, and 64 threads
are then stopped together after a thirty-second of every period.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Processors that the process may keep busy by its control groups, versions 1 and 2; None without a quota.

    Parameters
    ----------
    root : path
        Below which /proc and the mounted control groups are looked for.
    """
    try:
        return min(_quotas(root), default=None)
    except (OSError, ValueError):  # no Linux, no /proc, or files of another kind
        return None


def _quotas(root: Path) -> Iterator[float]:
    """The quota of the process's group and of every group around it."""
    # Lines such as "4:cpu,cpuacct:/docker/1a2b" and, of version 2, "0::/user.slice".
    groups = {}
    for line in (root / "proc/self/cgroup").read_text().splitlines():
        _, controllers, group = line.split(":", 2)
        groups[controllers] = group
    for line in (root / "proc/self/mountinfo").read_text().splitlines():
        mount, _, filesystem = line.partition(" - ")
        kind, _, options = filesystem.split(" ", 2)
        mounted, place = mount.split(" ")[3:5]
        for controllers, group in groups.items():
            if kind == "cgroup2" and controllers == "":
                read = _quota_2
            elif kind == "cgroup" and "cpu" in controllers.split(",") and "cpu" in options.split(","):
                read = _quota_1
            else:
                continue
            # What is mounted may be a group itself, of which a container sees no more.
            below = Path(group).relative_to(mounted) if Path(group).is_relative_to(mounted) else Path()
            top = root / place.lstrip("/")
            folder = top / below
            for around in (folder, *folder.parents):
                if not around.is_relative_to(top):
                    break
                quota = read(around)
                if quota is not None:
                    yield quota


def _quota_2(group: Path) -> float | None:
    file = group / "cpu.max"
    if not file.exists():  # the topmost group has none
        return None
    quota, period = file.read_text().split()
    return None if quota == "max" else int(quota) / int(period)


def _quota_1(group: Path) -> float | None:
    file = group / "cpu.cfs_quota_us"
    if not file.exists():
        return None
    quota = int(file.read_text())
    return None if quota < 0 else quota / int((group / "cpu.cfs_period_us").read_text())
