"""Folders of GEO-Bench tasks, changed on purpose."""

from __future__ import annotations

import pytest

from tests.support.data.real_catalogs import REAL

RED = "04 - Red"


EUROSAT = REAL / "labelled" / "geobench_m-eurosat_one"


needs_eurosat = pytest.mark.skipif(
    not EUROSAT.is_dir(), reason=f"no GEO-Bench sample at {EUROSAT}; set SALIBI_REAL"
)
