"""Models by the name of their architecture."""

from salibi_model.models.base import PretrainModel
from salibi_model.models.config import ModelConfig


def build_model(config: ModelConfig) -> PretrainModel:
    """Build the model that ``config`` describes, with new weights from torch's seed.

    Args:
        config: description of the model.

    Raises:
        UsageError: the architecture does not allow such a description.

    Example:
        >>> from salibi_model.models.config import Size
        >>> modalities = salibi_model.SampleStore(store_path).attributes.modalities
        >>> size = Size(dim=32, depth=1, num_heads=2, decoder_dim=16)
        >>> config = ModelConfig(size=size, modalities=(modalities["sar"], modalities["lores"]))
        >>> salibi_model.build_model(config)
        ScaleAlibi(sar 2 x 256 px, lores 3 x 256 px; patch 16 px, dim 32, depth 1; ... parameters)
    """
    match config.architecture:
        case "scale-mae":
            from salibi_model.models.scale_mae import ScaleMae

            return ScaleMae(config)
        case "original":
            from salibi_model.models.original import OriginalScaleAlibi

            return OriginalScaleAlibi(config)
        case _:
            from salibi_model.models.scale_alibi import ScaleAlibi

            return ScaleAlibi(config)
