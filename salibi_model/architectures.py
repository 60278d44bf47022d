"""The class of each architecture."""

from salibi_model.config import ModelConfig
from salibi_model.interface import PretrainModel


def build_model(config: ModelConfig) -> PretrainModel:
    """Make the model that ``config`` describes, with new weights from torch's seed."""
    match config.architecture:
        case "scale-mae":
            from salibi_model.scale_mae import ScaleMae

            return ScaleMae(config)
        case "original":
            from salibi_model.original import OriginalScaleAlibi

            return OriginalScaleAlibi(config)
        case _:
            from salibi_model.pretrain import ScaleAlibi

            return ScaleAlibi(config)
