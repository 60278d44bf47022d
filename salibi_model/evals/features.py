"""Encodes labelled images with frozen models, and with baselines that need no training.

The values of a data set are standardised by its own statistics and rescaled to those that the
encoder was trained on, so that digital numbers, reflectance and 8-bit pixels look alike to it.
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
from salibi_model.evals.datasets.inputs import bands_for, input_shape, to_training_values
from salibi_model.evals.datasets.labelled import SPLITS, LabelledImages, Split
from salibi_model.models.base import PretrainModel
from salibi_model.models.registry import build_model
from salibi_model.nn.patches import patchify

COLOUR_PATCH_PX = 16
"""Edge of the patches of :class:`MeanColour`."""

Images = Float[np.ndarray, "batch bands _ _"]
Tokens = Float[Tensor, "batch dim rows cols"]
Vectors = Float[Tensor, "batch dim"]
Statistics = Callable[[tuple[str, ...]], tuple[np.ndarray, np.ndarray]]
"""Function of band names that returns their mean and standard deviation, as
:meth:`LabelledImages.statistics`."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Pooled features and labels of a split."""

    vectors: Float[np.ndarray, "images dim"]
    labels: Int64[np.ndarray, " images *classes"]


class FrozenEncoder(ABC):
    """Encodes a data set's images, and does not learn from them."""

    encoder: str
    """Name in the rows of results: a modality, or bands."""
    weights_digest: str = ""
    """SHA-256 of the model's configuration and weights; empty without a model."""
    gsd_use: str = "none"
    """Use of the ground sample distance: ``metres``, ``as trained`` (as a ratio) or ``none``."""
    shape: tuple[int, int]
    """(rows, cols) of the images after resizing."""
    gsd_m: float
    """Metres per pixel of the images after resizing."""

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
        self._resize(scale=1.0, image_px=None)
        # Called with the first image: the statistics may have to be measured.
        self._statistics = statistics or functools.cache(data.statistics)

    def at(self, *, scale: float = 1.0, image_px: int | None = None) -> "FrozenEncoder":
        """Return the same encoder for images resized, and so of another ground sample distance.

        Args:
            scale: factor on the ground sample distance: 2 doubles it and halves the edge.
            image_px: longer edge to which images are resized before that; ``None``: their own.

        Raises:
            UnfitError: the images are too small for the scale.
        """
        other = copy.copy(self)
        other._resize(scale=scale, image_px=image_px)  # noqa: SLF001
        return other

    def _resize(self, *, scale: float, image_px: int | None) -> None:
        self.shape = input_shape(
            self._read_shape,
            patch_px=self.patch_px,
            scale=scale,
            image_px=image_px,
            where=self.data.name,
        )
        # Of areas: rows and columns may be rounded to patches by different factors.
        self._gsd_factor = math.sqrt(math.prod(self._read_shape) / math.prod(self.shape))
        self.gsd_m = self.data.gsd_m * self._gsd_factor

    @property
    def enlarged_from(self) -> tuple[int, int] | None:
        """(rows, cols) of images smaller than a patch, which are enlarged; ``None`` if they are not."""
        is_small = min(self._read_shape) < self.patch_px
        is_enlarged = min(self.shape) > min(self._read_shape)
        return self._read_shape if is_small and is_enlarged else None

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, cols) of the grid of tokens."""
        rows, cols = (edge // self.patch_px for edge in self.shape)
        return rows, cols

    @abstractmethod
    def encode(self, images: Images) -> tuple[Tokens, Vectors]:
        """Return tokens on their grid (B, D, rows, cols), and one vector per image (B, D).

        Args:
            images: bands :attr:`bands` (B, C, H, W) in the data set's units, NaN where nodata.
        """

    def _standardised(
        self, images: np.ndarray, device: torch.device
    ) -> tuple[Float[Tensor, "batch bands rows cols"], Bool[Tensor, "batch bands rows cols"]]:
        """Return resized values of mean 0 and deviation 1, and ``True`` where they are valid."""
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


class FrozenModel(FrozenEncoder):
    """The encoder of one of a model's modalities."""

    def __init__(
        self,
        model: PretrainModel,
        data: LabelledImages,
        modality: str,
        *,
        statistics: Statistics | None = None,
    ) -> None:
        """Choose the bands of the data that the encoder of ``modality`` takes.

        Args:
            model: a model in evaluation mode.
            data: the images to encode.
            modality: a modality of the model.
            statistics: statistics of the data, so that they are not measured again.

        Raises:
            UnfitError: the data lacks a band that the encoder takes.
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
        """Return tokens on their grid, and the pooled embedding.

        Raises:
            CheckpointError: a value is not finite.
        """
        stored = self._stored(images, next(self.model.parameters()).device)
        # Rescaled by their statistics, values are in the training's units, outliers beyond 0..255.
        encode = functools.partial(self.model.encode, check_values=False)
        if self.gsd_use == "metres":
            encode = functools.partial(encode, gsd_m=self.gsd_m)
        else:
            encode = functools.partial(encode, gsd_ratio=self._spec.gsd_ratio * self._gsd_factor)
        tokens, vectors = encode(stored, self.encoder)
        if not bool(vectors.isfinite().all() & tokens.isfinite().all()):
            raise CheckpointError(
                f"features by {self.encoder!r} are not finite: expected numbers to compare. The "
                "model's weights are damaged, or it diverged; take another checkpoint."
            )
        grid = tokens.float().transpose(1, 2).reshape(len(images), -1, *self.grid)
        return grid, vectors.float()

    def _stored(self, images: np.ndarray, device: torch.device) -> Tensor:
        """Rescale images to the values that the modality's encoder was trained on."""
        return to_training_values(
            self.model.config, self._spec, *self._standardised(images, device)
        )


class MeanColour(FrozenEncoder):
    """The baseline without a model: mean and standard deviation of each band.

    Vectors are those of the whole image, tokens those of each patch of :data:`COLOUR_PATCH_PX` px.
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
        """Return mean and deviation of each band over valid pixels, 0 where there are none."""
        values, valid = self._standardised(images, torch.device("cpu"))
        batch, bands = values.shape[:2]
        blocks = [
            patchify(part, COLOUR_PATCH_PX).reshape(batch, -1, bands, COLOUR_PATCH_PX**2)
            for part in (values, valid)
        ]
        tokens = _mean_and_deviation(*blocks).transpose(1, 2).reshape(batch, -1, *self.grid)
        return tokens, _mean_and_deviation(values.flatten(2), valid.flatten(2))


def extract_features(
    frozen: FrozenEncoder,
    split: Split,
    *,
    batch_size: int = 32,
    on_image: Callable[[int], None] | None = None,
) -> Features:
    """Encode a split, and return the pooled features in the order of its indices.

    Args:
        frozen: the encoder, with its data.
        split: ``train``, ``validation`` or ``test``.
        batch_size: images at a time.
        on_image: called with the number of images encoded since the last call.

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
    # An empty split has no width; one column keeps the array two-dimensional.
    vectors = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    return Features(vectors=vectors, labels=frozen.data.labels(indices))


def untrained_model(model: PretrainModel, *, seed: int = 0) -> PretrainModel:
    """Return a model of the same configuration with new random weights, as a baseline."""
    # The caller's random numbers must not change.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        random_model = build_model(model.config)
    return random_model.to(next(model.parameters()).device).eval()


def weights_digest(model: PretrainModel) -> str:
    """Return the SHA-256 of a model's configuration and weights."""
    digest = hashlib.sha256(json.dumps(asdict(model.config), sort_keys=True).encode())
    # Sorted, so that the order of definition does not change the digest.
    for name, values in sorted(model.state_dict().items()):
        digest.update(name.encode())
        # As bytes: numpy has no bfloat16.
        digest.update(values.detach().cpu().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read_ahead(
    frozen: FrozenEncoder, indices: np.ndarray, batch_size: int
) -> Iterator[np.ndarray]:
    """Yield batches of images, and read the next one while one is in use."""
    batches = [indices[first : first + batch_size] for first in range(0, len(indices), batch_size)]
    with ThreadPoolExecutor(1) as reader, warnings.catch_warnings():
        # Warning filters belong to the process: if the reader's thread set one, this one could undo it.
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        pending = [reader.submit(frozen.data.read, batch, frozen.bands) for batch in batches[:1]]
        for batch in batches[1:]:
            images = pending.pop().result()
            pending.append(reader.submit(frozen.data.read, batch, frozen.bands))
            yield images
        for last in pending:
            yield last.result()


def _first_index(data: LabelledImages) -> np.ndarray:
    for split in SPLITS:
        if len(indices := data.split_indices(split)):
            return indices[:1]
    raise StoreError(f"{data.name} has no images; nothing can be measured on it.")


def _mean_and_deviation(
    values: Float[Tensor, "*batch bands pixels"], valid: Bool[Tensor, "*batch bands pixels"]
) -> Float[Tensor, "*batch twice_bands"]:
    count = valid.sum(dim=-1).clamp(min=1)
    mean = (values * valid).sum(dim=-1) / count
    squares = ((values - mean[..., None]) * valid).square().sum(dim=-1)
    return torch.cat([mean, (squares / count).sqrt()], dim=-1)
