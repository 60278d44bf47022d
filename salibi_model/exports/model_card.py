"""Writes the model card of an exported model: ``README.md`` in the layout of the Hugging Face Hub.

Source: https://huggingface.co/docs/hub/model-cards (YAML between two lines of dashes, then
Markdown); the sections follow Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from salibi_model.evals.metrics import Score
from salibi_model.evals.results import markdown
from salibi_model.models.compatibility import GSD_FACTOR, trained_gsd_m
from salibi_model.models.config import ModelConfig

LIBRARY: Final = "salibi"
"""``library_name`` of the front matter, which marks a folder as an export."""

_LISTED: Final = (
    *("model", "size", "step", "steps", "batch_size", "mask_ratio", "lr", "weight_decay", "seed"),
    *("crop_px", "crop_share", "precision", "ema", "converted_from", "layout", "sha256"),
)
"""Fields of the training that the card lists; ``config.json`` has all."""

_VALUES: Final = (
    "Values are taken as stored: whole numbers 1..255, and 0 where nothing was observed. "
    "Physical value = offset + scale * stored. Normalisation with mean and std happens inside.\n"
)

_SENSORS: Final[Mapping[str, str]] = {
    "sentinel-1": "Sentinel-1 SAR",
    "sentinel-2": "Sentinel-2",
    "naip": "NAIP aerial",
}


def model_card(
    config: ModelConfig,
    training: Mapping[str, Any],
    *,
    name: str,
    sha256: str,
    software_version: str,
    licence: str | None = None,
    scores: Sequence[Score] = (),
) -> str:
    """Write a model card.

    Args:
        config: configuration of the model.
        training: settings of the training, without private paths.
        name: name of the exported folder.
        sha256: SHA-256 of ``model.safetensors``.
        software_version: version of the software that exports.
        licence: licence of the weights, as the Hub names it; ``None``: not stated.
        scores: rows of results of this model.
    """
    sections = [
        _front_matter(config, licence),
        _heading(config, name),
        _modalities(config),
        _use(config, name),
        _limits(config),
        _training(training),
        _sources(config),
        _evaluation(scores),
        _files(sha256, software_version, licence),
    ]
    return "\n".join(section for section in sections if section)


def _front_matter(config: ModelConfig, licence: str | None) -> str:
    sensors = sorted({modality.sensor for modality in config.modalities if modality.sensor})
    tags = [config.architecture, "remote-sensing", "satellite-imagery", "embeddings", *sensors]
    # A JSON string is a YAML string.
    lines = [
        "---",
        f"library_name: {LIBRARY}",
        "pipeline_tag: image-feature-extraction",
        *([f"license: {json.dumps(licence)}"] if licence else []),
        "tags:",
        *(f"- {json.dumps(tag)}" for tag in tags),
        "---\n",
    ]
    return "\n".join(lines)


def _heading(config: ModelConfig, name: str) -> str:
    sensors = {_SENSORS.get(m.sensor, m.sensor): None for m in config.modalities}
    size = config.size
    return (
        f"# {_plain(name)}\n\n"
        f"Embeddings of {_joined(list(sensors))} images. Architecture {config.architecture}: width "
        f"{size.dim}, depth {size.depth}, {size.num_heads} heads, patches of {config.patch_px} px, "
        f"an encoder for {', '.join(f'`{each}`' for each in config.names)}.\n"
    )


def _modalities(config: ModelConfig) -> str:
    rows = [
        "## Input\n",
        _VALUES,
        "| modality | band | units | scale | offset | mean | std | GSD ratio | metres per pixel |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for modality in config.modalities:
        metres = trained_gsd_m(config, modality.name)
        gsd = (f"{modality.gsd_ratio:g}", "not known" if metres is None else f"{metres:.4g}")
        numbers = zip(modality.scale, modality.offset, modality.mean, modality.std, strict=True)
        for band, (scale, offset, mean, std) in zip(modality.bands, numbers, strict=True):
            figures = (f"{scale:.6g}", f"{offset:.6g}", f"{mean:.6g}", f"{std:.6g}")
            cells = (f"`{modality.name}`", band, modality.units, *figures, *gsd)
            rows.append(f"| {' | '.join(map(_plain, cells))} |")
    return "\n".join(rows) + "\n"


def _use(config: ModelConfig, name: str) -> str:
    modality = config.modalities[-1]
    metres = trained_gsd_m(config, modality.name)
    gsd = f", gsd_m={metres:.4g}" if metres is not None else ""
    shape = f"(1, {len(modality.bands)}, {modality.size_px}, {modality.size_px})"
    return (
        "## Use\n\n"
        "```python\n"
        "import torch\n"
        "import salibi_model\n"
        "from salibi_model.models.compatibility import check_input\n\n"
        f"model = salibi_model.load({json.dumps(name)})\n"
        f'check_input(model.config, "{modality.name}", bands={modality.bands!r}, units="stored"'
        f"{gsd})\n"
        f"images = torch.randint(1, 256, {shape}, dtype=torch.uint8)\n"
        "with torch.inference_mode():\n"
        f'    tokens, embedding = model.encode(images, "{modality.name}"{gsd})\n'
        "```\n\n"
        "`check_input` refuses other bands, another order, other units, and a ground sample distance "
        f"more than {GSD_FACTOR:g} times that of the training. Whole stores and GeoTIFFs: "
        f"`salibi-model embed {name} scene.tif -o embeddings`. Values in other units are converted "
        "by `encode(..., units=...)` and `embed --units`: `reflectance`, `dn`, `db`, `power`, `uint8`.\n"
    )


def _limits(config: ModelConfig) -> str:
    known = (
        "Images of other ground sample distances and sizes are placed in the same ground frame, "
        "without training for them."
        if config.gsd_scaling
        else "Distances are counted in patches, whatever they are on the ground."
    )
    return (
        "## Intended use and limits\n\n"
        "Meant for features of satellite and aerial images in research: classification, "
        "segmentation and retrieval with a small head on top. Not meant for decisions about people, "
        "nor for measuring where errors matter without a validation on the place at hand.\n\n"
        f"It has seen the places, seasons and sensors of its training data only. {known} Clouds, "
        "snow and sensors it has not seen are not detected as such. Images in other units "
        "are refused where a sample of their pixels shows it; percent, say, cannot be told from stored "
        "values.\n"
    )


def _training(training: Mapping[str, Any]) -> str:
    lines = ["## Training\n"]
    stores, digests = (training.get(key) or [] for key in ("stores", "store_digests"))
    if isinstance(stores, list) and stores:
        lines += ["| data | plan digest |", "|---|---|"]
        known = [*digests, *[""] * len(stores)] if isinstance(digests, list) else [""] * len(stores)
        lines += [
            f"| {_plain(store)} | {_plain(digest) or 'not stated'} |"
            for store, digest in zip(stores, known, strict=False)
        ]
        lines.append("")
    listed = {key: training[key] for key in _LISTED if training.get(key) not in (None, "", [])}
    lines += [f"- {key.replace('_', ' ')}: {_plain(value)}" for key, value in listed.items()]
    lines.append("\n`config.json` has all settings.\n" if listed else "Nothing is stated.\n")
    return "\n".join(lines)


def _sources(config: ModelConfig) -> str:
    sources = {
        (m.collection, m.licence, m.attribution): None
        for m in config.modalities
        if m.licence or m.attribution
    }
    if not sources:
        return ""
    rows = ["## Sources of the images\n", "| collection | licence | attribution |", "|---|---|---|"]
    rows += [f"| {' | '.join(map(_plain, cells))} |" for cells in sources]
    return "\n".join(rows) + "\n"


def _evaluation(scores: Sequence[Score]) -> str:
    if not scores:
        return "## Evaluation\n\nNo results were given with this export.\n"
    return (
        "## Evaluation\n\nIntervals are bootstrap 95 % over the test samples, of this one training "
        f"run.\n\n{markdown(scores)}"
    )


def _files(sha256: str, software_version: str, licence: str | None) -> str:
    stated = "" if licence else " The licence of the weights is not stated."
    return (
        f"## Files\n\n- `model.safetensors`, SHA-256 `{sha256}`\n- `config.json`: size, modalities, "
        f"statistics, training\n\nMade by salibi {software_version}.{stated}\n"
    )


def _plain(value: Any) -> str:
    """Format a value so that it ends no table cell and no line."""
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return " ".join(text.split()).replace("|", "/")


def _joined(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
