"""The authors' released archives become a store: pixel for pixel, sample for sample."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pmtiles.reader import MmapSource, Reader
from pmtiles.tile import TileType, zxy_to_tileid

from salibi_data.imports.pmtiles.directory import open_archive
from salibi_data.imports.pmtiles.importer import ImportReport, import_pmtiles
from salibi_data.imports.pmtiles.samples import complete_samples
from salibi_data.inspection.info import info
from salibi_data.inspection.verify import verify
from salibi_data.store.errors import SelectionError, UsageError
from salibi_data.store.schema import SPLITS, UNKNOWN_TIME
from tests.support.data.imported import attributes_of
from tests.support.data.released_archives import (
    LEFT,
    TOP,
    ZOOM,
    Release,
    encoded,
    flat,
    flat_release,
    png,
    release,
    square,
    write_archive,
)

CHILDREN = [(0, 0), (0, 1), (1, 0), (1, 1)]


def decoded(path: Path, zoom: int, x: int, y: int) -> np.ndarray:
    """What pmtiles and Pillow say: (256, 256, 4)."""
    with path.open("rb") as file:
        content = Reader(MmapSource(file)).get(zoom, x, y)
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGBA"))


def expected(rgba: np.ndarray, channels: list[int]) -> np.ndarray:
    """The rule: what a store holds of a decoded tile."""
    seen = rgba[..., 3] > 0
    values = np.where(seen[..., None], np.clip(rgba[..., channels], 1, 255), 0)
    is_black = not rgba[seen][:, channels].any()
    return (0 * values if is_black else values).transpose(2, 0, 1)


def images_of(paths: dict[str, Path], x: int, y: int) -> dict[str, np.ndarray]:
    """A sample, by pmtiles, Pillow and the rule."""
    rgb = [0, 1, 2]
    fine = [
        expected(decoded(paths["hires"], ZOOM + 1, 2 * x + column, 2 * y + row), rgb)
        for row, column in CHILDREN
    ]
    return {
        "sar": expected(decoded(paths["sar"], ZOOM, x, y), [1, 2]),
        "lores": expected(decoded(paths["lores"], ZOOM, x, y), rgb),
        "hires": expected(decoded(paths["hires"], ZOOM, x, y), rgb),
        "hires_4x": np.block([[fine[0], fine[1]], [fine[2], fine[3]]]),
    }


def assert_is(store: Path, paths: dict[str, Path], tiles: list[tuple[int, int]]) -> None:
    """The store holds exactly these tiles, in order, each pixel as it should be."""
    group = zarr.open_group(store, mode="r")
    order = sorted(tiles, key=lambda tile: zxy_to_tileid(ZOOM, *tile))
    assert group["tile"][:].tolist() == [[ZOOM, x, y] for x, y in order]
    for n, (x, y) in enumerate(order):
        for name, image in images_of(paths, x, y).items():
            np.testing.assert_array_equal(group[name][n], image, err_msg=f"{name} of {x}/{y}")


def test_a_store_holds_what_pillow_decodes(
    released: dict[str, Path], imported: tuple[Path, ImportReport], tmp_path: Path
) -> None:
    group = zarr.open_group(imported[0], mode="r")
    for n in range(9):
        _, x, y = group["tile"][n].tolist()
        for name, image in images_of(released, x, y).items():
            np.testing.assert_array_equal(group[name][n], image)
    assert imported[1].num_samples == 9


def test_alpha_zero_and_black_tiles(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    made = flat_release(square(2))
    colours = rng.integers(0, 3, (3, 256, 256), np.uint8)
    alpha = np.where(rng.random((256, 256)) < 0.25, 0, rng.integers(1, 256, (256, 256)))
    echo = colours.copy()
    echo[0] = 0
    one, two, three = (LEFT, TOP), (LEFT + 1, TOP), (LEFT, TOP + 1)
    made.lores[(ZOOM, *one)] = png(colours, alpha.astype(np.uint8))
    made.sar[(ZOOM, *one)] = png(echo, alpha.astype(np.uint8))
    made.hires[(ZOOM, *one)] = encoded(Image.new("RGB", (256, 256), (0, 7, 0)))
    made.lores[(ZOOM, *two)] = flat(0, 0, 0)
    made.sar[(ZOOM, *three)] = flat(9, 9, 9, alpha=0)
    made.hires[ZOOM + 1, 2 * one[0] + 1, 2 * one[1]] = png(colours, alpha.astype(np.uint8))
    paths = made.write(tmp_path)
    store = tmp_path / "x.zarr"
    import_pmtiles(store, **paths)
    assert_is(store, paths, square(2))
    group = zarr.open_group(store, mode="r")
    tiles = group["tile"][:, 1:].tolist()
    valid = dict(zip(map(tuple, tiles), group["valid_fraction"][:].tolist(), strict=True))
    seen = float((alpha > 0).mean())
    assert valid[one] == pytest.approx([seen, seen, (3 + seen) / 4], abs=1e-6)
    assert valid[two] == [1, 0, 1]
    assert valid[three] == [0, 1, 1]
    verify(store)


def test_children_lie_as_on_the_ground(tmp_path: Path) -> None:
    made = flat_release([(LEFT, TOP)])
    for value, (row, column) in enumerate(CHILDREN, start=10):
        made.hires[ZOOM + 1, 2 * LEFT + column, 2 * TOP + row] = flat(value, value, value)
    import_pmtiles(tmp_path / "x.zarr", **made.write(tmp_path))
    image = zarr.open_group(tmp_path / "x.zarr")["hires_4x"][0]
    assert image[:, ::256, ::256].tolist() == [[[10, 11], [12, 13]]] * 3
    assert len(np.unique(image[:, :256, :256])) == len(np.unique(image[:, 256:, 256:])) == 1


@pytest.mark.parametrize(
    ("kind", "options", "tile_type"),
    [
        ("WEBP", {"lossless": True}, TileType.WEBP),
        ("WEBP", {"quality": 60}, TileType.WEBP),
        ("JPEG", {"quality": 80}, TileType.JPEG),
        ("PNG", {}, TileType.UNKNOWN),
    ],
)
def test_other_encodings_give_what_pillow_gives(
    tmp_path: Path, kind: str, options: dict[str, Any], tile_type: TileType
) -> None:
    photo = release([(LEFT, TOP)]).lores[ZOOM, LEFT, TOP]
    mode = "RGB" if kind == "JPEG" else "RGBA"
    image = Image.open(io.BytesIO(photo)).convert(mode)
    tiles = {(ZOOM, LEFT, TOP): encoded(image, kind, **options)}
    path = write_archive(tmp_path / "a", tiles, tile_type=tile_type)
    import_pmtiles(tmp_path / "x.zarr", lores=path)
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    np.testing.assert_array_equal(
        group["lores"][0], expected(decoded(path, ZOOM, LEFT, TOP), [0, 1, 2])
    )
    assert list(attributes_of(tmp_path / "x.zarr").modalities) == ["lores"]


def test_palettes_and_shared_tiles(tmp_path: Path) -> None:
    made = flat_release(square(4))
    few = Image.fromarray(np.arange(65536, dtype=np.uint8).reshape(256, 256) % 5 + 1, "L")
    same = encoded(few.convert("RGB").convert("P"))
    made.lores = dict.fromkeys(made.lores, same)
    paths = made.write(tmp_path, clustered=False)
    import_pmtiles(tmp_path / "x.zarr", **paths)
    assert_is(tmp_path / "x.zarr", paths, square(4))


SQUARE = square(4)


ALL_PARTS = [
    ("sar", 0, 0, 0), ("lores", 0, 0, 0), ("hires", 0, 0, 0),
    *(("hires", 1, row, column) for row, column in CHILDREN),
]  # fmt: skip


@given(
    lacking=st.sets(st.tuples(st.sampled_from(SQUARE), st.sampled_from(ALL_PARTS)), max_size=20),
    clustered=st.booleans(),
)
def test_samples_are_the_tiles_with_all_parts(
    lacking: set[Any], clustered: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    present = {(tile, part) for tile in SQUARE for part in ALL_PARTS} - lacking
    made = Release()
    for (x, y), (name, deeper, row, column) in present:
        key = (ZOOM + deeper, (x << deeper) + column, (y << deeper) + row)
        getattr(made, name)[key] = f"{name} {key}".encode()
    paths = made.write(folder, clustered=clustered)
    whole = [tile for tile in SQUARE if all((tile, part) in present for part in ALL_PARTS)]
    archives = {name: open_archive(path) for name, path in paths.items()}
    if not whole:
        with pytest.raises(SelectionError, match="has all parts"):
            complete_samples(archives, ZOOM)
        return
    samples = complete_samples(archives, ZOOM)
    order = sorted(whole, key=lambda tile: zxy_to_tileid(ZOOM, *tile))
    assert list(zip(samples.x.tolist(), samples.y.tolist(), strict=True)) == order


def test_what_is_unknown_is_marked(
    imported: tuple[Path, ImportReport], released: dict[str, Path]
) -> None:
    store, report = imported
    group, attributes = zarr.open_group(store, mode="r"), attributes_of(store)
    assert (group["acquired"][:] == UNKNOWN_TIME).all()
    assert np.isnan(group["cloud_fraction"][:]).all()
    assert (group["valid_fraction"][:] == 1).all()
    sar = attributes.modalities["sar"]
    assert (sar.bands, sar.units, sar.scale, sar.offset) == (
        ("vv", "vh"),
        "display",
        (1, 1),
        (0, 0),
    )
    assert attributes.modalities["hires_4x"].gsd_ratio == 0.5
    assert attributes.modalities["lores"].licence
    notes = " ".join(attributes.notes)
    for words in ("dates and clouds are unknown", "dB scale", "brightest", "stored as 1", "guard"):
        assert words in notes
    facts = info(store)
    assert facts["acquired"] == {"sentinel-1": [], "sentinel-2": [], "naip": []}
    assert facts["leakage"] == {}
    assert facts["splits"] == report.splits
    assert facts["notes"] == list(attributes.notes)


def test_no_sample_is_left_out_and_no_neighbour_leaks(tmp_path: Path) -> None:
    lores = write_archive(tmp_path / "lores", flat_release(square(12)).lores)
    report = import_pmtiles(tmp_path / "x.zarr", lores=lores)
    assert report.num_samples == 144 == sum(report.splits.values())
    assert all(report.splits[name] for name in SPLITS)
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    split = {
        (x, y): code
        for (_, x, y), code in zip(
            group["tile"][:].tolist(), group["split"][:].tolist(), strict=True
        )
    }
    for (x, y), code in split.items():
        around = {split.get((x + dx, y + dy), code) for dx in (-1, 0, 1) for dy in (-1, 0, 1)}
        assert code == SPLITS["guard"] or around <= {code, SPLITS["guard"]}
    verify(tmp_path / "x.zarr")


def test_all_samples_may_train(released: dict[str, Path], tmp_path: Path) -> None:
    report = import_pmtiles(tmp_path / "x.zarr", **released, splits="none")
    assert report.splits == {"train": 9, "validation": 0, "test": 0, "guard": 0}
    assert "All samples are in the training split." in attributes_of(tmp_path / "x.zarr").notes
    with pytest.raises(UsageError, match="give one of blocks, none"):
        import_pmtiles(tmp_path / "y.zarr", **released, splits="half")  # type: ignore[arg-type]
