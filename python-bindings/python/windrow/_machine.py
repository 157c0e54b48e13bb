"""What this machine, or a batch system's job on it, lets us use."""

from __future__ import annotations

import os

from windrow import _windrow
from windrow._errors import InvalidConfigError


def cores() -> int:
    """Cores: by affinity and cgroup, and by Slurm where it says less."""
    of_machine, _memory = _windrow.machine()
    said = [_number(name) for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE")]
    return min([of_machine, *(number for number in said if number)])


def memory() -> int:
    """Bytes of memory for executors: three quarters of what the machine, the cgroup or Slurm allows."""
    _cores, of_machine = _windrow.machine()
    per_node, per_core = _number("SLURM_MEM_PER_NODE"), _number("SLURM_MEM_PER_CPU")
    allowed = [per_node, per_core * cores() if per_core else None]
    return min([of_machine, *(megabytes * 1_048_576 * 3 // 4 for megabytes in allowed if megabytes)])


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() and int(text) > 0 else None


def memory_limit(limit: str | int | float | None, executors: int) -> int:
    """The bytes of one of ``executors``: a size, a number of bytes, a part of the memory (0.25), or an even share of it (``"auto"``)."""
    if limit is None or limit == "auto":
        return max(1, memory() // executors)
    if isinstance(limit, str):
        return _windrow.parse_size(limit)
    if isinstance(limit, float) and 0 < limit <= 1:
        return max(1, int(memory() * limit))
    if limit <= 0:
        raise InvalidConfigError(f"memory_limit = {limit}: an executor needs memory", hint="write memory_limit='auto' or '2GB'")
    return int(limit)
