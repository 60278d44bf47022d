"""Splits samples into training, validation and test by blocks of parent tiles, with a guard.

Neighbouring tiles look alike and share source pixels at their common edge. If tiles were split one by
one, a model would be tested on what it was trained on. So whole blocks go to one split, and a tile
that touches a block of another split is left out.

With ``by = "scenes"`` in a variant, blocks that share a scene or touch go to one split together, so
that no scene is in two splits. This needs regions that lie far apart: one compact area is a single
cluster.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Final

import numpy as np

from salibi_data.store.errors import SelectionError
from salibi_data.store.schema import SPLITS
from salibi_data.store.tiles import tile_ids

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from salibi_data.catalog.variants import Variant
    from salibi_data.plans.picks import CellSelection

Block = tuple[int, int]
"""Column and row of a block of parent tiles."""

_GOLDEN: Final = (math.sqrt(5) - 1) / 2
_NEIGHBOURS: Final = [(dx, dy) for dx in (-1, 0, 1) for dy in (-1, 0, 1) if (dx, dy) != (0, 0)]


def assign(variant: Variant, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Assign each tile at the variant's base zoom to a split, from its block alone.

    Block k on the Hilbert curve gets the position ``frac(k * golden ratio)``, a low-discrepancy
    sequence, so that any compact area has nearly the shares of the variant.

    Args:
        variant: variant with the base zoom, the block size and the shares.
        x: tile columns, shape (N,).
        y: tile rows, shape (N,).

    Returns:
        Codes of :data:`salibi_data.store.schema.SPLITS`, shape (N,).
    """
    offset = variant.split_zoom_offset
    num_blocks = 1 << (variant.base_zoom - offset)
    # The neighbour of an outermost tile lies beyond the grid: columns wrap around, rows do not.
    block_x = (np.asarray(x) >> offset) % num_blocks
    block_y = np.clip(np.asarray(y) >> offset, 0, num_blocks - 1)
    position = np.mod(tile_ids(variant.base_zoom - offset, block_x, block_y) * _GOLDEN, 1.0)
    codes = np.full(position.shape, SPLITS["train"], dtype=np.uint8)
    codes[position < variant.test_share + variant.validation_share] = SPLITS["validation"]
    codes[position < variant.test_share] = SPLITS["test"]
    return codes


def outside_guard(
    variant: Variant, x: NDArray[np.int64], y: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Tell for each tile whether it may be used, or lies in the guard between splits; shape (N,).

    Test tiles may all be used. Validation tiles that touch a test block, and training tiles that
    touch a validation or test block, lie in the guard.
    """
    x, y = np.asarray(x), np.asarray(y)
    edge = 1 << variant.split_zoom_offset
    # Splits are decided once per block and its neighbours, not once per tile and its neighbours.
    block = np.stack([x // edge, y // edge])
    num_columns = int(block[0].max(initial=0)) + 1
    places, of_tile = np.unique(block[1] * num_columns + block[0], return_inverse=True)
    block_y, block_x = np.divmod(places, num_columns)

    def codes(dx: int, dy: int) -> NDArray[np.uint8]:
        return assign(variant, (block_x + dx) * edge, (block_y + dy) * edge)

    own = codes(0, 0)
    usable = np.ones(x.shape, dtype=bool)
    for dx, dy in _NEIGHBOURS:
        held_back_further = (codes(dx, dy) > own)[of_tile]
        usable &= ~(held_back_further & _touches(x % edge, dx, edge) & _touches(y % edge, dy, edge))
    return usable


def _touches(offset: NDArray[np.int64], step: int, edge: int) -> NDArray[np.bool_]:
    """Tell for each tile whether it touches the next block in a direction, shape (N,)."""
    if step == 0:
        return np.ones(offset.shape, dtype=bool)
    touches: NDArray[np.bool_] = offset == (0 if step < 0 else edge - 1)
    return touches


def assign_or_guard(
    variant: Variant, x: NDArray[np.int64], y: NDArray[np.int64]
) -> NDArray[np.uint8]:
    """Split code of each tile, that of the guard included; shape (N,)."""
    codes = np.where(outside_guard(variant, x, y), assign(variant, x, y), SPLITS["guard"])
    return codes.astype(np.uint8)


class SceneClusters:
    """Clusters of blocks that must share a split, because they share a scene or touch.

    Filled cell by cell; the size grows with blocks and scenes, and not with tiles.
    """

    def __init__(self, variant: Variant) -> None:
        self._variant = variant
        self._size: Counter[Block] = Counter()
        self._parent: dict[Block | str, Block | str] = {}

    def add(self, picks: CellSelection) -> None:
        """Add the blocks of some tiles, and their scenes."""
        block = self._blocks(picks.tiles.x, picks.tiles.y)
        for name, code in picks.code.items():
            for x, y, number in np.unique(np.column_stack([block, code]), axis=0).tolist():
                for scene in picks.sets[name][number]:
                    self._join((x, y), f"{name} {scene.id}")
        for (x, y), count in zip(*_counted(block), strict=True):
            self._size[x, y] += count

    def assign(self) -> Mapping[Block, int]:
        """Split code of each block: clusters, the largest first, go where most is missing.

        Raises:
            SelectionError: there are too few clusters for every split that has a share.
        """
        for x, y in self._size:
            for dx, dy in _NEIGHBOURS:
                if (x + dx, y + dy) in self._size:
                    self._join((x, y), (x + dx, y + dy))
        members: dict[Block | str, list[Block]] = {}
        for block in sorted(self._size):
            members.setdefault(self._root(block), []).append(block)
        clusters = sorted(
            members.values(), key=lambda blocks: (-sum(self._size[b] for b in blocks), blocks[0])
        )
        test, validation = self._variant.test_share, self._variant.validation_share
        shares = {"train": 1 - test - validation, "validation": validation, "test": test}
        missing = {SPLITS[name]: share * self._size.total() for name, share in shares.items()}
        wanted = {SPLITS[name] for name, share in shares.items() if share > 0}
        codes: dict[Block, int] = {}
        for blocks in clusters:
            code = max(missing, key=lambda split: (missing[split], -split))
            missing[code] -= sum(self._size[block] for block in blocks)
            codes.update(dict.fromkeys(blocks, code))
        empty = [name for name, code in SPLITS.items() if code in wanted - set(codes.values())]
        if empty:
            raise SelectionError(
                f"the samples form {len(clusters)} clusters that share scenes or touch, too few to "
                f"leave any for {' and '.join(empty)}; take regions farther apart, shares of 0, or "
                'split_by = "blocks".'
            )
        return codes

    def split(
        self, codes: Mapping[Block, int], x: NDArray[np.int64], y: NDArray[np.int64]
    ) -> NDArray[np.uint8]:
        """Split code of each tile, shape (N,), from :meth:`assign`'s answer."""
        blocks, inverse = np.unique(self._blocks(x, y), axis=0, return_inverse=True)
        of_block = np.array([codes[column, row] for column, row in blocks.tolist()], dtype=np.uint8)
        return of_block[inverse]

    def _blocks(self, x: NDArray[np.int64], y: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.stack([x, y], axis=1) >> self._variant.split_zoom_offset

    def _root(self, node: Block | str) -> Block | str:
        path = []
        while (above := self._parent.setdefault(node, node)) != node:
            path.append(node)
            node = above
        for passed in path:
            self._parent[passed] = node
        return node

    def _join(self, block: Block | str, other: Block | str) -> None:
        self._parent[self._root(block)] = self._root(other)


def _counted(rows: NDArray[np.int64]) -> tuple[list[list[int]], list[int]]:
    unique, counts = np.unique(rows, axis=0, return_counts=True)
    return unique.tolist(), counts.tolist()


def leakage(
    split: NDArray[np.uint8], items: Mapping[str, Iterable[Iterable[str]]]
) -> dict[str, dict[str, float]]:
    """Measure how many scenes held-out samples share with training samples.

    Args:
        split: code of each sample, shape (N,).
        items: per sensor the ids of the scenes each sample is made from.

    Returns:
        Per sensor with known scenes: ``scenes``; ``scenes_in_several_splits``; and the share of
        validation and test samples made from a scene that training samples use as well (0 without
        such samples). Samples of the guard do not count.
    """
    report = {}
    used = split != SPLITS["guard"]
    for sensor, lists in items.items():
        sets = [frozenset(ids) for ids, counts in zip(lists, used, strict=True) if counts]
        if not any(sets):
            continue
        codes_of = split[used].tolist()
        seen: dict[str, set[int]] = {}
        for code, ids in zip(codes_of, sets, strict=True):
            for name in ids:
                seen.setdefault(name, set()).add(code)
        trained = {name for name, codes in seen.items() if SPLITS["train"] in codes}
        held_out = [ids for code, ids in zip(codes_of, sets, strict=True) if code]
        leaking = sum(not trained.isdisjoint(ids) for ids in held_out)
        report[sensor] = {
            "scenes": len(seen),
            "scenes_in_several_splits": sum(len(codes) > 1 for codes in seen.values()),
            "held_out_samples_sharing_a_training_scene": leaking / max(1, len(held_out)),
        }
    return report


def num_leaking_neighbours(
    x: NDArray[np.int64], y: NDArray[np.int64], split: NDArray[np.uint8]
) -> int:
    """Number of pairs of tiles that touch, corners included, and are in different splits."""
    used = split != SPLITS["guard"]
    tiles = zip(x[used].tolist(), y[used].tolist(), strict=True)
    codes = dict(zip(tiles, split[used].tolist(), strict=True))
    forward = [(1, 0), (0, 1), (1, 1), (1, -1)]
    return sum(
        codes.get((column + dx, row + dy), code) != code
        for (column, row), code in codes.items()
        for dx, dy in forward
    )
