"""Gives every file of the page by its path, for the server and for the export alike."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store import __version__
from salibi_data.viewer.samples import SAMPLES_PER_FILE, as_json, encode_columns, split_names
from salibi_data.viewer.tiles import LOSSLESS, TileRenderer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from salibi_data.viewer.basemap import Basemap
    from salibi_data.viewer.samples import ViewedSamples
    from salibi_data.viewer.tiles import ToRgb

PAGE: Final = Path(__file__).parent / "page"
"""Folder of the files that are the same for every store."""

INDEX_HTML: Final = "index.html"

_TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".bin": "application/octet-stream",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".webp": "image/webp",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".avif": "image/avif",
}
_TILE: Final = re.compile(r"(tiles/(?P<modality>[^/]+)|basemap)/(\d{1,2})/(\d{1,8})/(\d{1,8})\.\w+")
_SAMPLES: Final = re.compile(r"samples/(\d{1,8})\.json")
_OVERVIEW_ZOOM: Final = 3
"""Highest zoom at which a base map is exported for the whole world; above it, only near samples."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """Content of one path."""

    body: bytes
    content_type: str


class Site:
    """Files of a page, generated on request.

    Args:
        samples: samples to show.
        to_rgb: function that renders a stored image in colours.
        quality: quality of the images, 1 to 100; 100 is lossless.
        basemap: map to show below the samples.
    """

    def __init__(
        self,
        samples: ViewedSamples,
        to_rgb: ToRgb,
        *,
        quality: int = LOSSLESS,
        basemap: Basemap | None = None,
    ) -> None:
        self.samples = samples
        self.tiles = TileRenderer(samples, to_rgb, quality=quality)
        self.basemap = basemap
        self._page = {file.relative_to(PAGE).as_posix(): file for file in _files(PAGE)}
        column_layout, column_values = encode_columns(samples.columns)
        self._generated = {
            "store.json": as_json(self._describe_store(column_layout)),
            # Compressed here, since simple web servers do not; the page also reads it plain.
            "index.bin": gzip.compress(column_values, compresslevel=6, mtime=0),
            INDEX_HTML: self._index_html(),
        }
        options = [samples.digest, __version__, quality, basemap.to_dict() if basemap else None]
        rows = samples.rows.tobytes()
        self.digest = hashlib.sha256(as_json(options) + rows).hexdigest()[:24]
        """Digest of the store, the software version and the options."""

    def get(self, path: str) -> Resource | None:
        """Return the content of a path without leading slash, or None where there is none."""
        path = path or INDEX_HTML
        body = self._body(path)
        if body is None:
            return None
        return Resource(body=body, content_type=_TYPES[Path(path).suffix])

    def is_fixed_by_digest(self, path: str) -> bool:
        """Whether the same :attr:`digest` always means the same content of a path."""
        return path.startswith(("tiles/", "samples/", "basemap/"))

    def paths(self) -> Iterator[str]:
        """Yield every path, ``index.html`` last; a base map's archive may lack some of its own."""
        yield from (path for path in self._page if path != INDEX_HTML)
        yield from (path for path in self._generated if path != INDEX_HTML)
        yield from (f"samples/{number}.json" for number in range(self.samples.num_files))
        yield from self._basemap_paths()
        yield from self.tile_paths()
        yield INDEX_HTML

    def tile_paths(self) -> Iterator[str]:
        """Yield the paths of all images of samples, highest zoom first."""
        base_zoom = self.samples.attributes.base_zoom
        for zoom in range(base_zoom, self.tiles.lowest_zoom - 1, -1):
            for x, y in self._tiles_at(zoom).tolist():
                for name in self.samples.attributes.modalities:
                    yield f"tiles/{name}/{zoom}/{x}/{y}.webp"

    def _body(self, path: str) -> bytes | None:
        if path in self._generated:
            return self._generated[path]
        if path in self._page:
            return self._page[path].read_bytes()
        if match := _TILE.fullmatch(path):
            zoom, x, y = (int(number) for number in match.groups()[2:])
            if match["modality"]:
                return self.tiles.tile(match["modality"], zoom, x, y)
            if self.basemap and self.basemap.archive:
                return self.basemap.archive.tile(zoom, x, y)
        if (match := _SAMPLES.fullmatch(path)) and int(match[1]) < self.samples.num_files:
            return as_json(self.samples.records(int(match[1])))
        return None

    def _describe_store(self, column_layout: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the content of ``store.json``, which the page reads first."""
        attributes = self.samples.attributes
        return {
            "name": self.samples.name,
            "variant": attributes.variant,
            "catalog": attributes.catalog,
            "planDigest": attributes.plan_digest,
            "software": __version__,
            "count": len(self.samples),
            "ofSamples": int(self.samples.group["tile"].shape[0]),
            "baseZoom": attributes.base_zoom,
            "lowestZoom": self.tiles.lowest_zoom,
            "boundsLonLat": self.samples.bounds_lonlat,
            "sensors": attributes.sensors,
            "splits": split_names(),
            "modalities": [
                {
                    "name": name,
                    "sensor": modality.sensor,
                    "zoom": modality.zoom,
                    "gsdRatio": modality.gsd_ratio,
                    "sizePx": modality.size_px,
                    "bands": modality.bands,
                    "units": modality.units,
                    "collection": modality.collection,
                    "licence": modality.licence,
                    "attribution": modality.attribution,
                }
                for name, modality in attributes.modalities.items()
            ],
            "columns": column_layout,
            "samplesPerFile": SAMPLES_PER_FILE,
            "basemap": self.basemap.to_dict() if self.basemap else None,
        }

    def _index_html(self) -> bytes:
        """Return the page; its content security policy allows its own host and the base map's."""
        text = self._page[INDEX_HTML].read_text()
        origin = self.basemap.origin if self.basemap else ""
        return text.replace("{basemap_origin}", origin).encode()

    def _tiles_at(self, zoom: int) -> NDArray[np.int64]:
        """Return (x, y) of the tiles at ``zoom`` that contain samples, shape (num_tiles, 2)."""
        levels = self.samples.attributes.base_zoom - zoom
        return np.unique(np.stack([self.samples.x, self.samples.y], axis=1) >> levels, axis=0)

    def _basemap_paths(self) -> Iterator[str]:
        """Yield paths of a base map's archive: all at low zooms, those near samples above."""
        if self.basemap is None or self.basemap.archive is None:
            return
        for zoom in range(min(self.basemap.max_zoom, self.samples.attributes.base_zoom) + 1):
            num_across = 1 << zoom
            if zoom <= _OVERVIEW_ZOOM:
                tiles = np.stack(np.divmod(np.arange(num_across**2), num_across), axis=1)
            else:
                offsets = np.stack(np.divmod(np.arange(9), 3), axis=1) - 1
                neighbours = (self._tiles_at(zoom)[:, None] + offsets).reshape(-1, 2)
                exists = ((neighbours >= 0) & (neighbours < num_across)).all(axis=1)
                tiles = np.unique(neighbours[exists], axis=0)
            for x, y in tiles.tolist():
                yield self.basemap.tiles.format(z=zoom, x=x, y=y)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in _TYPES)
