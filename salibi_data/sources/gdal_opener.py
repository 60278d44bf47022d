"""A remote file as rasterio's opener interface asks for; imported where such a file is read.

Source: rasterio 1.4, ``rasterio.abc``.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from rasterio.abc import MultiByteRangeResourceContainer

if TYPE_CHECKING:
    from typing import Self

    from salibi_data.sources.http import RemoteFile

Result = TypeVar("Result")


class OneFile(MultiByteRangeResourceContainer):  # type: ignore[misc]
    """A file system of one remote file, as rasterio's opener interface asks for."""

    def __init__(self, file: RemoteFile, name: str) -> None:
        self.file = file
        self.name = name
        self.failure: BaseException | None = None
        """The first that befell a callback: GDAL takes note of the fact, but loses the error."""

    def open(self, path: str, mode: str = "r", **_options: Any) -> _Cursor:
        """A cursor of its own for every opening."""
        if path != self.name or "r" not in mode or "+" in mode:
            raise FileNotFoundError(path)
        return _Cursor(self)

    def isfile(self, path: str) -> bool:
        """Only the file itself: GDAL looks for sidecars, of which there are none."""
        return path == self.name

    def isdir(self, _path: str) -> bool:
        """There are none."""
        return False

    def ls(self, _path: str) -> list[str]:
        """There is nothing to list."""
        return []

    def mtime(self, _path: str) -> int:
        """Not known."""
        return 0

    def rm(self, path: str) -> None:
        """Not allowed."""
        raise PermissionError(path)

    def size(self, path: str) -> int:
        """Bytes."""
        if path != self.name:
            raise FileNotFoundError(path)
        return self.file.size


class _Cursor:
    """The file object that GDAL reads. Its methods must not raise: nobody would see it."""

    def __init__(self, container: OneFile) -> None:
        self._container = container
        self._position = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        pass

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position}.get(whence, self._container.file.size)
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        file = self._container.file
        wanted = file.size if size < 0 else size
        found = self._safely(lambda: file.read_at(self._position, wanted))
        self._position += len(found or b"")
        return found or b""

    def get_byte_ranges(self, offsets: list[int], sizes: list[int]) -> list[bytes]:
        spans = [(start, start + size) for start, size in zip(offsets, sizes, strict=True)]
        found = self._safely(lambda: self._container.file.read_spans(spans))
        # There is no way to say "failed" without raising: zeros, and `opened` raises at its end.
        return found if found is not None else [bytes(size) for size in sizes]

    def _safely(self, read: Callable[[], Result]) -> Result | None:
        if self._container.failure is not None:
            return None
        try:
            return read()
        except BaseException as error:  # noqa: BLE001 - kept, and raised by `opened`
            self._container.failure = error
            return None
