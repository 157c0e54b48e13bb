"""Files that say where a scheduler is, for clients that are started beside it: by a batch system, or in another terminal."""

from __future__ import annotations

import json
import os
from typing import Any, TypeVar

from windrow._errors import InvalidConfigError, NotFoundError

T = TypeVar("T")


def write(path: str | os.PathLike[str], address: str, token: str) -> str:
    """Writes the file, which its owner alone may read, and returns its full path. Whoever reads it at any time sees all of it, or none."""
    full = os.path.abspath(os.fspath(path))
    partial = f"{full}.{os.getpid()}"
    with open(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump({"type": "windrow.Scheduler", "address": address, "token": token}, file)
    os.replace(partial, full)
    return full


def remove(path: str) -> None:
    """Removes the file. Harmless when done before."""
    try:
        os.remove(path)
    except FileNotFoundError:
        pass


def of(path: str | os.PathLike[str], address: T | None, token: str | None) -> tuple[str, str | None]:
    """The address of the file, and the token: that of the file, if none is given.

    Raises:
        NotFoundError: there is no such file.
        InvalidConfigError: it says no address, or another one is given.
    """
    name = os.fspath(path)
    if address is not None:
        raise InvalidConfigError(f"the address {address!r} and scheduler_file = {name!r}", hint="give one of them")
    try:
        with open(path, encoding="utf-8") as file:
            said: Any = json.load(file)
    except FileNotFoundError:
        raise NotFoundError(f"there is no scheduler file {name!r}", hint="it is there while its cluster runs") from None
    except (OSError, ValueError) as why:
        raise InvalidConfigError(f"the scheduler file {name!r} cannot be read: {why}") from why
    found = said.get("address") if isinstance(said, dict) else None
    if not isinstance(found, str):
        raise InvalidConfigError(
            f"the scheduler file {name!r} has no address", hint='it is JSON: {"address": "grpc://host:8815"}'
        )
    kept = said.get("token")
    return found, token or (kept if isinstance(kept, str) else None)
