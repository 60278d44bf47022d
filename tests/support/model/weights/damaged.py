"""Damage to checkpoints, and how it is explained."""

from __future__ import annotations


def one_line(caught, path):
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 600
    assert str(path) in said
    return said
