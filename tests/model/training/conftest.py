"""What makes runs small enough to test: the smallest model, and no pictures where nobody looks."""

from __future__ import annotations

import pytest

from salibi_model.models import config as model_config
from tests.support.model.nano import SIZE


@pytest.fixture
def nano_size(monkeypatch):
    """Make ``tiny`` a model of 32 channels, so that a step takes a tenth of a second."""
    monkeypatch.setitem(model_config.SIZES, "tiny", SIZE)


@pytest.fixture
def pictures():
    """Asked for by tests that look at pictures of reconstructions."""


@pytest.fixture(autouse=True)
def _few_pictures(request, monkeypatch):
    """Draw no pictures: they take three times as long as the validation beside them."""
    if "pictures" not in request.fixturenames:
        monkeypatch.setattr(
            "salibi_model.training.monitoring.schedule.draw_samples", lambda *_, **__: None
        )
