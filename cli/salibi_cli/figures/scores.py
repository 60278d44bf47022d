"""The figure of results: scores with their intervals, over models or over ground metres."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from salibi_cli.figures.attention import check_figure_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from salibi_model.evals.metrics import Score

DPI: Final = 110
COLUMNS: Final = 2
PANEL_WIDTH_IN: Final = 7.5
_ROW_IN: Final = 0.34
_LEGEND_LINE_IN: Final = 0.22
_LEAST_IN: Final = 2.6
_BY_SIZE: Final = {"scale", "image_px", "gsd"}
"""Settings left out of labels: they follow from the ground sample distance or the model."""
_MARKERS: Final = "osD^vP*X"
_OFFSET: Final = 0.012
"""Horizontal offset between the intervals of one GSD, as a share of it."""


def save_score_figure(scores: Sequence[Score], path: str | Path) -> None:
    """Draw ``scores`` and write them to ``path``, in the format of its suffix.

    Raises:
        FigureError: ``path`` names no picture.
    """
    check_figure_path(path)
    figure = score_figure(scores)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)


def score_figure(scores: Sequence[Score]) -> Figure:
    """Draw a panel per data set, metric and method.

    Where a model has scores at several ground sample distances, they are drawn over these;
    otherwise models stand below each other. Whiskers are the 95 % intervals.
    """
    from matplotlib.figure import Figure

    ordered = sorted(scores, key=_panel)
    panels = [(panel, _labelled(list(rows))) for panel, rows in groupby(ordered, key=_panel)]
    columns = min(COLUMNS, len(panels))
    lines = [panels[first : first + columns] for first in range(0, len(panels), columns)]
    heights = [max(_height_in(rows) for _, rows in line) for line in lines]
    figure = Figure(figsize=(PANEL_WIDTH_IN * columns, sum(heights)), dpi=DPI, layout="constrained")
    grid = figure.subplots(
        len(lines), columns, squeeze=False, gridspec_kw={"height_ratios": heights}
    )
    for axes_row, line in zip(grid, lines, strict=True):
        for axes, (panel, rows) in zip(axes_row, line, strict=False):
            _draw(axes, panel, rows)
        for axes in axes_row[len(line) :]:
            axes.set_axis_off()
    return figure


def _draw(axes: Axes, panel: tuple[str, ...], rows: Mapping[str, Sequence[Score]]) -> None:
    dataset, metric, method = panel
    axes.set_title(f"{dataset}: {method}", fontsize=12)
    axes.grid(color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    if _over_gsd(rows):
        _draw_curves(axes, rows)
        axes.set_ylabel(f"{metric} (%)")
    else:
        _draw_list(axes, rows)
        axes.set_xlabel(f"{metric} (%), bootstrap 95 % interval")


def _draw_curves(axes: Axes, rows: Mapping[str, Sequence[Score]]) -> None:
    """Draw a curve per model and encoder over metres per pixel."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    for number, (label, points) in enumerate(rows.items()):
        aside = 1 + _OFFSET * (number - (len(rows) - 1) / 2)
        axes.errorbar(
            [row.gsd_m * aside for row in points],
            [100 * row.value for row in points],
            yerr=_whiskers(points),
            marker=_MARKERS[number % len(_MARKERS)],
            capsize=3,
            lw=1.4,
            label=label,
        )
    axes.set_xscale("log")
    axes.set_xticks(sorted({row.gsd_m for points in rows.values() for row in points}))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda metres, _: f"{metres:.3g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("metres per pixel as shown")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=2, fontsize=9)


def _draw_list(axes: Axes, rows: Mapping[str, Sequence[Score]]) -> None:
    """Draw a line per row, the best at the top."""
    each = [(label, row) for label, points in rows.items() for row in points]
    each.sort(key=lambda labelled: labelled[1].value)
    ordered = [row for _, row in each]
    places = range(len(ordered))
    axes.errorbar(
        [100 * row.value for row in ordered],
        places,
        xerr=_whiskers(ordered),
        fmt="o",
        capsize=3,
        color="#0072B2",
    )
    axes.set_yticks(places, [label for label, _ in each], fontsize=9)
    axes.set_ylim(-0.6, len(ordered) - 0.4)


def _whiskers(rows: Sequence[Score]) -> Any:
    # An interval of few samples can lie wholly beside the value.
    below = [max(0.0, 100 * (row.value - row.low)) for row in rows]
    above = [max(0.0, 100 * (row.high - row.value)) for row in rows]
    return [below, above]


def _over_gsd(rows: Mapping[str, Sequence[Score]]) -> bool:
    """Whether a model was measured at several ground sample distances."""
    return any(len({row.gsd_m for row in points}) > 1 for points in rows.values())


def _height_in(rows: Mapping[str, Sequence[Score]]) -> float:
    if _over_gsd(rows):
        return 1.6 * _LEAST_IN + _LEGEND_LINE_IN * (len(rows) + 1) // 2
    return max(_LEAST_IN, 1.2 + _ROW_IN * sum(map(len, rows.values())))


def _panel(row: Score) -> tuple[str, str, str]:
    return row.dataset, row.metric, row.method


def _labelled(rows: Sequence[Score]) -> dict[str, list[Score]]:
    """A panel's rows by label, in order of ground distance; labels name the settings that differ."""
    settings = {name for row in rows for name in row.settings} - _BY_SIZE
    differing = [
        name
        for name in sorted(settings)
        if len({str(row.settings[name]) for row in rows if name in row.settings}) > 1
    ]
    scores_by_label: dict[str, list[Score]] = {}
    for row in sorted(rows, key=lambda row: (row.model, row.encoder, row.gsd_m)):
        differences = [f"{name} {row.settings[name]}" for name in differing if name in row.settings]
        scores_by_label.setdefault(
            ", ".join([f"{row.model} ({row.encoder})", *differences]), []
        ).append(row)
    return scores_by_label
