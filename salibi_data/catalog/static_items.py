"""Read STAC items from disk: a static catalog's tree of JSON files, or one stac-geoparquet file.

Source: STAC specification 1.0 (static catalogs); stac-geoparquet specification 1.0, where an
item's properties are columns, its geometry is WKB, and its assets are one struct.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from salibi_data.catalog.item_checks import is_address, item_address, remote_href
from salibi_data.store.errors import CatalogError
from salibi_data.store.redaction import redacted_line

if TYPE_CHECKING:
    from pystac import Catalog

_NOT_PROPERTIES: Final = frozenset(
    {"type", "stac_version", "stac_extensions", "id", "geometry", "bbox", "links", "assets"}
    | {"collection", "proj:geometry"}
)

Item = dict[str, Any]
"""``id``, ``geometry``, ``properties`` and ``assets``; hrefs inside the catalog's folder are relative."""


def read_items(path: Path, collection: str) -> Iterator[Item]:
    """Yield all items of one collection.

    Args:
        path: a static catalog's ``catalog.json``, or a stac-geoparquet file (``.parquet``).
        collection: id of the collection.

    Raises:
        CatalogError: the file does not exist, or is not a catalog.
    """
    import pyarrow as pa
    import pystac
    from shapely.errors import ShapelyError

    is_parquet = path.suffix.lower() in (".parquet", ".geoparquet")
    read = _from_parquet if is_parquet else _from_tree
    # pystac raises built-in exceptions on malformed JSON, as many kinds as there are mistakes.
    malformed = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
    library_errors = (pystac.STACError, pystac.STACTypeError, pa.ArrowException, ShapelyError)
    try:
        yield from read(path, collection)
    except (*malformed, *library_errors) as error:
        raise CatalogError(
            f"the catalog at {path} cannot be read: {redacted_line(error)}. Expected a static STAC catalog's "
            "catalog.json or a stac-geoparquet file; check the path, or write it again."
        ) from error


def _from_tree(path: Path, collection: str) -> Iterator[Item]:
    import pystac

    root = pystac.read_file(str(path))
    if not isinstance(root, pystac.Catalog):  # collections are catalogs
        raise TypeError("it is no catalog or collection")
    for item, where, parent in _walk(root, None, set()):
        # One that is no object is of no collection; whoever makes scenes of items names it.
        if isinstance(item, dict) and (item.get("collection") or parent) == collection:
            assets = item.get("assets")
            if isinstance(assets, dict):
                assets = _with_hrefs(assets, where, path.parent)
            yield {**item, "assets": assets, "properties": _migrated_properties(item)}


def _walk(
    catalog: Catalog, collection: str | None, visited: set[str]
) -> Iterator[tuple[Any, str, str | None]]:
    """Yield the parsed items of a tree, each with its path or URL, and the collection above it.

    pystac's own items are not used: it refuses a whole catalog for one item that is no valid STAC.
    Links to a catalog that was read before, such as ``visited`` names, are not followed again.
    """
    import pystac

    if catalog.self_href in visited:
        return
    visited.add(catalog.self_href)
    if isinstance(catalog, pystac.Collection):
        collection = catalog.id
    folder = Path(catalog.self_href).parent
    for link in catalog.get_links(pystac.RelType.ITEM):
        target = link.get_target_str() or ""
        is_local = "://" not in catalog.self_href and "://" not in target.replace("file://", "")
        where = str(_local_path(target, folder)) if is_local else link.absolute_href
        try:
            # Not the encoding of this machine, and a byte order mark may be ignored (RFC 8259, 8.1).
            text = (
                Path(where).read_text(encoding="utf-8-sig")
                if is_local
                else pystac.StacIO.default().read_text(where)
            )
            item = json.loads(text)
        except ValueError as error:
            raise ValueError(f"{where} is no JSON: {error}") from error
        yield item, where, collection
    for child in catalog.get_children():
        yield from _walk(child, collection, visited)


def _migrated_properties(item: Mapping[str, Any]) -> Any:
    """Return an item's properties under the names of STAC's current version."""
    import pystac
    from pystac.serialization import identify_stac_object, migrate_to_latest

    malformed = (ValueError, LookupError, TypeError, AttributeError)
    try:
        return migrate_to_latest(dict(item), identify_stac_object(dict(item)))["properties"]
    except (*malformed, pystac.STACError, pystac.STACTypeError):
        return item.get("properties")


def _with_hrefs(assets: Mapping[str, Any], where: str, root: Path) -> dict[str, Any]:
    """Resolve the hrefs of an item at a path or URL; without those that are none."""
    resolved: dict[str, Any] = {}
    for key, asset in assets.items():
        href = asset.get("href") if isinstance(asset, Mapping) else None
        if not isinstance(href, str):
            resolved[key] = asset
        elif "://" in where:
            resolved[key] = {**asset, "href": remote_href(href, where)}
        else:
            resolved[key] = {**asset, "href": _local_href(href, Path(where).parent, root)}
    return resolved


def _local_href(href: str, folder: Path, root: Path) -> str:
    """Make an href of a local item relative to the catalog's folder, or return its URL.

    A plan does not depend on the place of the catalog then.
    """
    if href.startswith("/vsi") or ("://" in href and not href.lower().startswith("file:")):
        return href
    path = _local_path(href, folder)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def _local_path(href: str, folder: Path) -> Path:
    """Return the file that an href means: a path as it stands, or one that is percent-encoded.

    Hrefs are URLs by the standard, and many writers take them for paths. Of both readings the file
    that exists counts, a path as it stands first.
    """
    text, readings = href.strip(), []
    if text.lower().startswith("file:"):
        parts = urlsplit(text)
        if parts.netloc not in ("", "localhost"):
            return folder / text
        readings = [unquote(parts.path), parts.path]
    else:
        readings = [text]
        if set("%?#") & set(text):
            readings += [unquote(text), unquote(urlsplit(text).path)]
    paths = [Path(os.path.normpath(folder / reading)) for reading in readings]
    return (
        next((path for path in paths if path.is_file()), paths[0]) if len(paths) > 1 else paths[0]
    )


def _from_parquet(path: Path, collection: str) -> Iterator[Item]:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path, filters=pc.field("collection") == collection)
    for number, column in enumerate(table.schema):
        # Python's times have microseconds.
        if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
            microseconds = table[column.name].cast(pa.timestamp("us", column.type.tz), safe=False)
            table = table.set_column(number, column.name, microseconds)
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            # Parquet has typed times and nulls for absent columns, STAC's JSON has text and no key.
            properties = {
                key: value.isoformat() if hasattr(value, "isoformat") else value
                for key, value in row.items()
                if key not in _NOT_PROPERTIES and value is not None
            }
            yield {
                **{key: row[key] for key in ("id", "collection")},
                "geometry": _geometry(row["geometry"]),
                "properties": properties,
                "assets": _row_assets(row, path),
            }


def _geometry(binary: Any) -> Any:
    """GeoJSON of well-known binary; what is none is returned as it is, for a scene to refuse."""
    from shapely import from_wkb
    from shapely.errors import ShapelyError
    from shapely.geometry import mapping

    try:
        return None if binary is None else mapping(from_wkb(binary))
    except (ShapelyError, TypeError):
        return binary


def _row_assets(row: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a row's assets; their hrefs are relative to the item's own link where that is remote."""
    own = item_address(row, "")
    where = own if own is not None and is_address(own) else str(path)
    assets: dict[str, Any] = {}
    for key, asset in (row["assets"] or {}).items():
        if not (asset and asset.get("href")):
            continue
        is_absolute = asset["href"].startswith("/") or "://" in asset["href"]
        stated = {name: value for name, value in asset.items() if value is not None}
        assets |= _with_hrefs({key: stated}, str(path) if is_absolute else where, path.parent)
    return assets
