"""Segments images with a small head on the tokens of a frozen encoder.

Head ``linear``: one linear layer per token, interpolated to pixels bilinearly, as in DINOv2's
linear evaluation (Oquab et al. 2023, arXiv 2304.07193, section 7.4). Head ``conv``: two 3x3
convolutions with an upsampling by 2 between them, which use a token's neighbours.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from salibi_data.store.progress import Progress
from salibi_model.evals.datasets.labelled import Split
from salibi_model.evals.features import FrozenEncoder
from salibi_model.evals.metrics import UNLABELLED, pixel_counts
from salibi_model.evals.options import SegmentOptions

CACHE_BYTES = 4 << 30
"""Largest size of tokens and labels that are kept in memory."""
_STATISTICS_IMAGES = 512
"""Training images whose tokens mean and deviation are measured on."""


class SegmentationHead(nn.Module):
    """Maps a grid of tokens to logits per pixel."""

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        mean: Float[Tensor, " dim"],
        std: Float[Tensor, " dim"],
        *,
        num_classes: int,
        options: SegmentOptions,
    ) -> None:
        """Draw weights from torch's generator; ``mean`` and ``std`` standardise the tokens."""
        super().__init__()
        self.register_buffer("mean", mean[:, None, None])
        self.register_buffer("std", std[:, None, None])
        dim, width = len(mean), options.width
        if options.head == "linear":
            self.layers = nn.Sequential(nn.Conv2d(dim, num_classes, 1))
        else:
            self.layers = nn.Sequential(
                nn.Conv2d(dim, width, 3, padding=1),
                nn.GELU(),
                nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
                nn.Conv2d(width, width, 3, padding=1),
                nn.GELU(),
                nn.Conv2d(width, num_classes, 1),
            )

    def forward(
        self, tokens: Float[Tensor, "batch dim rows cols"], shape: tuple[int, int]
    ) -> Float[Tensor, "batch classes height width"]:
        """Return logits at the pixels of an image of ``shape`` (rows, cols)."""
        logits = self.layers((tokens - self.mean) / self.std)
        return F.interpolate(logits, shape, mode="bilinear", align_corners=False)


class LabelledTokens:
    """Token grids of a split and its pixel labels, encoded once if they fit into memory."""

    def __init__(
        self,
        frozen: FrozenEncoder,
        split: Split,
        *,
        batch_size: int = 32,
        cache_bytes: int = CACHE_BYTES,
        on_image: Callable[[int], None] | None = None,
    ) -> None:
        """Set up; images are read on demand.

        Args:
            frozen: the encoder, with the data of a segmentation task.
            split: ``train``, ``validation`` or ``test``.
            batch_size: images encoded at a time.
            cache_bytes: largest size of the split's tokens and labels that are kept; otherwise
                images are encoded again in every epoch.
            on_image: called with the number of images encoded since the last call.
        """
        self._frozen, self._data = frozen, frozen.data
        self._indices = frozen.data.split_indices(split)
        self._batch_size = batch_size
        self._cache_bytes = cache_bytes
        self._on_image = on_image
        self._cache: tuple[Tensor, Tensor] | None = None
        self._is_cached = np.zeros(len(self), bool)

    def __len__(self) -> int:
        return len(self._indices)

    def take(
        self, positions: Int64[np.ndarray, " images"]
    ) -> tuple[Float[Tensor, "images dim rows cols"], Int64[Tensor, "images height width"]]:
        """Return tokens and labels of the split's images at ``positions``."""
        missing = positions[~self._is_cached[positions]]
        encoded = [
            self._encode(missing[first : first + self._batch_size])
            for first in range(0, len(missing), self._batch_size)
        ]
        if encoded:
            tokens, labels = (torch.cat(parts) for parts in zip(*encoded, strict=True))
            if not self._store(missing, tokens, labels):
                return tokens, labels
        if self._cache is None:
            raise IndexError("no positions were asked for.")
        tokens, labels = (cached[torch.from_numpy(positions)] for cached in self._cache)
        return tokens, labels

    def _encode(self, positions: np.ndarray) -> tuple[Tensor, Tensor]:
        chosen = self._indices[positions]
        tokens, _ = self._frozen.encode(self._data.read(chosen, self._frozen.bands))
        if self._on_image is not None:
            self._on_image(len(chosen))
        # A copy outside of inference mode, so that a head can be trained on it.
        return tokens.cpu().clone(), torch.from_numpy(self._data.labels(chosen))

    def _store(self, positions: np.ndarray, tokens: Tensor, labels: Tensor) -> bool:
        """Put tokens and labels into the cache; ``False`` if the whole split would not fit."""
        if self._cache is None:
            needed = len(self) * sum(part[0].nbytes for part in (tokens, labels))
            if needed > self._cache_bytes:
                return False
            empty = (part.new_empty(len(self), *part.shape[1:]) for part in (tokens, labels))
            self._cache = next(empty), next(empty)
        for cached, part in zip(self._cache, (tokens, labels), strict=True):
            cached[torch.from_numpy(positions)] = part
        self._is_cached[positions] = True
        return True


def fit_head(
    train: LabelledTokens,
    options: SegmentOptions,
    *,
    num_classes: int,
    device: str | torch.device = "cpu",
    on_step: Progress | None = None,
) -> SegmentationHead:
    """Train a head; the same seed gives the same head on the same CPU.

    On a GPU, the gradient of the interpolation is summed in an order that changes from run to run.

    Args:
        train: tokens and labels of the training split.
        options: head, epochs and seed.
        num_classes: number of classes of the task.
        device: device to train on.
        on_step: called with the numbers of steps (done, total).
    """
    mean, std = _token_statistics(train, options.batch_size)
    # The head's seed must not change the caller's random numbers.
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(options.seed)
        head = SegmentationHead(mean, std, num_classes=num_classes, options=options).to(device)
        optimiser = torch.optim.AdamW(
            head.parameters(), lr=options.rate, weight_decay=options.weight_decay
        )
        starts = [*range(0, len(train), options.batch_size), len(train)]
        num_steps = options.epochs * (len(starts) - 1)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, num_steps)
        step = 0
        for _ in range(options.epochs):
            order = torch.randperm(len(train)).numpy()
            for first, last in pairwise(starts):
                tokens, labels = (part.to(device) for part in train.take(order[first:last]))
                optimiser.zero_grad()
                segmentation_loss(head(tokens, _shape(labels)), labels).backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                step += 1
                if on_step is not None:
                    on_step(step, num_steps)
    return head.eval()


@torch.inference_mode()
def count_pixels(
    head: SegmentationHead, test: LabelledTokens, *, num_classes: int, batch_size: int = 16
) -> Int64[np.ndarray, "images classes 3"]:
    """Count true positives, false positives and false negatives per image and class."""
    device = head.mean.device
    counts = []
    for first in range(0, len(test), batch_size):
        tokens, labels = test.take(np.arange(first, min(first + batch_size, len(test))))
        predicted = head(tokens.to(device), _shape(labels)).argmax(dim=1).cpu().numpy()
        counts.append(pixel_counts(labels.numpy(), predicted, num_classes))
    return np.concatenate(counts)


def segmentation_loss(
    logits: Float[Tensor, "batch classes height width"], labels: Int64[Tensor, "batch height width"]
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy over labelled pixels, 0 without any."""
    summed = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    return summed / (labels != UNLABELLED).sum().clamp(min=1)


def _shape(labels: Tensor) -> tuple[int, int]:
    rows, cols = labels.shape[-2:]
    return rows, cols


def _token_statistics(train: LabelledTokens, batch_size: int) -> tuple[Tensor, Tensor]:
    """Mean and deviation of tokens over training images, evenly chosen; deviation 1 if constant."""
    chosen = np.unique(np.linspace(0, len(train) - 1, _STATISTICS_IMAGES).round().astype(np.int64))
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for first in range(0, len(chosen), batch_size):
        # Double precision: sums of squares over many tokens lose the deviation in single.
        tokens = train.take(chosen[first : first + batch_size])[0].double().transpose(0, 1)
        values = tokens.flatten(1)
        count += values.shape[1]
        total = total + values.sum(dim=1)
        squares = squares + values.square().sum(dim=1)
    mean = total / count
    std = (squares / count - mean.square()).clamp(min=0).sqrt()
    return mean.float(), torch.where(std > 1e-6, std, torch.ones_like(std)).float()  # noqa: PLR2004
