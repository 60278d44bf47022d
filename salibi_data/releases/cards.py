"""Cards of a published store: dataset card, figure, STAC and Croissant metadata."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from salibi_data.releases.croissant import croissant
from salibi_data.releases.dataset_card import dataset_card
from salibi_data.releases.facts import release_facts
from salibi_data.releases.stac_collection import stac_collection

if TYPE_CHECKING:
    from collections.abc import Mapping

    from salibi_data.store.open import StoreFiles
    from salibi_data.store.schema import Release

CARD_NAME: Final = "README.md"
FIGURE_NAME: Final = "samples.jpg"
COLLECTION_NAME: Final = "collection.json"
CROISSANT_NAME: Final = "croissant.json"


def cards_of(files: StoreFiles, release: Release, *, figure: bytes | None) -> dict[str, bytes]:
    """Make every card of a store, by its file name.

    Equal stores have equal cards: no card states the time or the address of publishing.

    Args:
        files: files of the store.
        release: release that the store is published as.
        figure: JPEG of some samples.
    """
    facts = release_facts(files, release, has_figure=figure is not None)
    cards = {
        CARD_NAME: dataset_card(facts, figure=FIGURE_NAME).encode(),
        COLLECTION_NAME: _as_json(stac_collection(facts, card=CARD_NAME)),
        CROISSANT_NAME: _as_json(croissant(facts)),
    }
    return cards if figure is None else {**cards, FIGURE_NAME: figure}


def _as_json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
