"""Commands on an imported store: trained on, shown, published."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from salibi_cli.data import app as data
from salibi_data.imports.pmtiles.layout import LAYOUTS
from salibi_data.inspection.verify import verify
from tests.support.data.imported import output_of
from tests.support.data.released_archives import (
    ZOOM,
)
from tests.support.data.samples import tree
from tests.support.paths import ROOT

if TYPE_CHECKING:
    import pytest

    from salibi_data.imports.pmtiles.importer import ImportReport


def test_the_pages_commands_work(
    released: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from salibi_cli.model.app import application
    from salibi_model.models import config
    from tests.support.model.nano import SIZE

    monkeypatch.setitem(config.SIZES, "tiny", SIZE)
    monkeypatch.chdir(tmp_path)
    for layout in LAYOUTS:
        Path(layout.file_name).symlink_to(released[layout.name])
    page = (ROOT / "docs/archives.md").read_text()
    commands = re.findall(r"^(salibi-\w+) (\S+) (.+)$", page, re.MULTILINE)
    names = ["import-pmtiles", "verify", "info", "train", "export-pmtiles"]
    assert [name for _, name, _ in commands] == names
    applications = {"salibi-data": data.app, "salibi-model": application}
    printed = {
        name: output_of(applications[program], name, *shlex.split(rest), *BESIDES.get(name, ()))
        for program, name, rest in commands
    }
    assert json.loads(printed["import-pmtiles"]) == {
        "store": "released.zarr",
        "base_zoom": ZOOM,
        "samples": 9,
        "tiles": {"sar": 9, "lores": 9, "hires": 9},
        "splits": {"train": 5, "validation": 1, "test": 0, "guard": 3},
        "damaged": [],
        "was_complete": False,
    }
    assert "as promised" in printed["verify"]
    assert "guard" in printed["info"]
    assert "dB scale of the 8-bit values is unknown" in printed["info"]
    assert "trained for 2 steps" in printed["train"]
    assert "9 samples in archives/sar_tiles.pmtile" in printed["export-pmtiles"]
    output_of(data.app, "figure", "released.zarr", "-o", "grid.png", "-n", "2")
    _, _, rest = commands[0]
    assert "9 samples are already in" in output_of(data.app, "import-pmtiles", *shlex.split(rest))


BESIDES = {"import-pmtiles": ["--json"], "train": ["--batch-size", "4", "--no-stop-on-collapse"]}
"""What the test adds to the page's commands."""


def test_a_page_shows_what_is_not_known_as_unknown(imported: tuple[Path, ImportReport]) -> None:
    """The page's columns say 0 for an unknown day and NaN for clouds; the facts are null."""
    from salibi_data.viewer.samples import ViewedSamples

    samples = ViewedSamples(imported[0])
    days = [values for name, values in samples.columns.items() if name.startswith("day ")]
    assert len(days) == len(samples.attributes.sensors)
    assert not np.any(days)
    assert np.isnan(samples.columns["cloud"]).all()
    facts = samples.records(0)[0]
    assert facts["naip_acquired"] is None
    assert facts["naip_items"] == []


def test_it_is_published_with_what_is_not_known(
    imported: tuple[Path, ImportReport], tmp_path: Path
) -> None:
    """A dataset card says that dates are unknown, and pulling gives the same store."""
    from salibi_data import publish, pull

    store, _ = imported
    done = publish(store, str(tmp_path / "public"))
    folder = tmp_path / "public" / done.release.folder
    card = (folder / "README.md").read_text()
    assert "dates and clouds are unknown" in card
    assert json.loads((folder / "collection.json").read_text())["type"] == "Collection"
    pull(str(tmp_path / "public"), tmp_path / "pulled.zarr")
    assert tree(tmp_path / "pulled.zarr") == tree(store)
    assert verify(str(tmp_path / "public")).num_samples == verify(store).num_samples
