"""Makes the dataset card: the README.md of a published dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from salibi_data.releases.facts import ReleaseFacts

_READING = """\
```python
from salibi_model import SampleStore

store = SampleStore("ADDRESS")  # of this dataset: the folder or bucket that holds latest.json
store[0]["{first}"]  # (bands, rows, columns) uint8
```

`salibi-data pull ADDRESS data/{dataset}.zarr` fetches it, checked file by file. Without our software:
`store.zarr` is a Zarr v3 group, and `store.zarr/samples.parquet` a GeoParquet file with a row per
sample."""


def dataset_card(facts: ReleaseFacts, *, figure: str) -> str:
    """Make the card in Markdown."""
    first = next(iter(facts.attributes.modalities))
    sections = [
        f"# {facts.release.dataset}\n\n{facts.summary}",
        f"![Samples, all modalities side by side]({figure})" if facts.has_figure else "",
        _table(("", ""), _figures(facts)),
        "## Reading it\n\n" + _READING.format(first=first, dataset=facts.release.dataset),
        "## Splits\n\n" + _table(("split", "samples"), list(facts.info["splits"].items())),
        "## Modalities\n\n" + _modalities(facts),
        "## Statistics\n\nOf the valid stored values (1..255) of the training split, per band.\n\n"
        + _statistics(facts),
        "## Sources, licences, attribution\n\n" + _sources(facts),
        "## Quality\n\nA quarter, half and three quarters of the samples lie below.\n\n"
        + _table(("measure", "25 %", "50 %", "75 %"), _quality(facts)),
        "## Known issues\n\n" + "\n".join(f"- {issue}" for issue in _issues(facts)),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _figures(facts: ReleaseFacts) -> list[tuple[str, str]]:
    west, south, east, north = facts.bounds_lonlat
    low, high = facts.info["gsd_m"]
    return [
        ("samples", f"{facts.release.samples:,}"),
        ("bytes", f"{facts.release.num_bytes:,}"),
        ("west, south, east, north", f"{west}, {south}, {east}, {north}"),
        ("days", " to ".join(facts.dates) if facts.dates else "not known"),
        ("metres per base pixel", f"{low:.3f} to {high:.3f}"),
        ("catalog", facts.attributes.catalog),
        ("variant", facts.attributes.variant),
        ("made with", f"salibi {facts.attributes.software_version}"),
        ("SHA-256 of manifest.json", f"`{facts.release.manifest_sha256}`"),
    ]


def _modalities(facts: ReleaseFacts) -> str:
    rows = [
        (f"`{name}`", m.sensor, ", ".join(m.bands), m.units, m.size_px, m.zoom, m.gsd_ratio)
        for name, m in facts.attributes.modalities.items()
    ]
    return _table(("array", "sensor", "bands", "units", "pixels", "zoom", "GSD ratio"), rows)


def _statistics(facts: ReleaseFacts) -> str:
    rows = [
        (f"`{name}`", band, f"{mean:.2f}", f"{std:.2f}")
        for name, m in facts.attributes.modalities.items()
        for band, mean, std in zip(m.bands, m.mean, m.std, strict=False)
    ]
    return _table(("array", "band", "mean", "standard deviation"), rows)


def _sources(facts: ReleaseFacts) -> str:
    rows = [
        (f"`{name}`", m.collection or "not known", m.licence or "not known", m.attribution)
        for name, m in facts.attributes.modalities.items()
    ]
    return _table(("array", "collection", "licence", "attribution"), rows)


def _quality(facts: ReleaseFacts) -> list[tuple[Any, ...]]:
    return [
        (name, *("not measured" if value is None else f"{value:g}" for value in quartiles))
        for name, quartiles in facts.info["quality"].items()
    ]


def _issues(facts: ReleaseFacts) -> Iterator[str]:
    """Give known issues of the data, from the store's notes and figures."""
    yield from facts.attributes.notes
    for sensor, leakage in facts.info["leakage"].items():
        if leakage["scenes_in_several_splits"]:
            share = leakage["held_out_samples_sharing_a_training_scene"]
            yield (
                f"{share:.0%} of the held-out samples share a {sensor} scene with training samples, "
                "though no tile touches one of another split."
            )
    for split, count in facts.info["splits"].items():
        if count == 0:
            yield f"There is no {split} sample."
    for name, m in facts.attributes.modalities.items():
        if m.units == "display":
            yield f"`{name}` holds the provider's 8-bit rendering, not reflectance."
    yield "Images of the sensors were taken on different days; see the measures above."


def _table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
