"""The figure of scores: values, intervals, and settings told apart."""

from __future__ import annotations

import numpy as np
import pytest

from salibi_cli.figures.scores import score_figure
from tests.support.model.labelled.score_rows import score_row

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_figure_tells_values_and_intervals():
    rows = [
        score_row(),
        score_row(model="theirs", value=0.8, low=0.7, high=0.95),
        score_row(dataset="m-so2sat"),
    ]
    first, second = score_figure(rows).axes
    assert [first.get_title(), second.get_title()] == ["m-eurosat: knn", "m-so2sat: knn"]
    labels = [text.get_text() for text in first.get_yticklabels()]
    assert labels == ["ours (lores)", "theirs (lores)"]
    points, _, (bars,) = first.containers[0]
    assert points.get_xdata().tolist() == [60, 80]
    ends = [segment[:, 0].tolist() for segment in bars.get_segments()]
    assert np.allclose(ends, [[50, 70], [70, 95]])


def test_the_figure_tells_apart_what_was_set_otherwise():
    rows = [
        score_row(),
        score_row(settings={"k": 5, "distance": "cosine"}),
        score_row(model="mean", settings={}),
    ]
    (axes,) = score_figure(rows).axes
    labels = {text.get_text() for text in axes.get_yticklabels()}
    assert labels == {"ours (lores), k 20", "ours (lores), k 5", "mean (lores)"}
