"""The figure of reach: written as asked, labelled in metres, and true to what was measured."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import typer
from matplotlib.axes import Axes
from PIL import Image
from typer.testing import CliRunner

from salibi_cli import common
from salibi_cli.figures.attention import (
    DPI,
    FORMATS,
    WIDTH_IN,
    attention_figure,
    check_figure_path,
    save_attention_figure,
)
from salibi_cli.figures.token_diagram import COARSE, FINE, distances, draw_equal_distances
from salibi_cli.model import attention
from salibi_data.inspection.panels import FigureError
from salibi_model.evals.attention_distance import attention_distance
from salibi_model.nn.alibi import scale_alibi_bias
from tests.support.model.nano import nano_model

PATCH_M = 16 * 3.7


@pytest.fixture(scope="module")
def report(small_store):
    return attention_distance(nano_model().eval(), small_store, num_samples=1)


def panels(figure):
    """The figure's axes from the top, without colour bars and the legend's."""
    all_axes = [axes for part in figure.subfigs for axes in every_axes(part)]
    return [axes for axes in all_axes if axes.get_label() != "<colorbar>" and axes.axison]


def every_axes(part):
    own = [axes for axes in part.axes if isinstance(axes, Axes)]
    return own or [axes for inner in part.subfigs for axes in every_axes(inner)]


def titled(figure, words):
    (panel,) = [axes for axes in panels(figure) if words in axes.get_title()]
    return panel


def test_it_is_written_at_its_size(report, tmp_path):
    path = tmp_path / "figures/attention.png"
    save_attention_figure(report, path, name="nano")
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        width, height = picture.size
        pixels = np.asarray(picture.convert("L"))
    assert width == WIDTH_IN * DPI
    assert width < height < 2 * width
    for part in np.array_split(pixels, 3):
        assert (part < 100).mean() > 0.005


@pytest.fixture
def coarse(monkeypatch):
    """Fewer pixels, where nobody counts them."""
    monkeypatch.setattr("salibi_cli.figures.attention.DPI", 30)


@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".jpg"])
def test_other_formats_are_written(report, tmp_path, suffix, coarse):
    save_attention_figure(report, tmp_path / f"figure{suffix}")
    start = (tmp_path / f"figure{suffix}").read_bytes()[:400]
    assert {".svg": b"<svg", ".pdf": b"%PDF", ".jpg": b"\xff\xd8\xff"}[suffix] in start
    assert suffix in FORMATS


def test_axes_are_in_metres(report):
    for panel in panels(attention_figure(report)):
        assert "(m)" in panel.get_xlabel() or not panel.get_subplotspec().is_last_row()
        first = panel.get_subplotspec().is_first_col()
        assert not first or "(m)" in panel.get_ylabel() or "logit" in panel.get_ylabel()


def test_the_drawn_bias_is_the_models(report):
    """Lines and maps, against the bias of two patches computed from their places."""
    figure = attention_figure(report)
    curves = titled(figure, "One line per head")
    same, cross = report.cases[3:]
    for line, slope in zip(curves.get_lines(), same.slopes, strict=False):
        x, y = line.get_xdata(), line.get_ydata()
        assert y[-1] == pytest.approx(-slope * x[-1] / PATCH_M)
    maps = [
        panel for panel in panels(figure) if panel.get_images() and panel not in panels(figure)[:3]
    ]
    maps = [panel for panel in maps if panel.get_images()[0].get_array().shape[0] >= 16]
    assert len(maps) == 2 * 4
    for case, row in ((same, maps[:4]), (cross, maps[4:])):
        middle = 5 * 16 + 5
        bias = scale_alibi_bias(case.queries.centres[None], case.keys.centres[None], 4)[0]
        for head, panel in enumerate(row):
            image = panel.get_images()[0]
            assert image.get_array().shape == case.keys.grid
            assert np.allclose(image.get_array().ravel(), bias[head, middle])
            assert image.get_extent() == pytest.approx((0, 16 * PATCH_M, 16 * PATCH_M, 0))
            # The circle has the bias -1, and is centred on the query's patch.
            circle = panel.patches[1]
            assert circle.radius == pytest.approx(PATCH_M / case.slopes[head])
            assert circle.center == pytest.approx((5.5 * PATCH_M, 5.5 * PATCH_M))


def test_every_head_and_block_is_a_point(report):
    figure = attention_figure(report)
    for case in report.cases:
        axes = titled(figure, f"{case.queries.modality} > {case.keys.modality}\n{case.kind}")
        points = [line for line in axes.get_lines() if line.get_linestyle() == "None"]
        assert len(points) == len(case.mean_distance_m)
        for line, measured in zip(points, case.mean_distance_m, strict=True):
            assert tuple(line.get_xdata()) == case.reach_m
            assert tuple(line.get_ydata()) == measured
        low, high = axes.get_ylim()
        assert low <= min(map(min, case.mean_distance_m))
        assert high > max(map(max, case.mean_distance_m))
        across = (case.queries.modality, case.keys.modality) == ("sar", "hires_4x")
        assert ("cross-GSD" in axes.get_title()) == across


@pytest.mark.parametrize(
    "choices",
    [
        {"names": ["sar", "lores"]},
        {"names": ["sar", "lores", "hires", "hires_4x"]},
        {"objectives": ("contrastive",)},
        {"gsd_scaling": False},
    ],
    ids=["croma", "four", "no-joint", "no-gsd"],
)
def test_other_models_are_drawn(small_store, choices):
    model = nano_model(**choices).eval()
    report = attention_distance(model, small_store, num_samples=1)
    figure = attention_figure(report)
    figure.draw_without_rendering()
    assert len([panel for panel in panels(figure) if "attention" in panel.get_title()]) == len(
        report.cases
    )
    curves = titled(figure, "One line per head")
    assert ("at one resolution" in curves.get_title()) == ("gsd_scaling" in choices)


def test_the_slides_distances():
    """Low-res patch 0 is as far from hi-res 0, 1, 8 and 9, and nearer to them than to others."""
    fine = distances(FINE)
    covered = [0, 1, 8, 9]
    assert fine[covered] == pytest.approx([math.hypot(0.25, 0.25)] * 4)
    assert np.delete(fine, covered).min() > 0.7
    coarse = distances(COARSE)
    assert coarse[[0, 1, 4, 5, 15]] == pytest.approx([0, 1, 1, math.sqrt(2), 3 * math.sqrt(2)])


def test_equal_distances_are_written_at_the_arrows():
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    draw_equal_distances(axes, patch_m=40.0)
    labels = [text.get_text() for text in axes.texts]
    assert labels.count("14.1 m") == 4
    assert {"0", "1", "8", "9"} <= set(labels)


@pytest.mark.parametrize("name", ["figure.xyz", "figure", "", "figure.mp4"])
def test_what_names_no_picture_is_refused(tmp_path, name):
    with pytest.raises(FigureError, match=r"names no picture; give a file such as attention\.png"):
        check_figure_path(tmp_path / name)


@pytest.fixture
def command(monkeypatch, report, coarse):
    """The command, measuring replaced by what was measured already; and how often it was."""
    calls = []

    def measured(*arguments, **options):
        calls.append((arguments, options))
        return report

    monkeypatch.setattr("salibi_model.evals.attention_distance.attention_distance", measured)
    application = common.app(help="x")
    application.command("attention")(attention.attention_figure)
    application.callback()(lambda: None)
    assert isinstance(application, typer.Typer)
    return application, calls


def test_the_command_draws_and_says_where(command, tmp_path):
    application, calls = command
    out = tmp_path / "a.png"
    result = CliRunner().invoke(application, ["attention", "run", "s.zarr", "-o", str(out)])
    assert result.exit_code == 0
    assert result.output == f"wrote {out}\n"
    assert out.is_file()
    assert (calls[0][1]["num_samples"], calls[0][1]["split"]) == (4, "validation")


def test_the_command_prints_json_alone(command, tmp_path, report):
    application, _ = command
    arguments = ["attention", "run", "s.zarr", "-o", str(tmp_path / "a.png"), "--json"]
    result = CliRunner().invoke(application, arguments)
    assert json.loads(result.stdout) == json.loads(json.dumps(report.to_dict()))
    assert (tmp_path / "a.png").is_file()


def test_a_wrong_path_is_one_line_before_the_work(command, monkeypatch, capsys, tmp_path):
    application, calls = command
    arguments = ["salibi-model", "attention", "run", "s.zarr", "-o", str(tmp_path / "a.xyz")]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit) as stopped:
        common.run(application)
    message = capsys.readouterr().err
    assert (stopped.value.code, message.count("\n"), calls) == (2, 1, [])
    assert "names no picture" in message
