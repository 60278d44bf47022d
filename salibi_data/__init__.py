"""Aligned, multi-modal, multi-scale satellite datasets: from STAC catalogs to Zarr stores.

Every public name is listed once, in ``__init__.pyi``; each is loaded when it is first used, so that
importing this package loads nothing else.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
