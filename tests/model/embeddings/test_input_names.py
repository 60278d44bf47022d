"""Names of inputs: an id for each row, and each local path as it was given."""

from __future__ import annotations

import itertools
import os
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salibi_data.store.errors import UsageError
from salibi_model.checkpoints.files import save_model
from salibi_model.data.input_names import distinct_names
from salibi_model.embeddings.embed import embed
from tests.support.model.embedded import noise, raster
from tests.support.model.nano import nano_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A model of three modalities that was trained at 3.7 m."""
    folder = tmp_path_factory.mktemp("checkpoint") / "model"
    save_model(nano_model(base_gsd_m=3.7).eval(), folder, training={"step": 1})
    return folder


def rows(checkpoint, inputs, out):
    """Ids and sources of the table."""
    embed(checkpoint, inputs, out=out, modalities=("lores",))
    table = pq.read_table(out / "embeddings.parquet", columns=["id", "source"])
    return table["id"].to_pylist(), table["source"].to_pylist()


def test_files_of_one_name_are_told_apart_by_their_folders(checkpoint, tmp_path):
    names = ("s1/IMG/TCI.tif", "s2/IMG/TCI.tif", "s1/IMG/TCI.jp2", "one.tif")
    for k, name in enumerate(names):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        raster(tmp_path / "in" / name, noise(64, 64, seed=k))
    files = [tmp_path / "in" / name for name in names]
    ids, sources = rows(checkpoint, files, tmp_path / "E")
    expected = ["s1/IMG/TCI.tif#0,0", "s2/IMG/TCI.tif#0,0", "TCI.jp2#0,0", "one.tif#0,0"]
    assert ids == expected
    assert sources == [str(path) for path in files]
    # In another order, from another place, by relative paths.
    shutil.move(tmp_path / "in", tmp_path / "elsewhere")
    moved = [tmp_path / "elsewhere" / name for name in reversed(names)]
    ids, _ = rows(checkpoint, [os.path.relpath(path) for path in moved], tmp_path / "F")
    assert ids == expected[::-1]


def test_stores_of_one_name_are_told_apart(checkpoint, small_store, tmp_path):
    copies = [shutil.copytree(small_store, tmp_path / year / "a.zarr") for year in ("2020", "2021")]
    ids, _ = rows(checkpoint, copies, tmp_path / "E")
    assert len(set(ids)) == len(ids) == 32
    assert {each.split("#")[0] for each in ids} == {"2020/a.zarr", "2021/a.zarr"}


def test_an_input_given_twice_is_refused(checkpoint, tmp_path, monkeypatch):
    path = raster(tmp_path / "x.tif", noise(64, 64))
    monkeypatch.chdir(tmp_path)
    for again in (path, "x.tif", "./x.tif", "sub/../x.tif", path.as_uri()):
        with pytest.raises(UsageError, match=r"x\.tif is given twice.*Give each input once"):
            embed(checkpoint, [path, again], out=tmp_path / "E", modalities=("lores",))
    assert list(tmp_path.iterdir()) == [path]


NAMES = (
    *("tile?x=1.tif", "tile?x=2.tif", "site#1.tif", "cover 50%.tif", "a%20b.tif", "a b.tif"),
    *("café 日本.tif", "two\nlines.tif", "-first.tif", "NETCDF:a.tif", "a.tif:1", "x&y=[1].tif"),
    *("GTIFF_DIR:1:a.tif", "back\\slash.tif", "'quoted\".tif", "~home.tif", "$HOME.tif"),
)


def test_any_character_of_a_local_name_is_kept(checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k, name in enumerate(NAMES):
        raster(tmp_path / "plain.tif", noise(64, 64, seed=k))
        (tmp_path / "plain.tif").rename(name)
    ids, sources = rows(checkpoint, NAMES, tmp_path / "E")
    assert sources == list(NAMES)
    assert ids == [f"{name.split(chr(92))[-1]}#0,0" for name in NAMES]


def test_a_name_that_is_not_utf_8_is_refused(checkpoint, tmp_path):
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.tif")
    raster(tmp_path / "x.tif", noise(64, 64)).rename(path)
    with pytest.raises(UsageError, match=r"caf\\xe9\.tif .*not UTF-8.*rename"):
        embed(checkpoint, [path], out=tmp_path / "E", modalities=("lores",))


def test_file_urls_name_files(checkpoint, tmp_path):
    path = raster(tmp_path / "a b.tif", noise(64, 64))
    assert rows(checkpoint, [path.as_uri()], tmp_path / "E") == (["a b.tif#0,0"], [path.as_uri()])


def test_an_odd_name_is_told_whole(checkpoint, tmp_path):
    (tmp_path / "notes?x=1.tif").write_text("no raster")
    with pytest.raises(UsageError, match=r"notes\?x=1\.tif cannot be read as a raster"):
        embed(checkpoint, [tmp_path / "notes?x=1.tif"], out=tmp_path / "E")
    with pytest.raises(
        UsageError, match=r"no\?x\.tif cannot be read as a raster .*no\?x\.tif: No such"
    ):
        embed(checkpoint, [tmp_path / "no?x.tif"], out=tmp_path / "E")


def test_addresses_keep_no_query():
    signed = [f"https://host/s/x.tif?sig=secret{k}" for k in (1, 2)]
    names = distinct_names(signed)
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"x\.tif~[0-9a-f]{8}", name) for name in names)
    in_folders = [f"https://host/{name}/TCI.tif?sig=secret" for name in ("s1", "s2")]
    assert distinct_names(in_folders) == ["s1/TCI.tif", "s2/TCI.tif"]
    assert distinct_names(["/vsis3/bucket/a.tif?sig=secret"]) == ["a.tif"]
    assert distinct_names(["/vsizip/a?.zip/x?1.tif", "/vsizip/a?.zip/x?2.tif"]) == [
        "x?1.tif",
        "x?2.tif",
    ]


paths = st.lists(
    st.lists(st.sampled_from(["a", "b", "c.tif"]), min_size=1, max_size=4).map("/".join),
    min_size=1,
    max_size=8,
    unique=True,
)


@given(paths, st.randoms(use_true_random=False))
def test_names_are_apart_short_and_independent_of_the_order(relative, random):
    locations = [f"/root/{path}" for path in relative]
    names = dict(zip(locations, distinct_names(locations), strict=True))
    assert len(set(names.values())) == len(locations)
    for location, name in names.items():
        assert f"/{location}".endswith(f"/{name}")
        alone = [each for each in locations if each.split("/")[-1] == name.split("/")[-1]]
        assert ("/" in name) == (len(alone) > 1)
    shuffled = random.sample(locations, len(locations))
    assert dict(zip(shuffled, distinct_names(shuffled), strict=True)) == names


def test_vectors_belong_to_their_names(checkpoint, tmp_path):
    """Names that differ only behind a question mark are different files."""
    images = {f"t?k={k}.tif": noise(64, 64, seed=k) for k in range(2)}
    for name, values in images.items():
        raster(tmp_path / "x.tif", values).rename(tmp_path / name)
    vectors = {}
    for name, order in itertools.product(images, (1, -1)):
        given_names = [str(tmp_path / each) for each in images][::order]
        out = tmp_path / f"E{order}"
        if not out.exists():
            embed(checkpoint, given_names, out=out, modalities=("lores",))
        table = pq.read_table(out / "embeddings.parquet").to_pylist()
        (row,) = [row for row in table if row["source"].endswith(name)]
        vectors.setdefault(name, []).append(row["embedding"])
    for first, second in vectors.values():
        assert np.allclose(first, second, atol=1e-6)
    assert not np.allclose(*(pair[0] for pair in vectors.values()), atol=1e-3)
