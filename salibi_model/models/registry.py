"""Models by the name of their architecture."""

from salibi_model.models.base import PretrainModel
from salibi_model.models.config import ModelConfig


def build_model(config: ModelConfig) -> PretrainModel:
    """Build the model that ``config`` describes, with new weights from torch's seed."""
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
