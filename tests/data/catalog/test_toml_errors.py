"""Variant and catalog files that say something wrong: one line that tells what, in their words."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from salibi_data.catalog.providers import load_catalog
from salibi_data.catalog.variants import load_variant, variant_from_dict
from salibi_data.plans.planner import plan
from salibi_data.store.errors import UsageError

LORES: dict[str, Any] = {
    "name": "lores",
    "sensor": "sentinel-2",
    "product": "visual",
    "bands": ["red", "green", "blue"],
    "units": "display",
}
SAR: dict[str, Any] = {
    "name": "sar",
    "sensor": "sentinel-1",
    "product": "rtc",
    "bands": ["vv"],
    "units": "dB",
    "range": [[-25, 0]],
}
S2, S1 = {"sensor": "sentinel-2", "rank": ["cloud"]}, {"sensor": "sentinel-1", "rank": ["time"]}
CONTENT: dict[str, Any] = {
    "name": "mine",
    "summary": "two sensors",
    "base_zoom": 15,
    "selection": [S2, S1],
    "modality": [SAR, LORES],
}


def refusal(**changes: Any) -> str:
    """What is said of a variant with some changes; None leaves a key out."""
    content = {key: value for key, value in (CONTENT | changes).items() if value is not None}
    with pytest.raises(UsageError) as refused:
        variant_from_dict(content, where="mine.toml")
    message = str(refused.value)
    assert message.startswith("mine.toml is not a variant: ")
    assert "\n" not in message
    assert "__init__" not in message
    return message


def test_what_the_changes_are_made_to_is_a_variant() -> None:
    assert variant_from_dict(CONTENT, where="mine.toml").sensors == ("sentinel-1", "sentinel-2")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modality": None}, "modality is missing; expected a list of tables"),
        ({"selection": None}, "selection is missing; expected a list of tables"),
        ({"base_zoom": None}, "base_zoom is missing; expected a whole number"),
        ({"foo": 1}, "foo is unknown; expected one of name, summary, base_zoom, modality"),
        ({"quality": {"foo": 1}}, "quality.foo is unknown; expected one of min_valid"),
        ({"quality": 1}, "quality is 1; expected a table"),
        (
            {"split": {"test_share": 0.1}, "test_share": 0.2},
            "test_share is given under [split] and",
        ),
        ({"modality": [1]}, "modality[0] is 1; expected a table"),
        ({"modality": {"a": 1}}, "modality is {'a': 1}; expected a list"),
        (
            {"modality": [LORES | {"gsd": 1}]},
            "modality[0].gsd is unknown; expected one of name, sensor",
        ),
        ({"modality": [{**LORES, "sensor": 2}]}, "modality[0].sensor is 2; expected text"),
        ({"alignment": 4}, "alignment is 4; expected a table"),
        ({"alignment": {"modality": "sar"}}, "alignment.reference is missing; expected text"),
    ],
)
def test_keys_that_are_unknown_missing_or_no_tables(changes: Any, words: str) -> None:
    assert words in refusal(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": 5}, "name is 5; expected text"),
        ({"base_zoom": True}, "base_zoom is True; expected a whole number"),
        ({"base_zoom": 17.0}, "base_zoom is 17.0; expected a whole number"),
        ({"target_samples": "x"}, "target_samples is 'x'; expected a whole number"),
        ({"split": {"split_zoom_offset": 1.5}}, "split_zoom_offset is 1.5; expected a whole"),
        ({"split": {"split_by": "x"}}, "split_by is 'x'; expected one of blocks, scenes"),
        ({"split": {"test_share": "a"}}, "test_share is 'a'; expected a finite number"),
        ({"quality": {"min_valid_fraction": "x"}}, "min_valid_fraction is 'x'; expected a finite"),
        (
            {"modality": [LORES | {"bands": [1, 2]}]},
            "modality[0].bands[0] is 1; expected text",
        ),
        (
            {"modality": [LORES | {"bands": "red"}]},
            "modality[0].bands is 'red'; expected a list of texts",
        ),
        (
            {"modality": [LORES | {"zoom_offset": 1.0}]},
            "modality[0].zoom_offset is 1.0; expected a whole number",
        ),
        (
            {"modality": [SAR | {"units": "bananas"}]},
            "modality[0].units is 'bananas'; expected one of power, dB",
        ),
        (
            {"modality": [SAR | {"range": [-25, 0]}]},
            "modality[0].range[0] is -25; expected [a finite number, a finite",
        ),
        (
            {"selection": [S2, S1 | {"within_days": "x"}]},
            "selection[1].within_days is 'x'; expected a finite number",
        ),
        (
            {"selection": [S2, S1 | {"rank": "time"}]},
            "selection[1].rank is 'time'; expected a list, each one of newest",
        ),
        (
            {"selection": [S2, S1 | {"rank": ["best"]}]},
            "selection[1].rank[0] is 'best'; expected one of newest, cloud, time",
        ),
        (
            {"region": [{"name": "a", "tile": 5, "reason": ""}]},
            "region[0].tile is 5; expected text",
        ),
    ],
)
def test_values_of_the_wrong_type(changes: Any, words: str) -> None:
    assert words in refusal(**changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modality": [SAR, LORES | {"gsd": 1}]}, "(modality[1] is 'lores')"),
        ({"modality": [SAR, LORES | {"bands": ["red", 1]}]}, "(modality[1] is 'lores')"),
        ({"selection": [S2, S1 | {"within_days": -3}]}, "(selection[1] is 'sentinel-1')"),
        ({"region": [{"name": "a", "tile": "10/1/1"}]}, "(region[0] is 'a')"),
    ],
)
def test_a_row_goes_by_its_name_as_well(changes: Any, words: str) -> None:
    assert refusal(**changes).count(words) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"quality": {"min_valid_fraction": 1.1}},
            "min_valid_fraction is 1.1; expected a finite number from 0 to 1",
        ),
        (
            {"quality": {"max_cloud_fraction": -1}},
            "max_cloud_fraction is -1; expected a finite number from 0 to 1",
        ),
        ({"quality": {"max_cloud_fraction": float("nan")}}, "is nan; expected a finite number"),
        (
            {"split": {"validation_share": -1}},
            "validation_share is -1; expected a finite number from 0 to 1",
        ),
        ({"split": {"validation_share": 0.5, "test_share": 0.5}}, "leave nothing to train on"),
        (
            {"split": {"split_zoom_offset": 16}},
            "split_zoom_offset is 16; expected 0 to the base zoom 15",
        ),
        ({"target_samples": 0}, "target_samples is 0; expected a whole number of 1 or more"),
        ({"modality": [SAR | {"range": [[0, -25]]}]}, "a range of sar is not (low, high)"),
        ({"modality": [SAR | {"range": [[0, 0]]}]}, "a range of sar is not (low, high)"),
        (
            {"modality": [SAR | {"range": [[float("nan"), 0]]}]},
            "range[0][0] is nan; expected a finite number",
        ),
        (
            {"modality": [SAR | {"range": [[0, float("inf")]]}]},
            "range[0][1] is inf; expected a finite number",
        ),
        ({"modality": [SAR | {"range": [[0, 10**400]]}]}, "range[0][1] is 1000"),
        ({"modality": [LORES | {"bands": ["red", "red"]}]}, "name each band once"),
        ({"alignment": {"modality": "sar", "reference": "sar"}}, "of sar with itself"),
        (
            {"selection": [S2, S1 | {"within_days": -3}]},
            "selection[1].within_days is -3; expected a finite number from 0",
        ),
        (
            {"selection": [S2, S1 | {"within_days": 1e9}]},
            "expected a finite number from 0 to 36525",
        ),
    ],
)
def test_values_out_of_range(changes: Any, words: str) -> None:
    assert words in refusal(**changes)


BAD_NAMES = ["", "../x", "a/b", "zarr.json", "manifest.json", "5x", "-x", "ünï", "a b", "a\n"]


@pytest.mark.parametrize("name", [*BAD_NAMES, "x" * 65])
def test_names_that_are_no_names_of_files(name: str) -> None:
    assert f"a variant is named {name!r}; expected a letter" in refusal(name=name)
    row = LORES | {"name": name}
    assert f"a modality is named {name!r}; expected a letter" in refusal(modality=[row])


@pytest.mark.parametrize("name", ["tile", "split"])
def test_a_modality_cannot_take_an_index_arrays_name(name: str) -> None:
    assert "names of their own" in refusal(modality=[LORES | {"name": name}])


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([S2 | {"near": "sentinel-2"}, S1], "near of sentinel-2 is itself"),
        ([S2 | {"near": "sentinel-1"}, S1], "'sentinel-1', which is chosen after it"),
        ([S2 | {"near": "sentinel-1"}, S1 | {"near": "sentinel-2"}], "which is chosen after it"),
        ([S2, S1 | {"near": "landsat"}], "'landsat', which has no [[selection]] row"),
        ([S2, S1, S2], "several [[selection]] rows for ['sentinel-2']"),
    ],
)
def test_sensors_are_chosen_once_and_near_one_chosen_before(rows: Any, words: str) -> None:
    assert words in refusal(selection=rows)


@pytest.mark.parametrize(
    "tile", ["10/a/b", "10/1", "10/99999/5", "10/5/1024", "10/-1/5", "10.5/1/1", "100/1/1", ""]
)
def test_a_region_is_a_tile_of_the_grid(tile: str) -> None:
    message = refusal(region=[{"name": "a", "tile": tile, "reason": ""}])
    assert f"tile of region 'a' is {tile!r}; expected zoom/column/row" in message


def test_a_region_is_chosen_for_land_covers_and_has_land() -> None:
    region = {"name": "a", "tile": "10/5/5", "reason": ""}
    message = refusal(region=[region | {"kinds": ["moon"]}])
    assert "region[0].kinds[0] is 'moon'; expected one of city, coast" in message
    for share in (0.0, 1.5, -1.0):
        message = refusal(region=[region | {"land_share": share}])
        assert (
            f"region[0].land_share is {share}; expected a finite number above 0, 1 at most"
            in message
        )


def test_a_region_is_not_finer_than_the_base_zoom() -> None:
    message = refusal(region=[{"name": "a", "tile": "16/5/5", "reason": ""}])
    assert "finer than the base zoom 15" in message
    region = {"name": "a", "tile": "15/5/5", "reason": ""}
    assert variant_from_dict(CONTENT | {"region": [region]}, where="").regions[0].zoom == 15


def file(folder: Path, name: str, text: str) -> str:
    path = folder / f"{name}.toml"
    path.write_text(text)
    return str(path)


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ({"a": "b", "b": "a"}, "a.toml -> b.toml -> a.toml"),
        ({"a": "a"}, "a.toml -> a.toml"),
        ({"a": "b", "b": "c", "c": "b"}, "a.toml -> b.toml -> c.toml -> b.toml"),
    ],
)
@pytest.mark.parametrize("load", [load_variant, load_catalog])
def test_a_file_cannot_extend_itself(tmp_path: Path, load: Any, chain: Any, said: str) -> None:
    for name, base in chain.items():
        file(tmp_path, name, f'extends = "{base}"\n')
    with pytest.raises(UsageError, match=f"a.toml extends itself: {said}"):
        load(str(tmp_path / "a.toml"))


def test_the_last_file_of_a_chain_wins(tmp_path: Path) -> None:
    file(tmp_path, "a", 'extends = "micro"\nname = "a"\nsummary = "a"\n[split]\ntest_share = 0.2\n')
    path = file(tmp_path, "b", 'extends = "a"\nname = "b"\n[split]\nvalidation_share = 0.3\n')
    variant = load_variant(path)
    assert (variant.name, variant.summary) == ("b", "a")
    assert (variant.test_share, variant.validation_share) == (0.2, 0.3)
    assert variant.modalities == load_variant("micro").modalities


def test_a_pair_that_the_file_itself_names_must_be_there(tmp_path: Path) -> None:
    head = 'extends = "micro"\nname = "own"\n'
    own = file(tmp_path, "own", f'{head}[alignment]\nmodality = "sar"\nreference = "nope"\n')
    with pytest.raises(UsageError, match=r"alignment names \['nope'\], and its modalities are sar"):
        load_variant(own)
    rows = '[[modality]]\nname = "lores"\nsensor = "sentinel-2"\nproduct = "visual"\n'
    inherited = file(tmp_path, "less", f'{head}{rows}bands = ["red"]\nunits = "display"\n')
    variant = load_variant(inherited)
    assert variant.alignment is not None
    assert variant.aligned is None


def test_a_pair_has_one_size(tmp_path: Path) -> None:
    text = (
        'extends = "micro"\nname = "x"\n[alignment]\nmodality = "hires_4x"\nreference = "hires"\n'
    )
    with pytest.raises(
        UsageError, match=r"\{'hires_4x': 512, 'hires': 256\} px; expected one size"
    ):
        load_variant(file(tmp_path, "x", text))


def test_a_share_of_clouds_that_is_no_share_is_refused(sample_toml: str) -> None:
    for share in (float("nan"), -0.1, 1.1):
        with pytest.raises(UsageError, match=r"max_cloud is .+ expected a finite number"):
            plan("micro", catalog=sample_toml, max_cloud=share)


def test_a_variant_made_in_python_is_checked_too() -> None:
    micro = load_variant("micro")
    with pytest.raises(ValueError, match="leave nothing to train on"):
        replace(micro, validation_share=0.6, test_share=0.5)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("url = 5", "url is 5; expected text"),
        ('url = "ftp://127.0.0.1/stac"', "expected the http(s) address of a STAC API"),
        ('url = "catalog.json"', 'For a catalog on disk set kind = "static"'),
        ('kind = "static"', "a static one's is the path of its catalog.json"),
        ('kind = "static"\nurl = "http://127.0.0.1/catalog.json"', "its url is 'http://127"),
        ('kind = "static"\nurl = ""', "its url is ''"),
        ("foo = 1", "foo is unknown; expected one of name, title, kind, sensors, url"),
        ("[sensors.naip]\nfoo = 1", "sensors.naip.foo is unknown; expected one of"),
        ("[sensors]\nnaip = 4", "sensors.naip is 4; expected a table"),
        ('[sensors.x]\ncollection = "c"', "sensors.x.products is missing; expected a table"),
        (
            '[sensors.naip.products.image.bands.red]\nindex = "x"',
            "sensors.naip.products.image.bands.red.index is 'x'; expected a whole number",
        ),
        (
            '[sensors.naip.products.image]\nunits = "x"',
            "image.units is 'x'; expected one of power, dB",
        ),
        ('[sensors.naip.products.image]\nnodata = "x"', "expected a finite number or 'footprint'"),
        ("[prices]\nusd = 1", "prices.usd is unknown; expected one of usd_per_gb"),
    ],
)
def test_a_faulty_catalog_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = file(tmp_path, "mine", f'extends = "planetary-computer"\nname = "mine"\n{text}\n')
    with pytest.raises(UsageError, match=re.escape(words)) as refused:
        load_catalog(path)
    message = str(refused.value)
    assert "mine.toml is not a catalog: " in message
    assert "__init__" not in message


def test_a_catalogs_address_is_told_without_what_is_secret_in_it(tmp_path: Path) -> None:
    address = "https://user:word@example.org/c.json?token=abc"
    text = f'extends = "sample"\nname = "mine"\nkind = "static"\nurl = "{address}"\n'
    with pytest.raises(UsageError, match=r"https://example\.org/c\.json'") as refused:
        load_catalog(file(tmp_path, "mine", text))
    assert "word" not in str(refused.value)
    assert "abc" not in str(refused.value)
