from . import errors as errors
from .checkpoints.convert import convert as convert
from .checkpoints.load import load as load
from .comparison import compare as compare
from .data.dataset import StoreDataset as StoreDataset
from .data.loader import DataLoader as DataLoader
from .data.store import SampleStore as SampleStore
from .embeddings.embed import embed as embed
from .evals.attention_distance import attention_distance as attention_distance
from .evals.datasets.open import open_labelled as open_labelled
from .evals.evaluate import evaluate as evaluate
from .evals.reconstruction import reconstruct as reconstruct
from .evals.retrieval import retrieval as retrieval
from .exports.export import export as export
from .models.config import ModelConfig as ModelConfig
from .models.registry import build_model as build_model
from .training.config import TrainingConfig as TrainingConfig
from .training.trainer import train as train

__version__: str
