"""What the reports say of the machine they were made on."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version


def describe(*packages: str) -> str:
    """Processor, cores, Python and the versions of ``packages``, in one line."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"
