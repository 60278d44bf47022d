"""Scale-ALiBi: train on Salibi stores, evaluate, and give out embeddings.

Every public name is listed once, in ``__init__.pyi``; each is loaded when it is first used, so that
importing this package loads nothing else.
"""

import lazy_loader

from salibi_data.store import __version__ as __version__

__getattr__, _, __all__ = lazy_loader.attach_stub(__name__, __file__)
__all__ += ["__version__"]


def __dir__() -> list[str]:
    return sorted(__all__)
