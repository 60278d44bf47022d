"""Frozen features of labelled images: what a model, or something simpler, makes of them.

Values of a data set are standardised by its own statistics and brought to those of the modality
whose encoder sees them, so that digital numbers, reflectance and 8-bit pixels look alike to it.
"""

import copy
import functools
import hashlib
import json
import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from rasterio.errors import NotGeoreferencedWarning
from torch import Tensor

from salibi_data.store.errors import StoreError
from salibi_model.data.resample import resample
from salibi_model.errors import CheckpointError
from salibi_model.evals.datasets.inputs import as_trained, bands_for, shown_shape
from salibi_model.evals.datasets.labelled import SPLITS, LabelledImages, Split
from salibi_model.models.base import PretrainModel
from salibi_model.models.registry import build_model
from salibi_model.nn.patches import patchify

COLOUR_PATCH_PX = 16

Images = Float[np.ndarray, "batch bands _ _"]
Tokens = Float[Tensor, "batch dim rows cols"]
Vectors = Float[Tensor, "batch dim"]
Statistics = Callable[[tuple[str, ...]], tuple[np.ndarray, np.ndarray]]
"""Mean and deviation of a data set's bands, as :meth:`LabelledImages.statistics` gives them."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Pooled features of a split."""

    vectors: Float[np.ndarray, "images dim"]
    labels: Int64[np.ndarray, " images *classes"]


class Frozen(ABC):
    """Gives features of a data set's images, and does not learn from them."""

    encoder: str
    """What sees the images: a modality, or bands."""
    weights_digest: str = ""
    gsd_use: str = "none"
    """What is made of the ground sample distance: ``metres``, ``as trained`` or ``none``."""
    shape: tuple[int, int]
    """(rows, cols) of the images as they are shown."""
    gsd_m: float
    """Metres per pixel of the images as they are shown."""

    def __init__(
        self,
        data: LabelledImages,
        bands: tuple[str, ...],
        *,
        patch_px: int,
        statistics: Statistics | None = None,
    ) -> None:
        self.data = data
        self.bands = bands
        self.patch_px = patch_px
        rows, cols = data.read(_first_index(data), bands).shape[-2:]
        self._read_shape = (rows, cols)
        self._show(scale=1.0, image_px=None)
        # Asked for with the first image: they may have to be measured.
        self._statistics = statistics or functools.cache(data.statistics)

    def at(self, *, scale: float = 1.0, image_px: int | None = None) -> "Frozen":
        """Give the same at another size of the images, and so at another ground sample distance.

        Args:
            scale: how much coarser, with as many fewer pixels: 2 halves the edge and doubles the
                ground sample distance.
            image_px: longer edge to which images are brought before that; ``None``: their own.

        Raises:
            UnfitError: the images are too small for the scale.
        """
        other = copy.copy(self)
        other._show(scale=scale, image_px=image_px)  # noqa: SLF001
        return other

    def _show(self, *, scale: float, image_px: int | None) -> None:
        self.shape = shown_shape(
            self._read_shape,
            patch_px=self.patch_px,
            scale=scale,
            image_px=image_px,
            where=self.data.name,
        )
        self._coarser = math.sqrt(math.prod(self._read_shape) / math.prod(self.shape))
        self.gsd_m = self.data.gsd_m * self._coarser

    @property
    def enlarged_from(self) -> tuple[int, int] | None:
        """(rows, cols) of images that are less than a patch and so are enlarged; else ``None``."""
        small = min(self._read_shape) < self.patch_px and min(self.shape) > min(self._read_shape)
        return self._read_shape if small else None

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, cols) of tokens."""
        rows, cols = (edge // self.patch_px for edge in self.shape)
        return rows, cols

    @abstractmethod
    def encode(self, images: Images) -> tuple[Tokens, Vectors]:
        """Give tokens on their grid (B, D, rows, cols), and one vector per image (B, D).

        Args:
            images: the bands :attr:`bands` in the data set's units, NaN where nodata.
        """

    def _standardised(
        self, images: np.ndarray, device: torch.device
    ) -> tuple[Float[Tensor, "batch bands rows cols"], Bool[Tensor, "batch bands rows cols"]]:
        """Values of mean 0 and deviation 1 at the size shown, and where they are valid."""
        values = torch.tensor(images, device=device)
        valid = values.isfinite()
        mean, std = (
            torch.tensor(part, dtype=torch.float32, device=device)[:, None, None]
            for part in self._statistics(self.bands)
        )
        values = (values - mean) / std
        values = values.masked_fill(~valid, 0.0)
        if tuple(values.shape[-2:]) == self.shape:
            return values, valid
        values, valid = resample(values, valid, self.shape)
        return values, valid


class FrozenModel(Frozen):
    """The encoder of one of a model's modalities."""

    def __init__(
        self,
        model: PretrainModel,
        data: LabelledImages,
        modality: str,
        *,
        statistics: Statistics | None = None,
    ) -> None:
        """Fit the data to the encoder of ``modality``.

        Args:
            model: in evaluation mode.
            data: what it is to see.
            modality: of the model.
            statistics: the data's, by bands, if they are not to be measured again.

        Raises:
            UnfitError: the data lacks a band that the encoder sees.
            UsageError: the model has no such modality.
        """
        bands = bands_for(model.config, modality, data)
        super().__init__(data, bands, patch_px=model.config.patch_px, statistics=statistics)
        self.encoder = modality
        self.model = model
        self.weights_digest = weights_digest(model)
        self.gsd_use = "metres" if model.config.base_gsd_m else "as trained"
        self._spec = model.config[modality]

    @torch.inference_mode()
    def encode(self, images: Images) -> tuple[Tokens, Vectors]:
        """Give tokens on their grid, and the pooled embedding.

        Raises:
            CheckpointError: they are not finite.
        """
        stored = self._stored(images, next(self.model.parameters()).device)
        if self.gsd_use == "metres":
            tokens, vectors = self.model.encode(stored, self.encoder, gsd_m=self.gsd_m)
        else:
            ratio = self._spec.gsd_ratio * self._coarser
            tokens, vectors = self.model.encode(stored, self.encoder, gsd_ratio=ratio)
        if not bool(vectors.isfinite().all() & tokens.isfinite().all()):
            raise CheckpointError(
                f"features by {self.encoder!r} are not finite: expected numbers to compare. The "
                "model's weights are damaged, or it diverged; take another checkpoint."
            )
        grid = tokens.float().transpose(1, 2).reshape(len(images), -1, *self.grid)
        return grid, vectors.float()

    def _stored(self, images: np.ndarray, device: torch.device) -> Tensor:
        """The images in the units that the modality's encoder was trained on."""
        return as_trained(self.model.config, self._spec, *self._standardised(images, device))


class MeanColour(Frozen):
    """The floor that needs no model: mean and standard deviation of each band.

    Of the whole image, and of each patch of :data:`COLOUR_PATCH_PX` px.
    """

    def __init__(
        self,
        data: LabelledImages,
        bands: tuple[str, ...],
        *,
        statistics: Statistics | None = None,
    ) -> None:
        super().__init__(data, bands, patch_px=COLOUR_PATCH_PX, statistics=statistics)
        self.encoder = " ".join(bands)

    def encode(self, images: Images) -> tuple[Tokens, Vectors]:
        """Give mean and deviation of each band over valid pixels, 0 where there are none."""
        values, valid = self._standardised(images, torch.device("cpu"))
        batch, bands = values.shape[:2]
        blocks = [
            patchify(part, COLOUR_PATCH_PX).reshape(batch, -1, bands, COLOUR_PATCH_PX**2)
            for part in (values, valid)
        ]
        tokens = _mean_and_deviation(*blocks).transpose(1, 2).reshape(batch, -1, *self.grid)
        return tokens, _mean_and_deviation(values.flatten(2), valid.flatten(2))


def features(
    frozen: Frozen,
    split: Split,
    *,
    batch_size: int = 32,
    on_image: Callable[[int], None] | None = None,
) -> Features:
    """Give the pooled features of a split, in the order of its indices.

    Args:
        frozen: what gives them, with its data.
        split: ``train``, ``validation`` or ``test``.
        batch_size: images at a time.
        on_image: called with a number of images that were encoded.

    Raises:
        CheckpointError: features are not finite.
        StoreError: an image cannot be read.
    """
    indices = frozen.data.split_indices(split)
    parts: list[np.ndarray] = []
    for images in _read_ahead(frozen, indices, batch_size):
        parts.append(frozen.encode(images)[1].cpu().numpy())
        if on_image is not None:
            on_image(len(images))
    vectors = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    return Features(vectors=vectors, labels=frozen.data.labels(indices))


def untrained(model: PretrainModel, *, seed: int = 0) -> PretrainModel:
    """Give a model of the same configuration with new random weights: the floor of training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = build_model(model.config)
    return fresh.to(next(model.parameters()).device).eval()


def weights_digest(model: PretrainModel) -> str:
    """Give the SHA-256 of a model's configuration and weights."""
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    for name, values in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(values.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_ahead(frozen: Frozen, indices: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Read images in batches, the next one while the last one is used."""
    chosen = [indices[first : first + batch_size] for first in range(0, len(indices), batch_size)]
    with ThreadPoolExecutor(1) as reader, warnings.catch_warnings():
        # Filters belong to the process: what the reader's thread sets, this one might undo.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        coming = [reader.submit(frozen.data.read, part, frozen.bands) for part in chosen[:1]]
        for part in chosen[1:]:
            images = coming.pop().result()
            coming.append(reader.submit(frozen.data.read, part, frozen.bands))
            yield images
        for last in coming:
            yield last.result()


def _first_index(data: LabelledImages) -> np.ndarray:
    for split in SPLITS:
        if len(found := data.split_indices(split)):
            return found[:1]
    raise StoreError(f"{data.name} has no images; nothing can be measured on it.")


def _mean_and_deviation(
    values: Float[Tensor, "*batch bands pixels"], valid: Bool[Tensor, "*batch bands pixels"]
) -> Float[Tensor, "*batch twice_bands"]:
    count = valid.sum(dim=-1).clamp(min=1)
    mean = (values * valid).sum(dim=-1) / count
    squares = ((values - mean[..., None]) * valid).square().sum(dim=-1)
    return torch.cat([mean, (squares / count).sqrt()], dim=-1)
