"""Version of the software, as stores, checkpoints and exports record it."""

from __future__ import annotations

from typing import Final

__version__: Final = "0.1.0"
