"""Interface of trackers, and the description of a run that they receive."""

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
    """One run at one tracker. No method raises for failures of the tracker's server."""

    @abstractmethod
    def log(self, row: Mapping[str, float]) -> None:
        """Send the values of step ``row["step"]``."""

    @abstractmethod
    def log_image(self, name: str, step: int, path: Path) -> None:
        """Send an image file of the state after a step."""

    @abstractmethod
    def close(self) -> None:
        """Send the remaining values, within a minute, and end the run at the tracker."""


@dataclass(frozen=True, kw_only=True)
class TrackedRun:
    """Description of a run for trackers."""

    folder: RunFolder
    name: str
    config: Mapping[str, Any]
    """Configuration without secrets, as :func:`public` gives it."""

    def identifier(self, tracker: str) -> str:
        """Read the run's identifier at a tracker; empty where it has none yet."""
        file = self._file(tracker)
        return file.read_text(encoding="utf-8").strip() if file.is_file() else ""

    def keep_identifier(self, tracker: str, identifier: str) -> None:
        """Write the run's identifier at a tracker, for when the run resumes."""
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
