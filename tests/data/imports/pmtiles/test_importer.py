"""The authors' released archives become a store: pixel for pixel, sample for sample."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shlex
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pmtiles.reader import MmapSource, Reader
from pmtiles.tile import TileType, zxy_to_tileid
from typer.testing import CliRunner

from salibi_cli.data import app as data
from salibi_data.imports.pmtiles.directory import open_archive
from salibi_data.imports.pmtiles.importer import ImportReport, import_pmtiles
from salibi_data.imports.pmtiles.layout import LAYOUTS
from salibi_data.imports.pmtiles.samples import complete_parts
from salibi_data.inspection.info import info
from salibi_data.inspection.verify import verify
from salibi_data.store import geoparquet
from salibi_data.store.errors import ReadError, SalibiError, SelectionError, StoreError, UsageError
from salibi_data.store.schema import SAMPLES_NAME, SPLITS, UNKNOWN_TIME, StoreAttributes
from tests.support.data.real_catalogs import REAL, needs_real
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
from tests.support.data.samples import command, environment, run, tree
from tests.support.paths import ROOT

if TYPE_CHECKING:
    import typer

CHILDREN = [(0, 0), (0, 1), (1, 0), (1, 1)]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Archives of 9 landscapes at the corner of four blocks; not to be written to."""
    return release(square(3, left=LEFT + 7, top=TOP + 2)).write(tmp_path_factory.mktemp("released"))


@pytest.fixture(scope="module")
def imported(
    released: dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, ImportReport]:
    """The store of it; not to be written to."""
    store = tmp_path_factory.mktemp("imported") / "x.zarr"
    return store, import_pmtiles(store, **released)


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


def attributes_of(store: Path) -> StoreAttributes:
    return StoreAttributes.from_dict(dict(zarr.open_group(store).attrs), where="")


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
    there = {(tile, part) for tile in SQUARE for part in ALL_PARTS} - lacking
    made = Release()
    for (x, y), (name, deeper, row, column) in there:
        key = (ZOOM + deeper, (x << deeper) + column, (y << deeper) + row)
        getattr(made, name)[key] = f"{name} {key}".encode()
    paths = made.write(folder, clustered=clustered)
    whole = [tile for tile in SQUARE if all((tile, part) in there for part in ALL_PARTS)]
    archives = {name: open_archive(path) for name, path in paths.items()}
    if not whole:
        with pytest.raises(SelectionError, match="has all parts"):
            complete_parts(archives, ZOOM)
        return
    found = complete_parts(archives, ZOOM)
    order = sorted(whole, key=lambda tile: zxy_to_tileid(ZOOM, *tile))
    assert list(zip(found.x.tolist(), found.y.tolist(), strict=True)) == order


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
    said = info(store)
    assert said["acquired"] == {"sentinel-1": [], "sentinel-2": [], "naip": []}
    assert said["leakage"] == {}
    assert said["splits"] == report.splits
    assert said["notes"] == list(attributes.notes)


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


def test_the_same_archives_give_the_same_bytes(
    released: dict[str, Path], imported: tuple[Path, ImportReport], tmp_path: Path
) -> None:
    assert not imported[1].was_complete
    import_pmtiles(tmp_path / "x.zarr", **released)
    assert tree(tmp_path / "x.zarr") == tree(imported[0])
    again = import_pmtiles(imported[0], **released)
    assert again.was_complete
    with pytest.raises(StoreError, match="holds something else"):
        import_pmtiles(imported[0], **{**released, "sar": None})


@pytest.mark.slow
def test_workers_give_the_same_bytes(tmp_path: Path) -> None:
    made = flat_release(square(12))
    made.sar[ZOOM, LEFT + 8, TOP + 8] = damaged("cut")
    paths = made.write(tmp_path)
    del paths["hires"]
    import_pmtiles(tmp_path / "one.zarr", **paths, skip_damaged=True)
    import_pmtiles(tmp_path / "two.zarr", **paths, skip_damaged=True, workers=2)
    assert tree(tmp_path / "two.zarr") == tree(tmp_path / "one.zarr")


def test_an_archive_that_was_mended_is_another(tmp_path: Path) -> None:
    lores = flat_release(square(2)).lores
    lores[ZOOM, LEFT, TOP] += b"1"
    path = write_archive(tmp_path / "a", lores)
    import_pmtiles(tmp_path / "x.zarr", lores=path)
    about = geoparquet.read(tmp_path / "x.zarr" / SAMPLES_NAME, ["z"])[1]
    assert about["archives"] == {"lores": hashlib.sha256(path.read_bytes()).hexdigest()}
    size = path.stat().st_size
    lores[ZOOM, LEFT, TOP] = lores[ZOOM, LEFT, TOP][:-1] + b"2"
    write_archive(path, lores)
    assert path.stat().st_size == size
    with pytest.raises(StoreError, match="holds something else"):
        import_pmtiles(tmp_path / "x.zarr", lores=path)


def test_stopped_and_begun_again_equals_never_stopped(tmp_path: Path) -> None:
    lores = write_archive(tmp_path / "lores", flat_release(square(12)).lores)
    import_pmtiles(tmp_path / "whole.zarr", lores=lores)

    def stop(done: int, _total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    store = tmp_path / "x.zarr"
    with pytest.raises(KeyboardInterrupt):
        import_pmtiles(store, lores=lores, progress=stop)
    assert not store.exists()
    begun: list[int] = []
    import_pmtiles(store, lores=lores, progress=lambda done, _: begun.append(done))
    assert begun == [2, 3]
    assert tree(store) == tree(tmp_path / "whole.zarr")


def test_killed_and_run_again_equals_never_killed(tmp_path: Path) -> None:
    lores = write_archive(tmp_path / "lores", flat_release(square(14)).lores)
    import_pmtiles(tmp_path / "whole.zarr", lores=lores)
    store = tmp_path / "x.zarr"
    process = subprocess.Popen(
        command("import-pmtiles", "--lores", str(lores), "-o", str(store)), env=environment()
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("x.zarr.building/store-*/shards/*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert not store.exists()
    import_pmtiles(store, lores=lores)
    assert tree(store) == tree(tmp_path / "whole.zarr")
    assert not (tmp_path / "x.zarr.building").exists()


def damaged(kind: str) -> bytes:
    """A tile that is not what it should be."""
    good = flat(7, 7, 7)
    photo = release([(LEFT, TOP)]).lores[ZOOM, LEFT, TOP]
    flipped = bytearray(photo)
    flipped[len(photo) // 2] ^= 1
    return {
        "text": b"<html>403</html>",
        "cut": photo[: len(photo) // 2],
        "flipped": bytes(flipped),
        "small": encoded(Image.new("RGBA", (128, 128))),
        "huge": encoded(Image.new("1", (20_000, 20_000))),
        "deep": encoded(Image.new("I;16", (256, 256))),
        "gif": encoded(Image.open(io.BytesIO(good)).convert("RGB"), "GIF"),
    }[kind]


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("text", "no image of PNG, JPEG, WEBP"),
        ("cut", "cannot be decoded"),
        ("flipped", "checksum"),
        ("small", "128 x 128 px"),
        ("huge", "cannot be decoded|20000 x 20000 px"),
        ("deep", "mode I;16"),
        ("gif", "no image of"),
    ],
)
def test_a_damaged_tile_is_never_black(tmp_path: Path, kind: str, words: str) -> None:
    made = flat_release(square(2))
    made.lores[ZOOM, LEFT + 1, TOP] = damaged(kind)
    paths = made.write(tmp_path)
    with pytest.raises(ReadError, match=words) as told:
        import_pmtiles(tmp_path / "x.zarr", **paths)
    assert f"tile {ZOOM}/{LEFT + 1}/{TOP} of {paths['lores']}" in str(told.value)
    assert "--skip-damaged" in str(told.value)
    assert not (tmp_path / "x.zarr").exists()


def test_samples_with_damaged_tiles_may_be_left_out(tmp_path: Path) -> None:
    made = flat_release(square(9))
    made.lores[ZOOM, LEFT + 1, TOP] = damaged("text")
    made.sar[ZOOM, LEFT + 8, TOP + 8] = damaged("cut")
    paths = made.write(tmp_path)
    del paths["hires"]
    report = import_pmtiles(tmp_path / "x.zarr", **paths, skip_damaged=True)
    bad = [(LEFT + 1, TOP), (LEFT + 8, TOP + 8)]
    assert set(report.damaged) == {f"{ZOOM}/{x}/{y}" for x, y in bad}
    assert report.num_samples == 79
    group = zarr.open_group(tmp_path / "x.zarr", mode="r")
    assert {tuple(tile) for tile in group["tile"][:, 1:].tolist()} == {*square(9)} - {*bad}
    assert "2 samples are left out" in attributes_of(tmp_path / "x.zarr").notes[-1]
    verify(tmp_path / "x.zarr")


@given(st.data())
def test_damage_anywhere_is_told(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    folder = tmp_path_factory.mktemp("damage")
    path = write_archive(folder / "a", {(ZOOM, LEFT, TOP): flat(1, 2, 3)})
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    try:
        complete_parts({"lores": open_archive(path)}, ZOOM).read()
    except SalibiError as error:
        message = str(error)
    else:
        message = ""
    assert "\n" not in message


def test_archives_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one = flat_release(square(2)).write(tmp_path / "a")
    two = flat_release([(0, 0)], zoom=13).write(tmp_path / "b")
    store = tmp_path / "x.zarr"
    with pytest.raises(UsageError, match="no archive was given"):
        import_pmtiles(store)
    with pytest.raises(UsageError, match=r"share no zoom.*sar.pmtile has zoom 13"):
        import_pmtiles(store, **{**one, "sar": two["sar"]})
    with pytest.raises(UsageError, match="share no zoom"):
        import_pmtiles(store, sar=one["sar"], lores=one["lores"], hires=one["lores"])
    with pytest.raises(ReadError, match="it has red, which a SAR tile leaves empty"):
        import_pmtiles(store, sar=one["lores"], lores=one["sar"])
    with pytest.raises(UsageError, match=r"variant micro is at zoom 17.*zoom 15"):
        import_pmtiles(store, **one, variant="micro")
    by_scenes = tmp_path / "far.toml"
    by_scenes.write_text('extends = "small"\nname = "far"\n[split]\nsplit_by = "scenes"\n')
    with pytest.raises(UsageError, match="variant far is split by scenes"):
        import_pmtiles(store, **one, variant=str(by_scenes))
    with pytest.raises(UsageError, match="zoom 15"):
        import_pmtiles(store, **one, zoom=14)
    assert not store.exists()
    import_pmtiles(store, **one, variant="small")
    assert attributes_of(store).variant == "small"


def test_the_zoom_may_have_to_be_named(tmp_path: Path) -> None:
    made, coarser = flat_release(square(2)), flat_release([(0, 0)], zoom=14)
    for name in ("sar", "lores", "hires"):
        getattr(made, name).update(getattr(coarser, name))
    paths = made.write(tmp_path)
    with pytest.raises(UsageError, match=r"at zoom 14 or 15 .*--zoom"):
        import_pmtiles(tmp_path / "x.zarr", **paths)
    assert import_pmtiles(tmp_path / "x.zarr", **paths, zoom=14).base_zoom == 14


@needs_real
def test_a_map_of_the_world_is_no_release(tmp_path: Path) -> None:
    world = REAL / "pmtiles" / "stamen_toner_raster_z3.pmtiles"
    with pytest.raises(UsageError, match="may be at zoom 0 or 1 or 2"):
        import_pmtiles(tmp_path / "x.zarr", sar=world, lores=world, hires=world)
    with pytest.raises(ReadError, match="cannot be used"):
        import_pmtiles(tmp_path / "x.zarr", sar=world, lores=world, hires=world, zoom=2)


def test_what_needs_scenes_says_so(imported: tuple[Path, ImportReport]) -> None:
    with pytest.raises(UsageError, match="does not know the scenes"):
        verify(imported[0], against_source=1)


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
        name: said(applications[program], name, *shlex.split(rest), *BESIDES.get(name, ()))
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
    said(data.app, "figure", "released.zarr", "-o", "grid.png", "-n", "2")
    _, _, rest = commands[0]
    assert "9 samples are already in" in said(data.app, "import-pmtiles", *shlex.split(rest))


BESIDES = {"import-pmtiles": ["--json"], "train": ["--batch-size", "4", "--no-stop-on-collapse"]}
"""What the test adds to the page's commands."""


def said(application: typer.Typer, *arguments: str) -> str:
    """What a command prints that ends well."""
    done = CliRunner().invoke(application, list(arguments))
    assert done.exit_code == 0, repr(done.exception)
    return done.stdout


def test_errors_of_the_command_are_one_line(tmp_path: Path) -> None:
    done = run("import-pmtiles", "--sar", "https://example.com/a?sig=secret")
    assert done.returncode == 2
    assert done.stderr.startswith("error: https:// addresses are not read here; download")
    assert "secret" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    (tmp_path / "a").write_bytes(b"PMTiles\x03" + bytes(30))
    done = run("import-pmtiles", "--lores", str(tmp_path / "a"), "-o", str(tmp_path / "x.zarr"))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)


def test_a_page_shows_what_is_not_known_as_unknown(imported: tuple[Path, ImportReport]) -> None:
    """The page's columns say 0 for an unknown day and NaN for clouds; the facts are null."""
    from salibi_data.viewer.samples import Samples

    samples = Samples(imported[0])
    days = [values for name, values in samples.columns.items() if name.startswith("day ")]
    assert len(days) == len(samples.attributes.sensors)
    assert not np.any(days)
    assert np.isnan(samples.columns["cloud"]).all()
    facts = samples.described(0)[0]
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
