"""What a tracker is told of a run, and what every tracker does."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from salibi_data.store.filesystem import write_atomically
from salibi_data.store.redaction import redact
from salibi_model.checkpoints.files import RunFolder

PROJECT: Final = "salibi"
"""Project or experiment that runs go to, unless the tracker's own variable names another."""


class Tracker(ABC):
    """One run at one tracker. No method raises for what happens at the other end."""

    @abstractmethod
    def log(self, row: Mapping[str, float]) -> None:
        """Send the values of a step; ``row["step"]`` says which."""

    @abstractmethod
    def log_image(self, name: str, step: int, path: Path) -> None:
        """Send an image file that shows the state after a step."""

    @abstractmethod
    def close(self) -> None:
        """Send what is left, within a minute, and end the run there."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """A run, as a tracker is told of it."""

    folder: RunFolder
    name: str
    config: Mapping[str, Any]
    """Without secrets: see :func:`public`."""

    def identifier(self, tracker: str) -> str:
        """Give the run's identifier at a tracker, empty where it has none yet."""
        file = self._file(tracker)
        return file.read_text(encoding="utf-8").strip() if file.is_file() else ""

    def keep_identifier(self, tracker: str, identifier: str) -> None:
        """Keep it for the day the run goes on."""
        self._file(tracker).parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(self._file(tracker)) as partial:
            partial.write_text(f"{identifier}\n", encoding="utf-8")

    def _file(self, tracker: str) -> Path:
        return self.folder.path / "trackers" / tracker


def public(value: Any) -> Any:
    """Give ``value`` without what may be secret: no query, fragment, user or password in a URL."""
    if isinstance(value, Mapping):
        return {str(name): public(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [public(each) for each in value]
    if isinstance(value, str):
        return redact(value)
    return value
