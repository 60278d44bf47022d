"""Read options that are written as short texts: ``sar:lores``, ``decoder:2``, ``original:1,4``."""

import math

from salibi_data.store.errors import UsageError
from salibi_model.models.config import MISTAKES


def read_pair(text: str) -> tuple[str, str]:
    """Read a pair of modalities, as ``sar:lores``."""
    left, colon, right = text.partition(":")
    if not (left and colon and right):
        raise UsageError(f"{text!r} is no pair of modalities; write one as sar:lores.")
    return left, right


def read_depth(text: str) -> tuple[str, int]:
    """Read the depth of a modality's encoder, as ``sar:6``."""
    name, _, depth = text.partition(":")
    if not (name and depth.isdecimal()):
        raise UsageError(f"{text!r} is no depth of an encoder; write one as sar:6.")
    return name, int(depth)


def read_factor(text: str) -> tuple[str, float]:
    """Read the factor on a part's learning rate, as ``decoder:2``."""
    name, _, factor = text.partition(":")
    try:
        value = float(factor)
    except ValueError:
        value = math.nan
    if not (name and math.isfinite(value) and value >= 0):
        raise UsageError(f"{text!r} is no factor on a learning rate; write one as decoder:2.")
    return name, value


def read_mistakes(compat: str) -> tuple[int, ...]:
    """Read ``original`` (all mistakes) or ``original:1,4`` (these); without text there are none."""
    if compat in ("", "original"):
        return MISTAKES if compat else ()
    name, _, listed = compat.partition(":")
    chosen = tuple(number for number in MISTAKES if str(number) in listed.split(","))
    if name != "original" or not chosen or listed != ",".join(map(str, chosen)):
        raise UsageError(
            f"no compatibility {compat!r}; write original, or original:1,4 for some of its "
            f"mistakes ({', '.join(map(str, MISTAKES))}), in order."
        )
    return chosen
