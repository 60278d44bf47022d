"""Archives that are damaged or do not belong together: one clear line, never black samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

from salibi_data.imports.pmtiles.directory import open_archive
from salibi_data.imports.pmtiles.importer import ImportReport, import_pmtiles
from salibi_data.imports.pmtiles.samples import complete_samples
from salibi_data.inspection.verify import verify
from salibi_data.store.errors import ReadError, SalibiError, UsageError
from tests.support.data.imported import attributes_of, damaged
from tests.support.data.real_catalogs import REAL, needs_real
from tests.support.data.released_archives import (
    LEFT,
    TOP,
    ZOOM,
    flat,
    flat_release,
    square,
    write_archive,
)
from tests.support.data.samples import run


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
    with pytest.raises(ReadError, match=words) as caught:
        import_pmtiles(tmp_path / "x.zarr", **paths)
    assert f"tile {ZOOM}/{LEFT + 1}/{TOP} of {paths['lores']}" in str(caught.value)
    assert "--skip-damaged" in str(caught.value)
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
    message = None
    try:
        samples = complete_samples({"lores": open_archive(path)}, ZOOM)
        samples.read()
    except SalibiError as error:
        message = str(error)
    if message is None:
        assert len(samples.x) == 1
    else:
        assert message
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
    with pytest.raises(UsageError, match="has no record of its samples' scenes"):
        verify(imported[0], against_source=1)


def test_errors_of_the_command_are_one_line(tmp_path: Path) -> None:
    done = run("import-pmtiles", "--sar", "https://example.com/a?sig=secret")
    assert done.returncode == 2
    assert done.stderr.startswith("error: https:// addresses are not read here; download")
    assert "secret" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    (tmp_path / "a").write_bytes(b"PMTiles\x03" + bytes(30))
    done = run("import-pmtiles", "--lores", str(tmp_path / "a"), "-o", str(tmp_path / "x.zarr"))
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
