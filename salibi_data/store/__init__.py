"""The floor that both halves stand on: the contract, errors, tiles, storage and files."""

from salibi_data.store import errors as errors

__version__ = "0.1.0"
"""Version of the software, as stores, checkpoints and exports record it."""
