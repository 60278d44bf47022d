"""Tables as typed records: what fits is kept as written, what does not is named by its path."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from salibi_data.store.validation import RecordError, check_record, option, read_record
from tests.support.paths import ROOT


@dataclass(frozen=True, kw_only=True)
class Band:
    index: int = option(1, minimum=1)
    scale: float = option(1.0, above=0, maximum=10)
    range: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Modality:
    name: str
    bands: tuple[Band, ...] = field(metadata={"key": "band"})
    units: Literal["dB", "display"] = "display"
    shares: tuple[float, ...] = option((), minimum=0, maximum=1)
    nodata: float | Literal["footprint"] | None = None


@dataclass(frozen=True, kw_only=True)
class Variant:
    name: str
    modalities: Mapping[str, Modality]
    size: str = option("tiny", choices=("small", "base"))
    seed: int = option(0, minimum=0)
    keep: bool = True
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.name == "refused":
            raise ValueError("the name is refused")


@dataclass(frozen=True, kw_only=True)
class Span:
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


@dataclass(frozen=True, kw_only=True)
class Spans:
    inner: tuple[Span, ...]


finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = finite | st.integers(-(2**60), 2**60)
bands = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(1, 20),
        "scale": st.floats(0, 10, exclude_min=True) | st.integers(1, 10),
        "range": st.lists(numbers, min_size=2, max_size=2) | st.none(),
    },
)
modalities = st.fixed_dictionaries(
    {"name": st.text(), "band": st.lists(bands, min_size=1, max_size=3)},
    optional={
        "units": st.sampled_from(["dB", "display"]),
        "shares": st.lists(st.floats(0, 1) | st.integers(0, 1), max_size=3),
        "nodata": numbers | st.sampled_from(["footprint", None]),
    },
)
tables = st.fixed_dictionaries(
    {
        "name": st.text().filter(lambda text: text != "refused"),
        "modalities": st.dictionaries(
            st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True),
            modalities,
            min_size=1,
            max_size=2,
        ),
    },
    optional={
        "size": st.sampled_from(["tiny", "small", "base"]),
        "seed": st.integers(0, 2**31),
        "keep": st.booleans(),
        "more": st.dictionaries(st.text(), st.integers() | st.text()),
    },
)


def as_table(record: Any) -> Any:
    """The table that a record is written as, with the keys of the file."""
    content = asdict(record)
    for modality in content["modalities"].values():
        modality["band"] = modality.pop("bands")
    return json.loads(json.dumps(content))


def nodes(table: Any, path: str = "") -> list[tuple[Any, Any, str]]:
    """(container, key, path) of everything in a table but the values of ``more``."""
    paths = []
    items = enumerate(table) if isinstance(table, list) else table.items()
    for key, value in items:
        below = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}" if path else key
        paths.append((table, key, below))
        if isinstance(value, list | dict) and key != "more":
            paths += nodes(value, below)
    return paths


@given(tables)
def test_a_fitting_table_is_read_and_written_again_alike(table: Any) -> None:
    record = read_record(Variant, table)
    again = as_table(record)
    assert read_record(Variant, again) == record
    written = {path: container[key] for container, key, path in nodes(again)}
    for container, key, path in nodes(table):
        if not isinstance(container[key], list | dict):
            assert json.dumps(written[path]) == json.dumps(container[key])
    assert json.dumps(as_table(read_record(Variant, again))) == json.dumps(again)


@given(tables, st.data())
def test_any_one_key_broken_is_named(table: Any, data: st.DataObject) -> None:
    content = as_table(read_record(Variant, table))
    container, key, path = data.draw(st.sampled_from(nodes(content)))
    wrong = data.draw(st.sampled_from([float("nan"), float("inf"), [[[]]], {"?": 1}, b"x"]))
    if key == "more" or (key in content["modalities"] and isinstance(wrong, dict)):
        wrong = 3
    container[key] = wrong
    with pytest.raises(RecordError) as caught:
        read_record(Variant, content)
    message = str(caught.value)
    assert message.startswith(path)
    assert "; expected " in message
    assert "\n" not in message
    assert len(message) < 300


@given(tables, st.data())
def test_any_unknown_or_missing_key_is_named(table: Any, data: st.DataObject) -> None:
    content = as_table(read_record(Variant, table))
    required = [
        (container, key, path)
        for container, key, path in nodes(content)
        if key in ("name", "modalities", "band")
        and isinstance(container, dict)
        and container is not content["modalities"]
    ]
    container, key, path = data.draw(st.sampled_from(required))
    misspelt = data.draw(st.booleans())
    value = container.pop(key)
    if misspelt:
        container[f"{key}x"] = value
    with pytest.raises(RecordError) as caught:
        read_record(Variant, content)
    assert str(caught.value).startswith(f"{path}x is unknown" if misspelt else f"{path} is missing")


GOOD: dict[str, Any] = {"name": "v", "modalities": {"sar": {"name": "sar", "band": [{}]}}}


def refusal(**changes: Any) -> str:
    with pytest.raises(RecordError) as caught:
        read_record(Variant, GOOD | changes)
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": True}, "seed is True; expected a whole number"),
        ({"seed": "3"}, "seed is '3'; expected a whole number"),
        ({"seed": 3.7}, "seed is 3.7; expected a whole number"),
        ({"seed": 3.0}, "seed is 3.0; expected a whole number"),
        ({"seed": -1}, "seed is -1; expected a whole number of 0 or more"),
        ({"keep": 1}, "keep is 1; expected true or false"),
        ({"keep": None}, "keep is null; expected true or false"),
        ({"size": "huge"}, "size is 'huge'; expected one of small, base"),
        ({"name": 5}, "name is 5; expected text"),
        ({"name": "refused"}, "the name is refused"),
        ({"more": []}, "more is []; expected a table"),
        ({"modalities": ["sar"]}, "modalities is ['sar']; expected a table"),
        ({"sede": 1}, "sede is unknown; expected one of name, modalities, size, seed, keep, more"),
    ],
)
def test_types_are_exact_and_ranges_hold(changes: Any, message: str) -> None:
    assert refusal(**changes) == message


@pytest.mark.parametrize(
    ("modality", "message"),
    [
        (
            {"band": [{}, {"scale": 0}]},
            "band[1].scale is 0; expected a finite number above 0, 10 at most",
        ),
        ({"band": [{"scale": True}]}, "band[0].scale is True; expected a finite number"),
        ({"band": [{"scale": "1"}]}, "band[0].scale is '1'; expected a finite number"),
        (
            {"band": [{"scale": 10**400}]},
            f"band[0].scale is 1{'0' * 17}...{'0' * 19}; expected a finite number",
        ),
        (
            {"band": [{"range": [1]}]},
            "band[0].range is [1]; expected [a finite number, a finite number]",
        ),
        ({"band": [{"range": [1, "2"]}]}, "band[0].range[1] is '2'; expected a finite number"),
        ({"band": "vv"}, "band is 'vv'; expected a list of tables"),
        ({"shares": [0, 1, 1.5]}, "shares[2] is 1.5; expected a finite number from 0 to 1"),
        ({"shares": 0.5}, "shares is 0.5; expected a list of finite numbers"),
        ({"units": "DB"}, "units is 'DB'; expected one of dB, display"),
        ({"nodata": "edge"}, "nodata is 'edge'; expected a finite number or 'footprint'"),
        ({"bands": []}, "bands is unknown; expected one of name, band, units, shares, nodata"),
        ({"a b": 1}, "['a b'] is unknown; expected one of name, band, units, shares, nodata"),
    ],
)
def test_a_path_leads_through_tables_and_lists(modality: Any, message: str) -> None:
    changed = GOOD["modalities"]["sar"] | modality
    point = "" if message.startswith("[") else "."
    assert refusal(modalities={"sar": changed}) == f"modalities.sar{point}{message}"


@dataclass(frozen=True, kw_only=True)
class Rows:
    modalities: tuple[Modality, ...]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"band": [{}], "x": 1}, "modalities[1].x is unknown; expected one of name, band, "),
        ({"band": [{}, {"index": 0}]}, "modalities[1].band[1].index is 0; expected a whole "),
        ({"band": [{"range": [0]}]}, "modalities[1].band[0].range is [0]; expected "),
        ({}, "modalities[1].band is missing; expected a list of tables"),
    ],
)
def test_a_row_of_a_list_goes_by_its_name_as_well(row: Any, message: str) -> None:
    with pytest.raises(RecordError) as caught:
        read_record(Rows, {"modalities": [GOOD["modalities"]["sar"], {"name": "vv", **row}]})
    assert str(caught.value).startswith(message)
    assert str(caught.value).endswith(" (modalities[1] is 'vv')")
    with pytest.raises(RecordError, match=r"is 1; expected text$"):
        read_record(Rows, {"modalities": [{"name": 1, "band": []}]})


@dataclass(frozen=True, kw_only=True)
class Options:
    count: int = option(1, minimum=1)
    share: float = option(0.5, maximum=1)
    bounds: tuple[float, float] | None = None
    names: tuple[str, ...] = ()
    name: str = ""
    keep: bool = False
    nodata: float | None = option(None, finite=False)
    shift: float | None = option(None, minimum=0, finite=False)


def test_options_made_in_python_may_be_lists_and_numbers_of_numpy() -> None:
    options = Options(
        count=np.int64(3),
        share=np.float32(0.25),
        bounds=np.array([1.0, 2.0]),  # type: ignore[arg-type]
        names=["a", np.str_("b")],  # type: ignore[arg-type]
        name=np.str_("c"),
        keep=np.bool_(True),
        nodata=np.float32("nan"),
    )
    check_record(options)
    assert json.dumps(asdict(options)) == (
        '{"count": 3, "share": 0.25, "bounds": [1.0, 2.0], "names": ["a", "b"], "name": "c", '
        '"keep": true, "nodata": NaN, "shift": null}'
    )
    assert (type(options.bounds), type(options.names)) == (tuple, tuple)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(count=np.int64(0)), "count is 0; expected a whole number of 1 or more"),
        (Options(count=np.bool_(True)), "count is True; expected a whole number"),
        (Options(share=np.float64(2)), "share is 2.0; expected a finite number 1 at most"),
        (Options(share=np.float64("nan")), "share is nan; expected a finite number"),
        (Options(bounds=np.zeros(3)), "bounds is [0.0, 0.0, 0.0]; expected [a finite number, "),  # type: ignore[arg-type]
        (Options(shift=float("nan")), "shift is nan; expected a finite number of 0 or more"),
        (Options(nodata="x"), "nodata is 'x'; expected a finite number"),  # type: ignore[arg-type]
    ],
)
def test_numbers_of_numpy_are_checked_as_others(options: Options, message: str) -> None:
    assert str(_error(options)).startswith(message)


def test_infinity_fits_where_a_field_says_so() -> None:
    check_record(Options(nodata=float("-inf"), shift=float("inf")))
    assert read_record(Options, {"nodata": float("inf")}).nodata == float("inf")


def test_what_is_no_table_at_all_is_refused() -> None:
    with pytest.raises(RecordError, match=r"^it is \[\]; expected a table$"):
        read_record(Variant, [])


def test_numbers_stay_as_written_unless_floats_are_asked_for() -> None:
    table = {"scale": 2, "range": [1, 2.5]}
    assert (
        json.dumps(asdict(read_record(Band, table)))
        == '{"index": 1, "scale": 2, "range": [1, 2.5]}'
    )
    as_floats = read_record(Band, table, as_floats=True)
    assert json.dumps(asdict(as_floats)) == '{"index": 1, "scale": 2.0, "range": [1.0, 2.5]}'


def test_a_record_made_in_python_is_checked_alike() -> None:
    record = read_record(Variant, GOOD)
    check_record(record)
    for name, value in (("seed", -1), ("seed", 1.5), ("size", "huge"), ("keep", None)):
        changed = replace(record, **{name: value})
        with pytest.raises(RecordError, match=f"^{name} is "):
            check_record(changed)
        assert refusal(**{name: value}) == str(_error(changed))


def _error(record: Any) -> RecordError:
    with pytest.raises(RecordError) as caught:
        check_record(record)
    return caught.value


def test_a_mistake_in_a_record_of_a_record_has_the_outer_path() -> None:
    with pytest.raises(RecordError, match=r"^inner\[1\]: low is above high$"):
        read_record(Spans, {"inner": [{}, {"low": 2}]})


def test_the_library_is_imported_only_when_a_table_is_read() -> None:
    script = "import sys, salibi_data.catalog.variants; print('cattrs' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
