"""Options of commands that are made from the fields of dataclasses."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass, fields
from math import inf, isnan, nan
from pathlib import Path
from typing import Annotated, Any

import pytest
from typer.testing import CliRunner

from salibi_cli import common
from salibi_cli.options import Fields, arguments_of, bounds, help_of, num_bytes, with_options
from salibi_data.builds.options import BuildOptions
from salibi_data.derived.options import SelectionOptions
from salibi_data.plans.options import PlanOptions, Scope
from salibi_data.store.errors import UsageError
from salibi_data.store.validation import given_options, option
from salibi_model.embeddings.options import EmbedOptions
from salibi_model.training.config import TrainingConfig, options_with
from tests.support.paths import ROOT


@dataclass(frozen=True, kw_only=True)
class Example:
    edge_px: int = option(16, minimum=2, maximum=64, help="Edge.")
    names: tuple[str, ...] = option((), absent="all", help="Names: a,b")
    shares: tuple[float, ...] = option((0.25, 1.0), help="Shares.")
    fast: bool = option(True, help="Fast or not.")
    extra: bool = option(False, help="More.")
    relative: bool = option(True, flag="--absolute/--relative", negated=True, help="Targets.")
    box: tuple[float, float, float, float] | None = option(
        None, flag="--bbox", metavar="W,S,E,N", help="Area."
    )
    budget: int | None = option(None, unit="bytes", help="Most bytes.")
    inner: int = option(1, command=False, help="Of a file.")


@dataclass(frozen=True, kw_only=True)
class Other:
    edge_px: int = option(16, help="Edge.")


def run(command: Any, *arguments: str) -> Any:
    app = common.app(help="Examples.")
    app.command()(command)
    return CliRunner().invoke(app, arguments, catch_exceptions=False)


def read(*arguments: str) -> Example:
    seen: list[Example] = []

    @with_options
    def command(*, options: Example, other: int = 3) -> None:
        assert other == 3
        seen.append(options)

    assert run(command, *arguments).exit_code == 0
    return seen[0]


def given(*arguments: str) -> dict[str, Any]:
    seen: list[dict[str, Any]] = []

    @with_options
    def command(*, changes: Annotated[dict[str, Any], Fields(kind=Example)]) -> None:
        seen.append(changes)

    assert run(command, *arguments).exit_code == 0
    return seen[0]


def test_without_options_the_defaults_of_the_fields_hold() -> None:
    assert read() == Example()
    assert given() == {}


@pytest.mark.parametrize(
    ("arguments", "values"),
    [
        (["--edge-px", "8"], {"edge_px": 8}),
        (["--names", "a, b"], {"names": ("a", "b")}),
        (["--shares", "0.5,1"], {"shares": (0.5, 1.0)}),
        (["--no-fast"], {"fast": False}),
        (["--extra"], {"extra": True}),
        (["--absolute"], {"relative": False}),
        (["--relative"], {"relative": True}),
        (["--bbox", "-1,2,3,4"], {"box": (-1.0, 2.0, 3.0, 4.0)}),
        (["--budget", "1.5MB"], {"budget": 1_500_000}),
    ],
)
def test_an_option_sets_its_field(arguments: list[str], values: dict[str, Any]) -> None:
    assert read(*arguments) == Example(**values)
    assert given(*arguments) == values


@pytest.mark.parametrize(
    "arguments", [["--edge-px", "1"], ["--edge-px", "x"], ["--inner", "2"], ["--shares", "a"]]
)
def test_values_out_of_range_and_unknown_options_are_refused(arguments: list[str]) -> None:
    @with_options
    def command(*, options: Example) -> None:
        raise AssertionError(options)

    assert run(command, *arguments).exit_code == 2


def test_help_has_the_default_once() -> None:
    @with_options
    def whole(*, options: Example) -> None:
        """Example."""

    @with_options
    def layered(*, changes: Annotated[dict[str, Any], Fields(kind=Example)]) -> None:
        """Example."""

    for command in (whole, layered):
        output = " ".join(run(command, "--help").output.replace("│", " ").split())
        for text in ("[default: 16]", "[default: all]", "[default: 0.25,1]", "W,S,E,N"):
            assert output.count(text) == 1, text
    assert help_of(Example, "names") == "Names: a,b  [default: all]"


def test_options_of_two_dataclasses_with_one_name_are_one() -> None:
    seen: list[int] = []

    @with_options
    def command(
        *,
        first: Annotated[Example, Fields(only=("edge_px",))],
        second: Annotated[Any, Fields(kind=Other)],
    ) -> None:
        seen.extend((first.edge_px, second["edge_px"]))

    assert run(command, "--edge-px", "4").exit_code == 0
    assert seen == [4, 4]


@pytest.mark.parametrize("text", ["1,2,3", "a,b,c,d", ""])
def test_a_box_is_four_numbers(text: str) -> None:
    with pytest.raises(UsageError, match="four numbers in degrees"):
        bounds(text)


def test_sizes_have_decimal_prefixes() -> None:
    sizes = [num_bytes("--max-bytes", text) for text in ("7", "2kB", "500GB", "1.5 T")]
    assert sizes == [7, 2_000, 500 * 10**9, 1_500 * 10**9]
    with pytest.raises(UsageError, match="--max-bytes '5 apples' is not a size"):
        num_bytes("--max-bytes", "5 apples")


@pytest.mark.parametrize("kind", [TrainingConfig, PlanOptions, BuildOptions, EmbedOptions])
def test_every_option_has_help_and_the_default_fits(kind: Any) -> None:
    assert all(each.metadata["help"].strip() for each in fields(kind))
    kind()


def test_limits_of_a_plan_are_told_from_how_it_is_made() -> None:
    assert not BuildOptions(workers=3, catalog="sample", max_bytes=5).is_narrowed
    assert BuildOptions(allow_grd=True).is_narrowed
    assert PlanOptions(limit=3).scope_arguments() == {**vars(Scope()), "limit": 3}
    with pytest.raises(UsageError, match="limit is 0; expected a whole number of 1 or more"):
        Scope(limit=0)


def test_infinity_and_nan_are_values_of_some_options() -> None:
    """No time limit, any shift that was measured, and NaN for what was not observed."""
    assert BuildOptions(block_deadline_s=inf).block_deadline_s == inf
    assert SelectionOptions(max_shift_m=inf).max_shift_m == inf
    assert isnan(EmbedOptions(nodata=nan).nodata or 0.0)
    for kind, name in (
        (BuildOptions, "block_deadline_s"),
        (SelectionOptions, "max_shift_m"),
        (EmbedOptions, "offset"),
    ):
        with pytest.raises(UsageError, match=f"{name} is nan; expected a finite number"):
            kind(**{name: nan})


def test_options_that_change_no_result_may_change_on_resume() -> None:
    """Earlier versions have the same list: the weights depend on all other options."""
    assert set(options_with(resume=True)) == {
        *("steps", "epochs", "checkpoint_every", "keep_checkpoints", "stores", "attention"),
        *("compile", "accumulate", "workers", "validate_every", "validation_samples", "trackers"),
        *("probe", "probe_every", "probe_gsd_m", "stop_on_collapse"),
    }


def test_the_page_lists_the_options_as_they_are() -> None:
    path = Path(ROOT) / "docs" / "examples" / "options_page.py"
    spec = importlib.util.spec_from_file_location("options_page", path)
    assert spec is not None
    assert spec.loader is not None
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    text = page.PAGE.read_text(encoding="utf-8")
    assert "| `--batch-size` |" in text
    assert page.with_table(text) == text, "run python docs/examples/options_page.py"


@dataclass(frozen=True, kw_only=True)
class Applied:
    depth: int = option(3, help="Depth.", applies_to="trees")
    width: int = option(3, help="Width.")


def test_a_default_that_is_given_counts_as_given() -> None:
    """Of options that are for some inputs alone; the values are those of the fields."""
    seen: list[Applied] = []

    @with_options
    def command(*, options: Applied) -> None:
        seen.append(options)

    assert run(command, "--depth", "3", "--width", "3").exit_code == 0
    assert run(command, "--width", "4").exit_code == 0
    assert [given_options(each) for each in seen] == [{"depth": 3}, {"width": 4}]
    assert [arguments_of(each) for each in seen] == [{"depth": 3, "width": w} for w in (3, 4)]
