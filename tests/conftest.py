"""What all tests share: shape checks of the model half, and one small store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from jaxtyping import install_import_hook

if TYPE_CHECKING:
    from pathlib import Path

# Every annotation of the model half, shapes included, is checked on every call in the tests.
install_import_hook("salibi_model", "beartype.beartype")


@pytest.fixture(scope="session")
def small_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 10 training and 6 validation samples, with all four modalities."""
    from stores import write_store

    return write_store(tmp_path_factory.mktemp("small") / "small.zarr", num_samples=16)
