"""What ``import salibi_data`` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import salibi_data
from salibi_data.builds import build as building
from salibi_data.derived import merge as merging
from salibi_data.derived import selection
from salibi_data.derived import subset as subsetting
from salibi_data.imports.pmtiles import exporter as exporting
from salibi_data.imports.pmtiles import importer as importing
from salibi_data.inspection import verify as verifying
from salibi_data.plans import planner as planning
from salibi_data.releases import publish as publishing
from salibi_data.releases import pull as pulling


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
        "import sys, salibi_data.store.schema; "
        "print([m for m in sys.modules if m.split('.')[0] in ('numpy', 'zarr', 'rasterio')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
