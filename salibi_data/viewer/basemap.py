"""Opens the map below the samples: a raster PMTiles archive, or a tile server the user names."""

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

_SERVER_MAX_ZOOM: Final = 19
"""Highest zoom asked of a tile server, which does not state its own."""
_TILE_PX: Final = 256


@dataclass(frozen=True, kw_only=True)
class Basemap:
    """Address and attribution of a base map."""

    tiles: str
    """Address of a tile with {z}, {x} and {y}; a path on the site itself for an archive."""
    max_zoom: int
    """Highest zoom that has tiles."""
    attribution: str = ""
    """Credit to show on the map, without markup."""
    archive: BasemapArchive | None = None
    """Archive that the tiles come from; None for a tile server."""

    @property
    def origin(self) -> str:
        """Origin of the tile server, such as ``https://tiles.example``; empty for an archive.

        The page's content security policy must allow it.
        """
        parts = urlsplit(self.tiles)
        return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""

    @property
    def may_contain_secret(self) -> bool:
        """Whether the address contains a query or a user name."""
        return redact(self.tiles) != self.tiles

    def to_dict(self) -> dict[str, Any]:
        """Return the settings of the page's map as JSON content."""
        return {
            "tiles": self.tiles,
            "maxZoom": self.max_zoom,
            "tilePx": _TILE_PX,
            "attribution": self.attribution,
        }


class BasemapArchive:
    """Raster tiles of a PMTiles file, version 3 (https://github.com/protomaps/PMTiles).

    Args:
        path: file to open.

    Raises:
        UsageError: the file cannot be read, or holds vector tiles.
    """

    def __init__(self, path: str | Path) -> None:
        from pmtiles.reader import MemorySource, Reader
        from pmtiles.tile import TileType

        try:
            with Path(path).open("rb") as file:
                content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            self._reader = Reader(MemorySource(content))
            header, self._metadata = self._reader.header(), self._reader.metadata()
        except Exception as error:
            # The reader hardly validates its input: a damaged file can raise any exception.
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
        """Credit stated in the archive, without markup."""
        return _without_markup(str(self._metadata.get("attribution", "")))

    def tile(self, zoom: int, x: int, y: int) -> bytes | None:
        """Return the encoded image of a tile, or None where the archive has none."""
        content: bytes | None = self._reader.get(zoom, x, y)
        return content


def open_basemap(location: str, *, attribution: str = "") -> Basemap:
    """Open a base map.

    Args:
        location: path of a PMTiles file, or an address with {z}, {x} and {y}.
        attribution: credit to show; default the archive's own.

    Raises:
        UsageError: the location is neither.
    """
    if re.match(r"https?://", location):
        if not all(part in location for part in ("{z}", "{x}", "{y}")):
            raise UsageError(
                f"the address {redact(location)} names no tiles; it needs {{z}}, {{x}} and {{y}}, as in "
                "https://tiles.example/{z}/{x}/{y}.png."
            )
        return Basemap(
            tiles=location, max_zoom=_SERVER_MAX_ZOOM, attribution=_without_markup(attribution)
        )
    archive = BasemapArchive(location)
    return Basemap(
        tiles=f"basemap/{{z}}/{{x}}/{{y}}.{archive.suffix}",
        max_zoom=archive.max_zoom,
        attribution=_without_markup(attribution) or archive.attribution,
        archive=archive,
    )


def _without_markup(markup: str) -> str:
    """Return the text of HTML: the page must not run code from an archive."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", markup)).split())
