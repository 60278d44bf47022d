"""Describes a published dataset as Croissant metadata, which data set search engines read.

Source: Croissant format specification 1.0, https://docs.mlcommons.org/croissant/docs/croissant-spec.html.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from salibi_data.store.schema import SAMPLES_NAME

if TYPE_CHECKING:
    from salibi_data.releases.facts import ReleaseFacts

_CONTEXT: Final = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""Context of the specification; its tools warn of any other."""


def croissant(facts: ReleaseFacts) -> dict[str, Any]:
    """Make the JSON-LD document: the files that describe the samples, and the table's columns."""
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": facts.release.dataset,
        "description": facts.summary,
        "license": facts.licences,
        "creator": [{"@type": "sc:Organization", "name": name} for name in facts.attributions],
        # Releases have no numbers; the same checksum is in the dataset's latest.json.
        "version": f"1.0.0+{facts.release.manifest_sha256[:16]}",
        "distribution": [
            _file(facts, "zarr.json", "store", "application/json"),
            _file(facts, SAMPLES_NAME, "samples", "application/x-parquet"),
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "sample",
                "name": "sample",
                "description": "One row per sample, in the order of the Zarr arrays.",
                "field": [
                    _field(column.name, kind)
                    for column in facts.columns
                    if (kind := _data_type(column.type)) is not None
                ],
            }
        ],
    }


def _file(facts: ReleaseFacts, name: str, identity: str, encoding: str) -> dict[str, Any]:
    entry = facts.manifest[name]
    return {
        "@type": "cr:FileObject",
        "@id": identity,
        "name": identity,
        "contentUrl": f"store.zarr/{name}",
        "contentSize": f"{entry.bytes} B",
        "encodingFormat": encoding,
        "sha256": entry.sha256,
    }


def _field(column: str, data_type: str) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"sample/{column}",
        "name": column,
        "dataType": data_type,
        "source": {"fileObject": {"@id": "samples"}, "extract": {"column": column}},
    }


def _data_type(kind: Any) -> str | None:
    """Croissant name of a column's type; None for lists and geometries."""
    import pyarrow.types as pt

    tests = (
        (pt.is_integer, "sc:Integer"),
        (pt.is_floating, "sc:Float"),
        (pt.is_string, "sc:Text"),
        (pt.is_timestamp, "sc:DateTime"),
    )
    return next((name for test, name in tests if test(kind)), None)
