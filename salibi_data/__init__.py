"""Aligned, multi-modal, multi-scale satellite datasets: from STAC catalogs to Zarr stores."""

from __future__ import annotations

__version__ = "0.1.0"
