"""A store's images become archives in the authors' layout, and come back pixel for pixel."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from PIL import Image
from pmtiles.reader import MmapSource, Reader, all_tiles
from pmtiles.tile import Compression, TileType
from typer.testing import CliRunner

from salibi_cli.data import app as data
from salibi_data.assembly.writer import write_manifest
from salibi_data.imports.pmtiles.exporter import export_pmtiles
from salibi_data.imports.pmtiles.importer import import_pmtiles
from salibi_data.inspection.verify import verify
from salibi_data.store.errors import ReadError, StoreError, UsageError
from salibi_data.store.schema import ATTRIBUTES_KEY, StoreAttributes
from tests.support.data.released_archives import flat, write_archive
from tests.support.data.samples import tree
from tests.support.model.stores import BASE_ZOOM, describe, write_store

FILES = {
    "sar": "sar_tiles.pmtile",
    "lores": "visual_tiles.pmtile",
    "hires": "hires_visual_tiles.pmtile",
}


def finished_store(path: Path, **options: Any) -> Path:
    """A small store with its manifest; its tiles are in no order."""
    write_manifest(write_store(path, **options))
    return path


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 6 samples, two of them with holes; not to be written to."""
    return finished_store(tmp_path_factory.mktemp("store") / "x.zarr", num_samples=6, validation=2)


@pytest.fixture(scope="module")
def archives(store: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The small store's archives; not to be written to."""
    folder = tmp_path_factory.mktemp("archives")
    assert export_pmtiles(store, folder).num_samples == 6
    return {name: folder / file for name, file in FILES.items()}


def tiles_in(path: Path) -> dict[tuple[int, int, int], np.ndarray]:
    """All tiles (256, 256, 4), by the pmtiles package and Pillow."""
    with path.open("rb") as file:
        tiles = dict(all_tiles(MmapSource(file)))
    images = {key: Image.open(io.BytesIO(content)) for key, content in tiles.items()}
    assert {image.mode for image in images.values()} == {"RGBA"}
    assert {image.format for image in images.values()} == {"PNG"}
    return {key: np.asarray(image) for key, image in images.items()}


def test_the_layout_is_that_of_the_release(store: Path, archives: dict[str, Path]) -> None:
    group = zarr.open_group(store, mode="r")
    sar, lores, hires = (tiles_in(archives[name]) for name in FILES)
    assert (len(sar), len(lores), len(hires)) == (6, 6, 30)
    for n, (zoom, x, y) in enumerate(group["tile"][:].tolist()):
        radar, colours, fine = (group[name][n] for name in ("sar", "lores", "hires"))
        tile = sar[zoom, x, y]
        assert not tile[..., 0].any()
        np.testing.assert_array_equal(tile[..., 1], radar[0])
        np.testing.assert_array_equal(tile[..., 2], radar[1])
        np.testing.assert_array_equal(tile[..., 3], 255 * radar.any(axis=0))
        for image, held in [(colours, lores), (fine, hires)]:
            np.testing.assert_array_equal(held[zoom, x, y][..., :3].transpose(2, 0, 1), image)
            np.testing.assert_array_equal(held[zoom, x, y][..., 3], 255 * image.any(axis=0))
        finest = group["hires_4x"][n]
        for row, column in np.ndindex(2, 2):
            child = hires[zoom + 1, 2 * x + column, 2 * y + row]
            part = finest[:, 256 * row : 256 * row + 256, 256 * column : 256 * column + 256]
            np.testing.assert_array_equal(child[..., :3].transpose(2, 0, 1), part)


def test_a_map_viewer_learns_what_it_needs(archives: dict[str, Path]) -> None:
    with archives["hires"].open("rb") as file:
        reader = Reader(MmapSource(file))
        header, metadata = reader.header(), reader.metadata()
        assert reader.get(BASE_ZOOM, 5004, 12004)
    assert (header["tile_type"], header["tile_compression"]) == (TileType.PNG, Compression.NONE)
    assert (header["min_zoom"], header["max_zoom"]) == (BASE_ZOOM, BASE_ZOOM + 1)
    west, south, east, north = (
        header[f"{name}_e7"] / 1e7 for name in ("min_lon", "min_lat", "max_lon", "max_lat")
    )
    assert west == pytest.approx(360 * 5000 / 2**BASE_ZOOM - 180)
    assert east == pytest.approx(360 * 5006 / 2**BASE_ZOOM - 180)
    assert 0 < south < header["center_lat_e7"] / 1e7 < north < 85
    assert metadata["type"] == "overlay"
    assert list(metadata[ATTRIBUTES_KEY]["modalities"]) == ["hires", "hires_4x"]


def test_out_and_in_again_is_the_same_pixel_for_pixel(
    store: Path, archives: dict[str, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "x.zarr"
    import_pmtiles(copy, **archives)
    before, after = zarr.open_group(store, mode="r"), zarr.open_group(copy, mode="r")
    place = {tuple(tile): n for n, tile in enumerate(before["tile"][:].tolist())}
    order = [place[tuple(tile)] for tile in after["tile"][:].tolist()]
    assert sorted(order) == list(range(6))
    for name in ("sar", "lores", "hires", "hires_4x"):
        np.testing.assert_array_equal(after[name][:], before[name][:][order], err_msg=name)
    meant, means = (StoreAttributes.from_dict(dict(g.attrs), where="") for g in (before, after))
    for name, modality in means.modalities.items():
        assert modality.with_statistics((), ()) == meant.modalities[name].with_statistics((), ())
    assert means.modalities["sar"].units == "dB"
    assert not any("dB scale" in note for note in means.notes)
    verify(copy)


def test_a_band_alone_may_lack_a_pixel(tmp_path: Path) -> None:
    store = finished_store(
        tmp_path / "a.zarr", num_samples=4, validation=1, modalities=["sar", "lores"]
    )
    group = zarr.open_group(store)
    for name in ("sar", "lores"):
        values = group[name][:]
        values[0, 0, 100:150] = 0
        values[1] = 0
        group[name][:] = values
    export_pmtiles(store, tmp_path / "archives")
    paths = {name: tmp_path / "archives" / FILES[name] for name in ("sar", "lores")}
    import_pmtiles(tmp_path / "b.zarr", **paths, splits="none")
    back = zarr.open_group(tmp_path / "b.zarr", mode="r")
    number = {tuple(tile): n for n, tile in enumerate(back["tile"][:].tolist())}
    for n, tile in enumerate(group["tile"][:].tolist()):
        for name in ("sar", "lores"):
            np.testing.assert_array_equal(back[name][number[tuple(tile)]], group[name][n])


@pytest.mark.slow
def test_workers_write_the_same_bytes(
    store: Path, archives: dict[str, Path], tmp_path: Path
) -> None:
    export_pmtiles(store, tmp_path, workers=2)
    assert tree(tmp_path) == tree(archives["sar"].parent)


def test_stopped_and_begun_again_only_the_rest_is_written(
    store: Path, archives: dict[str, Path], tmp_path: Path
) -> None:
    def stop(done: int, _total: int) -> None:
        if done == 12:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_pmtiles(store, tmp_path, progress=stop)
    assert [path.name for path in tmp_path.iterdir()] == [FILES["sar"]]
    written: list[tuple[int, int]] = []
    export_pmtiles(store, tmp_path, progress=lambda *counts: written.append(counts))
    assert written == [(6, 18), (12, 18), (18, 18)]
    assert tree(tmp_path) == tree(archives["sar"].parent)
    export_pmtiles(store, tmp_path, progress=lambda *_: pytest.fail("nothing is left to do"))


def test_files_of_others_are_left_alone(store: Path, tmp_path: Path) -> None:
    for name, content in [("text", b"mine"), ("archive", None)]:
        folder = tmp_path / name
        folder.mkdir()
        path = folder / FILES["lores"]
        if content is None:
            write_archive(path, {(15, 1, 1): flat(1, 2, 3)})
        else:
            path.write_bytes(content)
        before = tree(folder)
        with pytest.raises(StoreError, match="is not of this store; nothing was changed"):
            export_pmtiles(store, folder)
        assert tree(folder) == before


def test_what_the_layout_has_no_place_for(tmp_path: Path) -> None:
    store = finished_store(
        tmp_path / "a.zarr", num_samples=4, validation=1, modalities=["lores", "sar"]
    )
    group = zarr.open_group(store)
    attributes = dict(group.attrs)
    attributes[ATTRIBUTES_KEY]["modalities"]["sar"]["bands"] = ["vh", "vv"]
    group.attrs.update(attributes)
    report = export_pmtiles(store, tmp_path / "archives")
    assert (list(report.archives), report.left_out) == (["lores"], ("sar",))
    attributes[ATTRIBUTES_KEY]["modalities"]["lores"]["bands"] = ["nir", "red", "green"]
    group.attrs.update(attributes)
    with pytest.raises(UsageError, match="no image that these archives have a place for"):
        export_pmtiles(store, tmp_path / "none")


WRONG = [
    *(None, 7, {}, {"schema_version": 99}),
    *(
        {"schema_version": 1, "sensors": [], "modalities": {"lores": wrong}}
        for wrong in (
            None,
            {"scale": "1"},
            {**asdict(describe("lores")), "gsd_ratio": 0},
            {**asdict(describe("lores")), "gsd_ratio": float("nan")},
        )
    ),
]


def test_archives_of_ours_that_say_nonsense_are_refused(tmp_path: Path) -> None:
    tiles = {(15, 1, 1): flat(1, 2, 3)}
    for number, nonsense in enumerate(WRONG):
        path = write_archive(tmp_path / str(number), tiles, metadata={ATTRIBUTES_KEY: nonsense})
        with pytest.raises(ReadError, match="its metadata are damaged"):
            import_pmtiles(tmp_path / "x.zarr", lores=path)


def test_half_of_the_children_cannot_be_imported(tmp_path: Path) -> None:
    store = finished_store(tmp_path / "a.zarr", num_samples=4, validation=1, modalities=["hires"])
    export_pmtiles(store, tmp_path / "archives")
    with pytest.raises(UsageError, match="share no zoom"):
        import_pmtiles(tmp_path / "b.zarr", hires=tmp_path / "archives" / FILES["hires"])


def test_the_command_says_what_it_wrote(store: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(data.app, ["export-pmtiles", str(store), str(tmp_path), "--json"])
    assert done.exit_code == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["samples"] == 6
    assert report["left_out"] == []
    assert report["archives"] == {name: str(tmp_path / file) for name, file in FILES.items()}
    assert report["bytes"] == {
        name: (tmp_path / file).stat().st_size for name, file in FILES.items()
    }
    done = CliRunner().invoke(data.app, ["export-pmtiles", str(store), str(tmp_path)])
    assert f"hires: 6 samples in {tmp_path / FILES['hires']}" in done.stdout
