"""All that a page consists of, by path: the same whether a server gives it or it lies on disk."""

from __future__ import annotations

import gzip
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_data.store import __version__
from salibi_data.viewer.samples import SAMPLES_PER_FILE, as_json, encoded, split_names
from salibi_data.viewer.tiles import EXACT, Pictures

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from salibi_data.viewer.basemap import Basemap
    from salibi_data.viewer.samples import Samples
    from salibi_data.viewer.tiles import AsColours

PAGE: Final = Path(__file__).parent / "page"
"""Files of the page that are the same for every store."""

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
"""Up to here the whole world of a base map is exported; above, only around samples."""


@dataclass(frozen=True, kw_only=True)
class Resource:
    """What is at a path."""

    body: bytes
    content_type: str


class Site:
    """The files of a page, made when they are asked for."""

    def __init__(
        self,
        samples: Samples,
        as_colours: AsColours,
        *,
        quality: int = EXACT,
        basemap: Basemap | None = None,
    ) -> None:
        """Show ``samples``.

        Args:
            samples: of a store.
            as_colours: turns a stored image into colours.
            quality: of the pictures, 1 to 100; 100 keeps every pixel.
            basemap: what lies below the samples.
        """
        self.samples = samples
        self.pictures = Pictures(samples, as_colours, quality=quality)
        self.basemap = basemap
        self._page = {file.relative_to(PAGE).as_posix(): file for file in _files(PAGE)}
        places, body = encoded(samples.columns)
        self._made = {
            "store.json": as_json(self._about(places)),
            # Compressed here, as simple servers do not; the page takes it either way.
            "index.bin": gzip.compress(body, compresslevel=6, mtime=0),
            INDEX_HTML: self._index_html(),
        }
        options = [samples.digest, __version__, quality, basemap.to_dict() if basemap else None]
        shown = samples.rows.tobytes()
        self.digest = hashlib.sha256(as_json(options) + shown).hexdigest()[:24]
        """Changes whenever the store, the software or an option does."""

    def get(self, path: str) -> Resource | None:
        """What is at ``path``, without a leading slash; ``None`` where nothing is."""
        path = path or INDEX_HTML
        body = self._body(path)
        if body is None:
            return None
        return Resource(body=body, content_type=_TYPES[Path(path).suffix])

    def is_of_the_store(self, path: str) -> bool:
        """Whether what is at ``path`` depends on :attr:`digest` alone."""
        return path.startswith(("tiles/", "samples/", "basemap/"))

    def paths(self) -> Iterator[str]:
        """Every path there is, the page's first file last; those of a base map's may be empty."""
        yield from (path for path in self._page if path != INDEX_HTML)
        yield from (path for path in self._made if path != INDEX_HTML)
        yield from (f"samples/{number}.json" for number in range(self.samples.num_files))
        yield from self._basemap_paths()
        yield from self.tile_paths()
        yield INDEX_HTML

    def tile_paths(self) -> Iterator[str]:
        """Paths of all pictures of samples, finest zoom first."""
        base_zoom = self.samples.attributes.base_zoom
        for zoom in range(base_zoom, self.pictures.lowest_zoom - 1, -1):
            for x, y in self._tiles_at(zoom).tolist():
                for name in self.samples.attributes.modalities:
                    yield f"tiles/{name}/{zoom}/{x}/{y}.webp"

    def _body(self, path: str) -> bytes | None:
        if path in self._made:
            return self._made[path]
        if path in self._page:
            return self._page[path].read_bytes()
        if match := _TILE.fullmatch(path):
            zoom, x, y = (int(number) for number in match.groups()[2:])
            if match["modality"]:
                return self.pictures.tile(match["modality"], zoom, x, y)
            if self.basemap and self.basemap.archive:
                return self.basemap.archive.tile(zoom, x, y)
        if (match := _SAMPLES.fullmatch(path)) and int(match[1]) < self.samples.num_files:
            return as_json(self.samples.described(int(match[1])))
        return None

    def _about(self, places: list[dict[str, Any]]) -> dict[str, Any]:
        """What the page needs to know of the store before anything else."""
        attributes = self.samples.attributes
        return {
            "name": self.samples.folder.resolve().name,
            "variant": attributes.variant,
            "catalog": attributes.catalog,
            "planDigest": attributes.plan_digest,
            "software": __version__,
            "count": len(self.samples),
            "ofSamples": int(self.samples.group["tile"].shape[0]),
            "baseZoom": attributes.base_zoom,
            "lowestZoom": self.pictures.lowest_zoom,
            "boundsLonLat": self.samples.bounds_lonlat,
            "sensors": attributes.sensors,
            "splits": split_names(),
            "modalities": [
                {
                    "name": name,
                    "sensor": one.sensor,
                    "zoom": one.zoom,
                    "gsdRatio": one.gsd_ratio,
                    "sizePx": one.size_px,
                    "bands": one.bands,
                    "units": one.units,
                    "collection": one.collection,
                    "licence": one.licence,
                    "attribution": one.attribution,
                }
                for name, one in attributes.modalities.items()
            ],
            "columns": places,
            "samplesPerFile": SAMPLES_PER_FILE,
            "basemap": self.basemap.to_dict() if self.basemap else None,
        }

    def _index_html(self) -> bytes:
        """The page, which the browser lets ask no host but its own and a base map's."""
        text = self._page[INDEX_HTML].read_text()
        origin = self.basemap.origin if self.basemap else ""
        return text.replace("{basemap_origin}", origin).encode()

    def _tiles_at(self, zoom: int) -> NDArray[np.int64]:
        """(x, y) of the tiles at ``zoom`` that hold samples, shape (tiles, 2)."""
        levels = self.samples.attributes.base_zoom - zoom
        return np.unique(np.stack([self.samples.x, self.samples.y], axis=1) >> levels, axis=0)

    def _basemap_paths(self) -> Iterator[str]:
        """Tiles of an archive over the world, and around samples."""
        if self.basemap is None or self.basemap.archive is None:
            return
        for zoom in range(min(self.basemap.max_zoom, self.samples.attributes.base_zoom) + 1):
            edge = 1 << zoom
            if zoom <= _OVERVIEW_ZOOM:
                tiles = np.stack(np.divmod(np.arange(edge * edge), edge), axis=1)
            else:
                around = np.stack(np.divmod(np.arange(9), 3), axis=1) - 1
                near = (self._tiles_at(zoom)[:, None] + around).reshape(-1, 2)
                tiles = np.unique(near[((near >= 0) & (near < edge)).all(axis=1)], axis=0)
            for x, y in tiles.tolist():
                yield self.basemap.tiles.format(z=zoom, x=x, y=y)


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in _TYPES)
