"""Damage to checkpoints, and how it is explained."""

from __future__ import annotations


def one_line(caught, path):
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 600
    assert str(path) in message
    return message
