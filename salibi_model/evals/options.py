"""Options of evaluations: each is one field, with its default, range and help text.

Functions and commands take defaults and help from here. The module needs no PyTorch.
"""

from dataclasses import dataclass
from typing import Final

from salibi_data.store.errors import UsageError
from salibi_data.store.validation import check_options, option

DISTANCES: Final = ("cosine", "l2")
HEADS: Final = ("linear", "conv")
REGULARISATIONS: Final = (0.0001, 0.001, 0.01, 0.1, 1.0, 10.0)
"""Values of ``c`` tried on the validation split, from the strongest regularisation."""

FOLDERS: Final = "folders of images"
TASKS: Final = "GEO-Bench tasks"
"""What an option of labelled images applies to."""

KNN: Final = "the method knn"
FLOORS: Final = "random weights"
"""What an option of a method applies to."""

DEFAULT_PARTITION: Final = "default"
"""Name of GEO-Bench's partition of all training samples."""

_SPLIT_HELP: Final = "train, validation, test."
_SEED_HELP: Final = "Random seed of random weights, and of a segmentation head."


@dataclass(frozen=True, kw_only=True)
class KnnOptions:
    """Options of the classification by nearest neighbours.

    Raises:
        UsageError: a field is out of range.
    """

    k: int = option(20, minimum=1, flag="-k", help="Neighbours that vote.", applies_to=KNN)
    """All training samples if there are fewer."""
    distance: str = option("cosine", choices=DISTANCES, help="cosine or l2.", applies_to=KNN)
    """Distance of two vectors: ``cosine`` (1 - cosine of the angle) or ``l2``."""
    temperature: float | None = option(
        None, above=0, absent="all alike", help="Weigh by exp(-distance / T), as 0.07."
    )

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class LinearOptions:
    """Options of the linear probe.

    Raises:
        UsageError: there is no regularisation, or one is not above 0.
    """

    regularisations: tuple[float, ...] = option(
        REGULARISATIONS, above=0, command=False, help="Values of c to try."
    )

    def __post_init__(self) -> None:
        check_options(self)
        if not self.regularisations:
            raise UsageError("regularisations are empty; give one number above 0 or more.")


@dataclass(frozen=True, kw_only=True)
class SegmentOptions:
    """Options of the segmentation head and its training, by AdamW with a cosine schedule to zero.

    Raises:
        UsageError: a field is out of range.
    """

    head: str = option("linear", choices=HEADS, help="linear or conv.")
    epochs: int = option(50, minimum=1, help="Passes in which the head is trained.")
    """The head is measured after the last one."""
    batch_size: int = option(16, minimum=1, command=False, help="Images per step.")
    rate: float = option(1e-3, above=0, help="Learning rate of the head.")
    """Learning rate at the start of the training."""
    weight_decay: float = option(0.01, command=False, help="AdamW's.")
    width: int = option(
        128, minimum=1, command=False, help="Channels between the convolutions of conv."
    )
    seed: int = option(0, help=_SEED_HELP)
    """Also of the order of the images."""

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class InputOptions:
    """Sizes to which images are resized, and the encoders that they are given to.

    Raises:
        UsageError: a field is out of range, or there is no scale.
    """

    modality: str | None = option(
        None,
        absent="all whose bands the data has",
        help="Modality whose encoder takes the images.",
    )
    scales: tuple[float, ...] = option(
        (1.0,), help="Show images so many times coarser: 1,2,4 draws accuracy over GSD."
    )
    """Factors on the ground sample distance: 2 doubles it and halves the edge."""
    image_px: int | None = option(
        None,
        minimum=1,
        unit="pixels",
        flag="--px",
        absent="own",
        help="Longer edge to bring images to.",
    )
    """Size of the images before ``scales`` shrinks them."""
    floors: bool = option(False, help="Also measure mean colours and random weights.")
    seed: int = option(0, help=_SEED_HELP, applies_to=FLOORS)

    def __post_init__(self) -> None:
        check_options(self)
        if not self.scales:
            raise UsageError("give one scale or more, such as 1,2,4.")


@dataclass(frozen=True, kw_only=True)
class EvalOptions(InputOptions):
    """Options of the inputs, of the labelled data, and how the work is done."""

    gsd_m: float | None = option(
        None,
        minimum=0.001,
        unit="m",
        help="Metres per pixel, of plain images.",
        applies_to=FOLDERS,
    )
    units: str | None = option(
        None,
        absent="8 bits, or the model's",
        help="Units of plain images: stored, uint8, reflectance, dn, dB, power.",
        applies_to=FOLDERS,
    )
    """See :mod:`salibi_model.evals.datasets.image_units`."""
    partition: str | None = option(
        None,
        absent=DEFAULT_PARTITION,
        help="GEO-Bench partition, such as 0.10x_train.",
        applies_to=TASKS,
    )
    batch_size: int = option(32, minimum=1, help="Images encoded at a time.")


@dataclass(frozen=True, kw_only=True)
class RetrievalOptions:
    """Options of the retrieval between modalities."""

    against: str | None = option(
        None, help="Look up among the same tiles of this store, as of another year."
    )
    split: str = option("validation", help=_SPLIT_HELP)
    scales: bool = option(False, help="Also between scales: the store's other arrays of a sensor.")
    batch_size: int = option(16, minimum=1, command=False, help="Samples encoded at a time.")
    seed: int = option(0, command=False, help="Random seed of the bootstrap intervals.")


@dataclass(frozen=True, kw_only=True)
class ReconstructionOptions:
    """Options of the reconstruction of hidden patches."""

    num_samples: int = option(4, minimum=1, flag="-n", help="Samples to show.")
    max_samples: int = option(256, minimum=1, help="Samples to measure errors on.")
    split: str = option("validation", help=_SPLIT_HELP)
    mask_ratio: float = option(0.75, help="Share of patches removed.")
    hide: tuple[str, ...] = option((), help="Modalities to remove whole: lores,hires_4x")
    seed: int = option(0, help="Random seed of the masks.")
    batch_size: int = option(8, minimum=1, command=False, help="Samples encoded at a time.")


@dataclass(frozen=True, kw_only=True)
class AttentionOptions:
    """Options of the measurement of attention distances."""

    num_samples: int = option(4, minimum=1, flag="-n", help="Samples to measure.")
    split: str = option("validation", help=_SPLIT_HELP)
