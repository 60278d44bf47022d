"""Adapter from a remote file to rasterio's opener interface; imported only where one is read.

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


class SingleFileSystem(MultiByteRangeResourceContainer):  # type: ignore[misc]
    """File system that holds one remote file."""

    def __init__(self, file: RemoteFile, name: str) -> None:
        self.file = file
        self.name = name
        self.failure: BaseException | None = None
        """First exception in a callback: GDAL notices that a read failed, but loses the error."""

    def open(self, path: str, mode: str = "r", **_options: Any) -> _Cursor:
        """Return a new cursor."""
        if path != self.name or "r" not in mode or "+" in mode:
            raise FileNotFoundError(path)
        return _Cursor(self)

    def isfile(self, path: str) -> bool:
        """Return whether it is the file itself: GDAL also looks for sidecar files."""
        return path == self.name

    def isdir(self, _path: str) -> bool:
        """Return False: there are no folders."""
        return False

    def ls(self, _path: str) -> list[str]:
        """Return an empty list: there are no folders."""
        return []

    def mtime(self, _path: str) -> int:
        """Return 0: the time of modification is unknown."""
        return 0

    def rm(self, path: str) -> None:
        """Refuse to remove a file."""
        raise PermissionError(path)

    def size(self, path: str) -> int:
        """Return the file's size in bytes."""
        if path != self.name:
            raise FileNotFoundError(path)
        return self.file.size


class _Cursor:
    """File object that GDAL reads. Its methods must not raise: GDAL would drop the exception."""

    def __init__(self, container: SingleFileSystem) -> None:
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
        num_bytes = file.size if size < 0 else size
        body = self._record_failure(lambda: file.read_at(self._position, num_bytes)) or b""
        self._position += len(body)
        return body

    def get_byte_ranges(self, offsets: list[int], sizes: list[int]) -> list[bytes]:
        spans = [(start, start + size) for start, size in zip(offsets, sizes, strict=True)]
        bodies = self._record_failure(lambda: self._container.file.read_spans(spans))
        # The interface cannot report a failure: return zeros, and `open_raster` raises at its end.
        return bodies if bodies is not None else [bytes(size) for size in sizes]

    def _record_failure(self, read: Callable[[], Result]) -> Result | None:
        if self._container.failure is not None:
            return None
        try:
            return read()
        except BaseException as error:  # noqa: BLE001 - recorded, and raised by `open_raster`
            self._container.failure = error
            return None
