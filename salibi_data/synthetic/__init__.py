"""The offline sample catalog: a synthetic landscape, drawn once, under three sensors."""

from salibi_data.synthetic.catalog_writer import (
    SAMPLE_BOUNDS_LONLAT,
    SampleSummary,
    write_sample_catalog,
)

__all__ = ["SAMPLE_BOUNDS_LONLAT", "SampleSummary", "write_sample_catalog"]
