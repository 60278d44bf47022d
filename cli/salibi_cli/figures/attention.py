"""The figure of `salibi-model attention`: tokens, bias and measured attention over the ground."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from salibi_cli.figures.token_diagram import COARSE, FINE, INK, draw_equal_distances, draw_tokens
from salibi_data.inspection.panels import FigureError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    from salibi_model.evals.attention_distance import AttentionCase, AttentionReport

DPI: Final = 110
WIDTH_IN: Final = 15.0
FORMATS: Final = (".png", ".svg", ".pdf", ".jpg", ".jpeg", ".tif", ".tiff", ".webp")
LOWEST_BIAS: Final = -8.0
"""Lower end of the bias scales: a weight 3000 times smaller."""
NUM_MAPS: Final = 4
"""Heads whose bias is drawn as maps, the steepest and the flattest among them."""
_TOKENS_IN, _BIAS_IN, _MEASURED_IN = 5.0, 5.7, 3.9
"""Heights of the parts in inches; the last one per row of panels."""
_HEADING_IN: Final = 0.75
_MARKERS: Final = "osD^vP*X"


def check_figure_path(path: str | Path) -> None:
    """Check, before the work starts, that the figure can be written to ``path``.

    Raises:
        FigureError: it is a folder, or its suffix names no format that can be drawn.
    """
    path = Path(path)
    if path.is_dir() or path.suffix.lower() not in FORMATS:
        raise FigureError(
            f"{path} names no picture; give a file such as attention.png, .svg or .pdf."
        )


def save_attention_figure(report: AttentionReport, path: str | Path, *, name: str = "") -> None:
    """Draw ``report`` and write it to ``path``, in the format of its suffix.

    Args:
        report: from :func:`salibi_model.evals.attention_distance.attention_distance`.
        path: the file to write; its folder is made.
        name: of the model, for the heading.

    Raises:
        FigureError: ``path`` names no picture.
    """
    check_figure_path(path)
    figure = attention_figure(report, name=name)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)


def attention_figure(report: AttentionReport, *, name: str = "") -> Figure:
    """Draw tokens on the ground, bias over distance, and measured attention, from the top."""
    from matplotlib.figure import Figure

    num_rows = len({case.kind for case in report.cases})
    heights = [_TOKENS_IN, _BIAS_IN, _HEADING_IN + _MEASURED_IN * num_rows]
    figure = Figure(figsize=(WIDTH_IN, sum(heights)), dpi=DPI, layout="constrained")
    parts: Any = figure.subfigures(3, 1, height_ratios=heights)
    _heading(
        parts[0],
        heights[0],
        "Tokens on the ground",
        "Patches, numbered row by row and shaded by their distance from low-res patch 0. In "
        "Scale-ALiBi, equal metres give an equal bias, whatever the resolution.",
    )
    _draw_tokens(parts[0], report.patch_m)
    _heading(
        parts[1],
        heights[1],
        "Bias over ground metres",
        "What is added to the logit of a query and a key, -m(h) x distance: each unit divides "
        "the weight by e. Dashed: -1.",
    )
    _draw_bias(parts[1], report)
    count = len(report.samples)
    _heading(
        parts[2],
        heights[2],
        f"Measured attention{f' of {name}' if name else ''}",
        "Mean distance between a query and what it attends to: a point per head and block, "
        f"{count} {report.split} sample{'s' * (count != 1)}, nothing masked. Above the line, "
        "contents draw a head farther than its bias.",
    )
    _draw_measured(parts[2], report)
    return figure


def _heading(figure: SubFigure, height_in: float, title: str, explanation: str) -> None:
    # The second, empty line keeps the place of the explanation, which is set smaller.
    figure.suptitle(f"{title}\n", x=0.012, ha="left", fontsize=15, fontweight="bold")
    y = 1 - 0.36 / height_in
    figure.text(0.012, y, explanation, ha="left", va="top", fontsize=10.5, color=INK)


def _draw_tokens(figure: SubFigure, patch_m: float) -> None:
    left, middle, right = figure.subplots(1, 3)
    draw_tokens(left, COARSE, patch_m=patch_m, title=f"Low res: {COARSE} x {COARSE} patches")
    shades = draw_tokens(
        middle, FINE, patch_m=patch_m, title=f"High res, same ground: {FINE} x {FINE} patches"
    )
    bar = figure.colorbar(shades, ax=[left, middle], shrink=0.85, pad=0.02)
    bar.set_label("distance from low-res patch 0 (m)")
    draw_equal_distances(right, patch_m=patch_m)


def _draw_bias(figure: SubFigure, report: AttentionReport) -> None:
    same, cross = _bias_examples(report)
    heads = _shown_heads(len(same.slopes))
    cases = [same] if cross is None else [same, cross]
    curves, maps = _side_by_side(figure)
    _draw_curves(curves.subplots(), report, cases, heads)
    axes = maps.subplots(len(cases), len(heads), sharex=True, sharey=True, squeeze=False)
    image: Any = None
    for row, case in zip(axes, cases, strict=True):
        for panel, head in zip(row, heads, strict=True):
            image = _draw_map(panel, case, head, report.patch_m)
        row[0].set_ylabel(f"{_gsds(case)}: {_direction(case)}\nsouth (m)")
    for panel, head in zip(axes[0], heads, strict=True):
        panel.set_title(f"head {head + 1}, m = {same.slopes[head]:.3g}", fontsize=10.5)
    for panel in axes[-1]:
        panel.set_xlabel("east (m)")
    bar = maps.colorbar(image, ax=axes, extend="min", shrink=0.85, pad=0.02)
    bar.set_label("bias to the outlined query patch")


def _draw_curves(
    axes: Axes, report: AttentionReport, cases: Sequence[AttentionCase], heads: Sequence[int]
) -> None:
    """Draw bias against distance, and the distances that occur in each case."""
    same = cases[0]
    edge_m = same.keys.grid[1] * same.keys.gsd_ratio * report.patch_m
    colours = _colours("viridis", len(same.slopes))
    for head, reach_m in enumerate(same.reach_m):
        chosen = head in heads
        axes.plot(
            [0, edge_m],
            [0, -edge_m / reach_m],
            color=colours[head],
            lw=2.6 if chosen else 1.0,
            label=f"head {head + 1}: -1 at {_metres(reach_m)}" if chosen else None,
        )
    axes.axhline(-1, color=INK, lw=1.0, ls="--")
    # Where GSDs are ignored, the bias across them does not follow from the distance.
    on_line = [case for case in cases if _follows_distance(case)]
    for number, case in enumerate(on_line):
        distances_m = _distances(case) * report.patch_m
        axes.vlines(distances_m, 0.35 + number, 0.65 + number, color=INK, lw=0.7)
        words = f"distances that occur, {_gsds(case)}: {_direction(case)}"
        axes.text(edge_m * 0.01, 0.72 + number, words, fontsize=8.5, va="bottom")
    axes.set_xlim(0, edge_m)
    axes.set_ylim(LOWEST_BIAS, 0.4 + len(on_line))
    axes.set_yticks(np.arange(LOWEST_BIAS, 1))
    axes.set_xlabel("distance between query and key on the ground (m)")
    axes.set_ylabel("bias (added to the logit)")
    axes.legend(loc="lower left", fontsize=9, framealpha=0.95)
    resolutions = "for all resolutions" if len(on_line) == len(cases) else "at one resolution"
    axes.set_title(f"One line per head, {resolutions}", fontsize=11)


def _draw_map(axes: Axes, case: AttentionCase, head: int, patch_m: float) -> Any:
    """Draw the bias of one query patch to all keys, on the ground, and where it is -1."""
    from matplotlib.patches import Circle, Rectangle

    row, column = (size // 3 for size in case.queries.grid)
    bias = case.bias[head, row * case.queries.grid[1] + column].numpy()
    edge_m = case.queries.gsd_ratio * patch_m
    height, width = (size * case.keys.gsd_ratio * patch_m for size in case.keys.grid)
    image = axes.imshow(
        bias.reshape(case.keys.grid),
        extent=(0, width, height, 0),
        cmap="viridis",
        vmin=LOWEST_BIAS,
        vmax=0,
        interpolation="nearest",
    )
    x, y = column * edge_m, row * edge_m
    axes.add_patch(Rectangle((x, y), edge_m, edge_m, fill=False, ec="#D55E00", lw=1.8))
    if _follows_distance(case):
        centre = (x + edge_m / 2, y + edge_m / 2)
        axes.add_patch(Circle(centre, case.reach_m[head], fill=False, ec=INK, lw=1.1, ls="--"))
    return image


def _draw_measured(figure: SubFigure, report: AttentionReport) -> None:
    """Draw a panel per case: a row of self attention, one of cross attention, and the legend."""
    rows = [[case for case in report.cases if case.kind == kind] for kind in ("self", "cross")]
    rows = [row for row in rows if row]
    # Cross attention has a case less than there are modalities, so that one panel is free.
    columns = max(len(rows[0]), len(rows[-1]) + 1)
    grid = figure.subplots(len(rows), columns, sharex=True, sharey=True, squeeze=False)
    colours = _colours("cividis", max(len(case.mean_distance_m) for case in report.cases))
    farthest = max(max(map(max, case.mean_distance_m)) for case in report.cases)
    grid[0, 0].set_ylim(0, 1.08 * max(farthest, *(case.uniform_m for case in report.cases)))
    grid[0, 0].set_xscale("log")
    for axes_row, row in zip(grid, rows, strict=True):
        for axes, case in zip(axes_row, row, strict=False):
            _draw_case(axes, case, colours)
        for axes in axes_row[len(row) :]:
            axes.set_axis_off()
        axes_row[0].set_ylabel("measured mean distance (m)")
    grid[-1, -1].legend(
        handles=_legend_handles(colours), loc="center", ncols=1 + len(colours) // 7, fontsize=10.5
    )


def _draw_case(axes: Axes, case: AttentionCase, colours: Sequence[Any]) -> None:
    from matplotlib.ticker import FuncFormatter, NullFormatter

    order = np.argsort(case.reach_m)
    axes.plot(np.array(case.reach_m)[order], np.array(case.bias_only_m)[order], color=INK, lw=1.4)
    axes.axhline(case.uniform_m, color=INK, lw=1.2, ls="--")
    for block, measured in enumerate(case.mean_distance_m):
        axes.plot(case.reach_m, measured, **_point(block, colours))
    axes.grid(color="#dddddd", lw=0.6)
    axes.set_axisbelow(True)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelbottom=True, labelleft=True)
    axes.set_xlabel("reach by slope: bias -1 at this distance (m)")
    axes.set_title(f"{_direction(case)}\n{case.kind} attention, {_gsds(case)}", fontsize=11)


def _legend_handles(colours: Sequence[Any]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=INK, lw=1.4, label="bias alone (contents equal)"),
        Line2D([], [], color=INK, lw=1.2, ls="--", label="all keys alike"),
        *(
            Line2D([], [], label=f"block {block + 1}", **_point(block, colours))
            for block in range(len(colours))
        ),
    ]


def _point(block: int, colours: Sequence[Any]) -> dict[str, Any]:
    """Plot style of a block's points; blocks differ in colour and shape."""
    marker = _MARKERS[block % len(_MARKERS)]
    return {
        "ls": "none",
        "marker": marker,
        "color": colours[block],
        "mec": "white",
        "mew": 0.6,
        "ms": 10 if marker == "*" else 7.5,
    }


def _side_by_side(figure: SubFigure) -> tuple[SubFigure, SubFigure]:
    parts: Any = figure.subfigures(1, 2, width_ratios=[1, 2])
    return parts[0], parts[1]


def _bias_examples(report: AttentionReport) -> tuple[AttentionCase, AttentionCase | None]:
    """Give a case of one GSD, and one across GSDs where the model has one."""
    cross = [case for case in report.cases if case.kind == "cross"]
    same = next((case for case in cross if case.same_gsd), report.cases[0])
    return same, next((case for case in cross if not case.same_gsd), None)


def _follows_distance(case: AttentionCase) -> bool:
    """Whether each distance on the ground has one bias: false across GSDs that are ignored."""
    return case.same_gsd or case.keys.bias_ratio == case.keys.gsd_ratio


def _shown_heads(num_heads: int) -> list[int]:
    """Choose heads to draw, more of the steep ones: flat ones differ little within an image."""
    chosen = np.geomspace(1, num_heads, min(NUM_MAPS, num_heads)).round().astype(int)
    return sorted({int(head) - 1 for head in chosen})


def _distances(case: AttentionCase) -> Any:
    """Distances (base-zoom patches) that occur between a corner's query and the keys."""
    first = case.queries.centres[0].numpy()
    return np.unique(np.hypot(*(case.keys.centres.numpy() - first).T).round(4))


def _direction(case: AttentionCase) -> str:
    return f"{case.queries.modality} > {case.keys.modality}"


def _gsds(case: AttentionCase) -> str:
    return "same GSD" if case.same_gsd else "cross-GSD"


def _metres(value: float) -> str:
    return f"{value / 1000:.1f} km" if value >= 10_000 else f"{value:,.0f} m"  # noqa: PLR2004


def _colours(name: str, count: int) -> list[Any]:
    """Give ``count`` colours from dark to light, without the lightest ones."""
    from matplotlib import colormaps

    # Beyond 0.88 the colours are hard to see on white.
    return [colormaps[name](share) for share in np.linspace(0.0, 0.88, count)]
