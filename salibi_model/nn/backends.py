"""Names of the attention's backends, importable without PyTorch."""

from typing import Final

BACKENDS: Final = ("auto", "dense", "flex")
"""``auto`` chooses by device; see :mod:`salibi_model.nn.attention`."""
