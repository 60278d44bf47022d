"""Writes the offline sample catalog: one invented landscape, seen by three sensors."""

from salibi_data.synthetic.catalog_writer import (
    SAMPLE_BOUNDS_LONLAT,
    SampleSummary,
    write_sample_catalog,
)

__all__ = ["SAMPLE_BOUNDS_LONLAT", "SampleSummary", "write_sample_catalog"]
