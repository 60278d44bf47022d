"""Aligned, multi-modal, multi-scale satellite datasets: from STAC catalogs to Zarr stores.

``build``, ``merge``, ``plan``, ``subset``, ``verify``, ``publish``, ``pull``, ``import_pmtiles`` and
``export_pmtiles`` mirror the commands; they are loaded when first used, so that importing this
package, or its schema alone, costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from salibi_data.building import build as build
    from salibi_data.exporting import export_pmtiles as export_pmtiles
    from salibi_data.importing import import_pmtiles as import_pmtiles
    from salibi_data.merging import merge as merge
    from salibi_data.planning import plan as plan
    from salibi_data.publishing import publish as publish
    from salibi_data.pulling import pull as pull
    from salibi_data.selection import Selection as Selection
    from salibi_data.subsetting import subset as subset
    from salibi_data.verifying import verify as verify

__version__ = "0.1.0"
__all__ = [
    "Selection",
    "build",
    "export_pmtiles",
    "import_pmtiles",
    "merge",
    "plan",
    "publish",
    "pull",
    "subset",
    "verify",
]

_HOMES: Final = {
    "Selection": "selection",
    "build": "building",
    "export_pmtiles": "exporting",
    "import_pmtiles": "importing",
    "merge": "merging",
    "plan": "planning",
    "publish": "publishing",
    "pull": "pulling",
    "subset": "subsetting",
    "verify": "verifying",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"salibi_data.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
