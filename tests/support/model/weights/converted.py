"""Files in the layout of published weights, converted."""

from __future__ import annotations

import torch

import salibi_model
from salibi_model.checkpoints.convert import convert

HEADS = 4


def written(content, path):
    torch.save(content, path)
    return path


def converted(content, tmp_path, *, num_heads=HEADS):
    convert(written(content, tmp_path / "file.pth"), tmp_path / "out", num_heads=num_heads)
    return salibi_model.load(tmp_path / "out")
