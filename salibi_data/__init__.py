"""Aligned, multi-modal, multi-scale satellite datasets: from STAC catalogs to Zarr stores.

``build``, ``merge``, ``plan``, ``subset``, ``verify``, ``publish``, ``pull``, ``import_pmtiles`` and
``export_pmtiles`` mirror the commands; they are loaded when first used, so that importing this
package, or its schema alone, costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from salibi_data.store.version import __version__ as __version__

if TYPE_CHECKING:
    from salibi_data.builds.build import build as build
    from salibi_data.derived.merge import merge as merge
    from salibi_data.derived.selection import Selection as Selection
    from salibi_data.derived.subset import subset as subset
    from salibi_data.imports.pmtiles.exporter import export_pmtiles as export_pmtiles
    from salibi_data.imports.pmtiles.importer import import_pmtiles as import_pmtiles
    from salibi_data.inspection.verify import verify as verify
    from salibi_data.plans.planner import plan as plan
    from salibi_data.releases.publish import publish as publish
    from salibi_data.releases.pull import pull as pull

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
    "Selection": "derived.selection",
    "build": "builds.build",
    "export_pmtiles": "imports.pmtiles.exporter",
    "import_pmtiles": "imports.pmtiles.importer",
    "merge": "derived.merge",
    "plan": "plans.planner",
    "publish": "releases.publish",
    "pull": "releases.pull",
    "subset": "derived.subset",
    "verify": "inspection.verify",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"salibi_data.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
