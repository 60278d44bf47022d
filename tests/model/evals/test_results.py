"""A results folder: whole, added to, read back, compared pairwise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from salibi_data.store.errors import UsageError
from salibi_model.evals import metrics as scores
from salibi_model.evals.metrics import bootstrap_interval, metric_value
from salibi_model.evals.results import Results, ResultsError, markdown
from tests.support.model.labelled.score_rows import score_row


def row(outcomes, **changes):
    """The row that these outcomes make."""
    low, high = bootstrap_interval("accuracy", outcomes)
    measured = {"value": metric_value("accuracy", outcomes), "low": low, "high": high}
    settings = {"k": 20, "temperature": None, "image_px": [64, 64]}
    given = {"num_test": len(outcomes), "settings": settings, "chosen": {"c": 0.1}}
    return score_row(**measured | given | changes)


@pytest.fixture
def hits():
    return (np.random.default_rng(0).random(80) < 0.6).astype(np.int64)


def test_rows_are_read_back(tmp_path, hits):
    folder = tmp_path / "results"
    Results(folder).add(row(hits), hits)
    reopened = Results(folder)
    assert reopened.scores == (row(hits),)
    assert reopened.find(row(hits).key) == row(hits)
    assert reopened.find(row(hits, model="other").key) is None
    assert np.array_equal(reopened.outcomes(row(hits)), hits)
    assert not [path for path in folder.rglob("*") if "partial" in path.name]


def test_the_table_tells_figures_and_settings(tmp_path, hits):
    Results(tmp_path).add(row(hits, model="a|b"), hits)
    lines = (tmp_path / "results.md").read_text().splitlines()
    assert lines == markdown(Results(tmp_path).scores).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    for words in ("a/b", "m-eurosat", f"{100 * hits.mean():.1f} (", "k 20", "c 0.1"):
        assert words in lines[-1]
    assert "temperature" not in lines[-1]


def test_two_runs_add_to_one_folder(tmp_path, hits):
    first, second = Results(tmp_path), Results(tmp_path)
    first.add(row(hits), hits)
    second.add(row(hits, model="theirs"), hits)
    assert [one.model for one in Results(tmp_path).scores] == ["ours", "theirs"]


def test_a_row_without_its_outcomes_is_computed_again(tmp_path, hits):
    results = Results(tmp_path)
    results.add(row(hits), hits)
    (tmp_path / "outcomes" / f"{row(hits).key}.npy").unlink()
    assert Results(tmp_path).find(row(hits).key) is None
    with pytest.raises(ResultsError, match="evaluate again"):
        results.outcomes(row(hits))


def test_folders_are_merged(tmp_path, hits):
    for name in ("ours", "theirs"):
        Results(tmp_path / name).add(row(hits, model=name), hits)
    Results(tmp_path / "theirs").add(row(hits, model="ours"), 1 - hits)
    merged = Results(tmp_path / "ours")
    merged.merge(Results(tmp_path / "theirs"))
    assert [one.model for one in Results(tmp_path / "ours").scores] == ["ours", "theirs"]
    assert np.array_equal(merged.outcomes(row(hits)), hits)


def test_models_are_compared_on_the_same_samples(tmp_path, hits):
    results = Results(tmp_path)
    worse = hits.copy()
    worse[np.flatnonzero(hits)[:9]] = 0
    a, b = row(hits), row(worse, model="theirs")
    results.add(a, hits)
    results.add(b, worse)
    expected = scores.paired_difference("accuracy", hits, worse)
    assert results.paired_difference(a, b) == expected
    assert expected[0] == pytest.approx(9 / 80)
    other = row(hits, data_digest="e")
    with pytest.raises(UsageError, match="ours and ours differ in data_digest"):
        results.paired_difference(a, other)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "3",
        '[{"model": "a"}]',
        "[3]",
        '{"rows": []}',
        "value",
        "settings",
    ],
)
def test_a_damaged_folder_is_left_alone_and_explained(tmp_path, hits, content):
    file = tmp_path / "results.json"
    if content in ("value", "settings"):
        content = json.dumps([row(hits).to_dict() | {content: "much"}])
    file.write_text(content)
    with pytest.raises(ResultsError, match=r"results.json is damaged .* Move it away") as caught:
        Results(tmp_path)
    assert "\n" not in str(caught.value)
    assert file.read_text() == content
