"""Providers and variants from TOML."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from salibi_data.catalog.providers import OffsetRule, catalog_from_dict, catalog_names, load_catalog
from salibi_data.catalog.toml_files import builtin_folder
from salibi_data.catalog.variants import check_fit, load_variant, variant_from_dict, variant_names
from salibi_data.store import __version__
from salibi_data.store.errors import UsageError
from tests.support.paths import ROOT


def test_the_contracts_names_are_known() -> None:
    assert {"planetary-computer", "earth-search", "sample"} <= set(catalog_names())
    assert variant_names() == ["full", "micro", "small", "spectral"]


@pytest.mark.parametrize(
    ("name", "zoom", "target"),
    [("small", 15, 21_497), ("full", 15, 188_060), ("micro", 17, 146_502)],
)
def test_variants_are_those_of_the_slides(name: str, zoom: int, target: int) -> None:
    variant = load_variant(name)
    assert (variant.base_zoom, variant.target_samples) == (zoom, target)
    assert [m.name for m in variant.modalities] == ["sar", "lores", "hires", "hires_4x"]
    assert [m.tile_px for m in variant.modalities] == [256, 256, 256, 512]
    assert variant.sensors == ("sentinel-1", "sentinel-2", "naip")
    # The slides and the project's web page disagree; whoever reads the figure is told so.
    assert "swaps" in (builtin_folder() / "variants" / f"{name}.toml").read_text()


@pytest.mark.parametrize("name", ["planetary-computer", "earth-search", "sample"])
def test_a_catalog_reads_back_from_its_json_form(name: str) -> None:
    catalog = load_catalog(name)
    assert catalog_from_dict(catalog.to_dict(), where="test", folder=Path()) == catalog


@pytest.mark.parametrize("name", ["small", "full", "micro"])
def test_a_variant_reads_back_from_its_json_form(name: str) -> None:
    variant = load_variant(name)
    assert variant_from_dict(variant.to_dict(), where="test") == variant


def test_every_source_states_licence_and_attribution() -> None:
    for name in catalog_names():
        for sensor in load_catalog(name).sensors.values():
            assert sensor.licence
            assert sensor.attribution


@pytest.mark.parametrize("load", [load_variant, load_catalog])
def test_an_unknown_name_lists_the_known_ones(load) -> None:
    with pytest.raises(UsageError, match=r"unknown .* 'nano'; known are .*(micro|sample)"):
        load("nano")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name = [", "not valid TOML"),
        ('name = "x"', "not a variant"),
        ('extends = "micro"\nnonsense = 1', "not a variant"),
        ('extends = "nowhere"', "neither beside it nor built in"),
        ('extends = "micro"\nselection = []', r"no \[\[selection\]\] row"),
        (
            (
                'extends = "micro"\n[[modality]]\nname = "sar"\nsensor = "sentinel-1"\n'
                'product = "rtc"\nbands = ["vv"]\nunits = "dB"'
            ),
            "needs a range per band",
        ),
    ],
)
def test_a_faulty_variant_file_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "x.toml"
    path.write_text(content)
    with pytest.raises(UsageError, match=message):
        load_variant(str(path))


def test_a_grouping_property_must_be_a_list(tmp_path: Path) -> None:
    """A string would be taken letter by letter, and mix the years of NAIP."""
    path = tmp_path / "x.toml"
    path.write_text('extends = "sample"\n[sensors.naip]\ngroup_by = "naip:year"')
    with pytest.raises(UsageError, match=r"naip\.group_by is 'naip:year'; expected a list"):
        load_catalog(str(path))


def test_a_catalog_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('extends = "sample"\nkind = "ftp"')
    with pytest.raises(UsageError, match="kind is 'ftp'"):
        load_catalog(str(path))


@pytest.mark.parametrize(
    ("baseline", "offset"), [("02.14", 0.0), ("03.01", 0.0), ("04.00", -0.1), ("05.10", -0.1)]
)
def test_the_processing_baseline_decides_the_reflectance_offset(
    baseline: str, offset: float
) -> None:
    product = load_catalog("planetary-computer").sensors["sentinel-2"].products["reflectance"]
    assert product.offset_for({"s2:processing_baseline": baseline}) == offset


def test_the_display_image_carries_no_offset() -> None:
    product = load_catalog("planetary-computer").sensors["sentinel-2"].products["visual"]
    assert product.offset_for({"s2:processing_baseline": "05.10"}) == 0


def test_an_item_without_a_baseline_carries_no_offset() -> None:
    rule = OffsetRule(property="s2:processing_baseline", at_least="04.00", offset=-0.1)
    assert not rule.applies({})


def test_all_tomls_are_in_the_wheel() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["force-include"] == {"catalogs": "salibi_data/catalogs"}


def test_the_wheel_finds_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    file = ROOT / project["tool"]["hatch"]["version"]["path"]
    # What hatchling looks for: an annotation other than `str` is not allowed.
    pattern = r"""^__version__(?: ?: ?str)? *= *(["'])v?(?P<version>.+?)\1"""
    match = re.search(pattern, file.read_text(), flags=re.MULTILINE)
    assert match is not None
    assert match["version"] == __version__


@pytest.mark.parametrize("name", ["small", "full", "micro"])
def test_variants_name_bands_that_their_catalogs_have(name: str) -> None:
    variant, catalog = load_variant(name), load_catalog("planetary-computer")
    check_fit(variant, catalog)
    for recipe in variant.modalities:
        product = catalog.sensors[recipe.sensor].products[recipe.product]
        assert set(recipe.bands) <= set(product.bands)
        other = replace(recipe, bands=(*recipe.bands[1:], "ultraviolet"))
        with pytest.raises(UsageError, match="with bands ultraviolet"):
            check_fit(replace(variant, modalities=(other,)), catalog)
