"""Read STAC items from disk: a static catalog's tree of JSON files, or one stac-geoparquet file.

Source: STAC specification 1.0 (static catalogs); stac-geoparquet specification 1.0, where an
item's properties are columns, its geometry is WKB, and its assets are one struct.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from salibi_data.catalog.items.declared import ASSET_FIELDS
from salibi_data.store.errors import CatalogError
from salibi_data.store.redaction import redacted_line

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

    read = _from_parquet if path.suffix == ".parquet" else _from_tree
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

    root = path.parent
    for item in pystac.Catalog.from_file(str(path)).get_items(recursive=True):
        if item.collection_id == collection:
            yield {
                "id": item.id,
                "geometry": item.geometry,
                "properties": item.properties,
                "assets": {
                    key: {
                        **_declared(asset.to_dict()),
                        "href": _relative(asset.get_absolute_href() or asset.href, root),
                    }
                    for key, asset in item.assets.items()
                },
            }


def _from_parquet(path: Path, collection: str) -> Iterator[Item]:
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from shapely import from_wkb
    from shapely.geometry import mapping

    table = pq.read_table(path, filters=pc.field("collection") == collection)
    for batch in table.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            # Parquet has typed times and nulls for absent columns, STAC's JSON has text and no key.
            properties = {
                key: value.isoformat() if hasattr(value, "isoformat") else value
                for key, value in row.items()
                if key not in _NOT_PROPERTIES and value is not None
            }
            geometry, assets = row["geometry"], row["assets"]
            yield {
                "id": row["id"],
                "geometry": mapping(from_wkb(geometry)) if geometry is not None else None,
                "properties": properties,
                "assets": {
                    key: {**_declared(asset), "href": _relative(asset["href"], path.parent)}
                    for key, asset in assets.items()
                    if asset and asset["href"]
                },
            }


def _declared(asset: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an asset declares of its file."""
    return {name: asset[name] for name in ASSET_FIELDS if asset.get(name) is not None}


def _relative(href: str, root: Path) -> str:
    """Make an href relative to the catalog's folder, so that a plan does not depend on its place."""
    path = Path(href)
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else href
