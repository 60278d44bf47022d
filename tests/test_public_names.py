"""What ``import salibi_data`` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import salibi_data
from salibi_data import (
    building,
    exporting,
    importing,
    merging,
    planning,
    publishing,
    pulling,
    selection,
    subsetting,
    verifying,
)


def test_the_commands_functions_are_public() -> None:
    assert salibi_data.build is building.build
    assert salibi_data.export_pmtiles is exporting.export_pmtiles
    assert salibi_data.import_pmtiles is importing.import_pmtiles
    assert salibi_data.merge is merging.merge
    assert salibi_data.plan is planning.plan
    assert salibi_data.publish is publishing.publish
    assert salibi_data.pull is pulling.pull
    assert salibi_data.Selection is selection.Selection
    assert salibi_data.subset is subsetting.subset
    assert salibi_data.verify is verifying.verify


def test_other_names_are_not() -> None:
    with pytest.raises(AttributeError, match="no attribute 'bild'"):
        _ = salibi_data.bild


def test_importing_the_schema_loads_the_standard_library_alone() -> None:
    code = (
        "import sys, salibi_data.schema; "
        "print([m for m in sys.modules if m.split('.')[0] in ('numpy', 'zarr', 'rasterio')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
