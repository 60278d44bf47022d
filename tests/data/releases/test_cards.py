"""What lies beside a published store: read by the libraries it is for, and held to the store."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pystac
import pytest
from PIL import Image

from salibi_data.inspection.info import info
from salibi_data.inspection.verify import verify
from salibi_data.releases.publish import publish
from salibi_data.store import geoparquet
from salibi_data.store.errors import VerificationError
from salibi_data.store.open import open_store
from salibi_data.store.schema import Release
from tests.support.data import samples

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Published:
    url: str
    folder: Path
    """Of the release."""
    release: Release


@pytest.fixture(scope="module")
def dataset(micro_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Published:
    """The micro store as the command publishes it."""
    root = tmp_path_factory.mktemp("cards") / "micro"
    done = samples.run("publish", str(micro_store), f"file://{root}")
    assert done.returncode == 0, done.stderr
    release = Release.from_json((root / "latest.json").read_text(), where="x")
    return Published(f"file://{root}", root / release.folder, release)


def test_the_cards_are_those_that_the_pointer_promises(dataset: Published) -> None:
    paths = {path.name: path for path in dataset.folder.iterdir() if path.is_file()}
    assert {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in paths.items()
    } == dataset.release.cards
    assert set(paths) == {"README.md", "samples.jpg", "collection.json", "croissant.json"}


def test_the_card_tells_what_is_in_the_store(dataset: Published, micro_store: Path) -> None:
    card = (dataset.folder / "README.md").read_text()
    facts = info(micro_store)
    assert f"| samples | {facts['samples']} |" in card
    for split, count in facts["splits"].items():
        assert f"| {split} | {count} |" in card
    for name, modality in facts["modalities"].items():
        for band, mean, std in zip(
            modality["bands"], modality["mean"], modality["std"], strict=True
        ):
            assert f"| `{name}` | {band} | {mean:.2f} | {std:.2f} |" in card
        assert f"| {modality['licence']} | {modality['attribution']} |" in card
    assert "## Known issues\n\n- " in card
    assert dataset.release.manifest_sha256 in card
    assert "](samples.jpg)" in card


def test_the_figure_is_a_picture_of_samples(dataset: Published, micro_store: Path) -> None:
    _, attributes = open_store(micro_store)
    with Image.open(dataset.folder / "samples.jpg") as picture:
        assert picture.format == "JPEG"
        assert picture.width > 256 * len(attributes.modalities)


def test_pystac_reads_the_collection(dataset: Published, micro_store: Path) -> None:
    collection = pystac.Collection.from_file(str(dataset.folder / "collection.json"))
    assert collection.validate(), "the schema of the specification was not applied"
    for asset in collection.assets.values():
        assert (dataset.folder / asset.href).exists()
    ((west, south, east, north),) = collection.extent.spatial.bboxes
    group, attributes = open_store(micro_store)
    # Oracle: the tile's formula, https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames
    _, x, y = group["tile"][:].T.astype(np.float64)
    count = 2.0**attributes.base_zoom
    latitude = np.degrees(
        np.arctan(np.sinh(np.pi * (1 - 2 * np.array([y.max() + 1, y.min()]) / count)))
    )
    longitude = np.array([x.min(), x.max() + 1]) / count * 360 - 180
    assert np.allclose([west, east], longitude, atol=1e-6)
    assert np.allclose([south, north], latitude, atol=1e-6)
    ((first, last),) = collection.extent.temporal.intervals
    acquired = group["acquired"][:]
    assert first is not None
    assert last is not None
    assert first.timestamp() <= acquired.min()
    assert last.timestamp() >= acquired.max()
    assert collection.license == "CC0-1.0"


def test_croissant_names_the_files_by_checksum_and_the_columns_of_the_table(
    dataset: Published,
) -> None:
    croissant = json.loads((dataset.folder / "croissant.json").read_text())
    for file in croissant["distribution"]:
        content = (dataset.folder / file["contentUrl"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == file["sha256"]
        assert file["contentSize"] == f"{len(content)} B"
    table, _ = geoparquet.read(dataset.folder / "store.zarr/samples.parquet")
    columns = {field["source"]["extract"]["column"] for field in croissant["recordSet"][0]["field"]}
    assert columns < set(table.column_names)
    assert {"z", "x", "y", "split", "cloud_fraction"} <= columns


def test_a_release_keeps_its_cards(dataset: Published, micro_store: Path) -> None:
    """Published again without a figure: readers' checksums stay right."""
    before = samples.tree(dataset.folder)
    again = publish(micro_store, dataset.url)
    assert (again.files_sent, again.release) == (0, dataset.release)
    assert samples.tree(dataset.folder) == before
    verify(dataset.url)


def test_a_card_that_was_changed_is_found(micro_store: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/micro"
    done = publish(micro_store, url)
    card = tmp_path / "micro" / done.release.folder / "README.md"
    card.write_text(card.read_text().replace("CC0-1.0", "CC-BY-4.0"))
    with pytest.raises(VerificationError, match=r"README\.md beside the store differs"):
        verify(url)
    publish(micro_store, url)
    verify(url)


def test_nothing_of_this_machine_is_in_the_cards(dataset: Published, micro_store: Path) -> None:
    for name in dataset.release.cards:
        content = (dataset.folder / name).read_bytes()
        assert str(micro_store.parent).encode() not in content
        assert dataset.url.encode() not in content
