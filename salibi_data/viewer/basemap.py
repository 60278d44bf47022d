"""What may lie below the samples: a PMTiles archive of pictures, or a server the user names."""

from __future__ import annotations

import html
import mmap
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from salibi_data.store.errors import UsageError
from salibi_data.store.redaction import redact

_MAX_ZOOM_OF_SERVERS: Final = 19
_TILE_PX: Final = 256


@dataclass(frozen=True, kw_only=True)
class Basemap:
    """Where the page finds tiles of a base map, and whose they are."""

    tiles: str
    """Address with {z}, {x} and {y}; a path of the site itself for an archive."""
    max_zoom: int
    attribution: str = ""
    archive: Archive | None = None
    """The archive that is served, if it is one."""

    @property
    def origin(self) -> str:
        """Host the page must be let ask, such as ``https://tiles.example``; empty for an archive."""
        parts = urlsplit(self.tiles)
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""

    @property
    def may_hold_a_secret(self) -> bool:
        """Whether the address has a query or a user in it."""
        return redact(self.tiles) != self.tiles

    def to_dict(self) -> dict[str, Any]:
        """What the page is told."""
        return {
            "tiles": self.tiles,
            "maxZoom": self.max_zoom,
            "tilePx": _TILE_PX,
            "attribution": self.attribution,
        }


class Archive:
    """Pictures in a PMTiles file (version 3), read tile by tile."""

    def __init__(self, path: str | Path) -> None:
        """Open the archive.

        Raises:
            UsageError: it cannot be read, or holds vectors.
        """
        from pmtiles.reader import MemorySource, Reader
        from pmtiles.tile import TileType

        try:
            with Path(path).open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._reader = Reader(MemorySource(content))
            header, self._metadata = self._reader.header(), self._reader.metadata()
        except Exception as error:
            # The reader checks little: damage shows as whatever its parsing meets.
            raise UsageError(
                f"{path} cannot be read as a PMTiles archive; give a .pmtiles file of version 3, or "
                "an address such as https://tiles.example/{z}/{x}/{y}.png."
            ) from error
        suffixes = {
            TileType.PNG: "png",
            TileType.JPEG: "jpg",
            TileType.WEBP: "webp",
            TileType.AVIF: "avif",
        }
        if header["tile_type"] not in suffixes:
            raise UsageError(
                f"{path} holds no pictures (its tiles are {header['tile_type'].name}); give a raster "
                "archive: PNG, JPEG, WebP or AVIF."
            )
        self.suffix: str = suffixes[header["tile_type"]]
        self.max_zoom: int = header["max_zoom"]

    @property
    def attribution(self) -> str:
        """Whose the map is, as the archive says, without markup."""
        return _text(str(self._metadata.get("attribution", "")))

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """The picture of a tile, or ``None`` where there is none."""
        found: bytes | None = self._reader.get(zoom, x, y)
        return found


def load(place: str, *, attribution: str = "") -> Basemap:
    """The base map at ``place``: a PMTiles file, or an address with {z}, {x} and {y}.

    Raises:
        UsageError: it is neither.
    """
    if re.match(r"https?://", place):
        if not all(part in place for part in ("{z}", "{x}", "{y}")):
            raise UsageError(
                f"the address {redact(place)} names no tiles; it needs {{z}}, {{x}} and {{y}}, as in "
                "https://tiles.example/{z}/{x}/{y}.png."
            )
        return Basemap(tiles=place, max_zoom=_MAX_ZOOM_OF_SERVERS, attribution=_text(attribution))
    archive = Archive(place)
    return Basemap(
        tiles=f"basemap/{{z}}/{{x}}/{{y}}.{archive.suffix}",
        max_zoom=archive.max_zoom,
        attribution=_text(attribution) or archive.attribution,
        archive=archive,
    )


def _text(markup: str) -> str:
    """Text alone: the page must not run what an archive says."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", markup)).split())
