"""Reads the pickles of GEO-Bench v1 without running anything that they ask for.

A pickle is a program: it names functions and calls them. Here every name it may use leads to an
inert stand-in that keeps what it was called with; any other name is refused before it is looked
up. Numbers and arrays of numpy are decoded from their bytes by hand, so that numpy's own reading of
pickles, which can be led to unpickle further objects, is never reached.
"""

import io
import pickle
import re
from collections.abc import Callable
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from salibi_data.store.errors import StoreError
from salibi_data.store.redaction import first_line

_PACKAGES: Final = frozenset({"geobench", "ccb"})
"""The benchmark's package, by its present name and by the one it had when it was made."""

_METADATA: Final = frozenset(
    {
        *(("datetime", name) for name in ("date", "datetime", "time", "timedelta", "timezone")),
        ("affine", "Affine"),
        ("rasterio.crs", "CRS"),
        ("numpy", "ndarray"),
    }
)
"""Other classes that a band's description holds; none of them is needed here."""

_NUMBER: Final = re.compile(r"[biuf][1248]")
"""Numpy's code of a boolean, integer or floating-point type."""

_FAILURES: Final = (
    *(pickle.UnpicklingError, EOFError, ImportError, AttributeError, LookupError),
    *(TypeError, ValueError, ArithmeticError, RecursionError, MemoryError),
)
"""What a damaged pickle raises."""


class _RefusedError(pickle.UnpicklingError):
    """The pickle asks for something that its format has no need of."""


class Inert:
    """Stands for an object of a class that is not loaded; calling it does nothing."""

    origin: ClassVar[str] = ""
    """Full name of the class it stands for."""

    def __new__(cls, *arguments: Any) -> Any:
        """Keep the arguments that the class would have been called with."""
        made = super().__new__(cls)
        made.arguments = arguments
        made.state = None
        return made

    arguments: tuple[Any, ...]
    state: Any
    """What the object held: its attributes by name, for most classes."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def attribute(self, name: str, default: Any = None) -> Any:
        """Give an attribute of the object that was pickled."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default


class _Dtype(Inert):
    """A numpy data type: its code and, once its state is known, its byte order."""

    def numeric(self) -> np.dtype[Any]:
        """Give the type, if it is one of plain numbers."""
        code = self.arguments[0] if self.arguments else None
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise _RefusedError(f"it holds values of the type {code!r}, not numbers")
        order = ">" if isinstance(self.state, tuple) and self.state[1] == ">" else "<"
        return np.dtype(f"{order}{code}")


class _Scalar(Inert):
    """A number of numpy, given back as one of Python."""

    def __new__(cls, *arguments: Any) -> Any:
        dtype, raw = arguments
        return np.frombuffer(raw, dtype.numeric(), count=1)[0].item()


class PickledArray(Inert):
    """An array of numpy."""

    values: NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, is_fortran, raw = state
        values = np.frombuffer(raw, dtype.numeric())
        self.values = values.reshape(shape[::-1]).T if is_fortran else values.reshape(shape)


_NUMPY: Final[dict[str, type[Inert]]] = {
    "dtype": _Dtype,
    "scalar": _Scalar,
    "_reconstruct": PickledArray,
}
_NUMPY_MODULES: Final = {
    "dtype": ("numpy",),
    "scalar": ("numpy.core.multiarray", "numpy._core.multiarray"),
    "_reconstruct": ("numpy.core.multiarray", "numpy._core.multiarray"),
}
"""Where numpy 1 and numpy 2 keep them."""


class _InertUnpickler(pickle.Unpickler):
    """An unpickler that has no way to anything but stand-ins."""

    def find_class(self, module_name: str, global_name: str) -> type[Inert]:
        """Give the stand-in of a class; never import anything."""
        if module_name in _NUMPY_MODULES.get(global_name, ()):
            kind = _NUMPY[global_name]
        elif module_name.partition(".")[0] in _PACKAGES or (module_name, global_name) in _METADATA:
            kind = Inert
        else:
            raise _RefusedError(
                f"it asks for {f'{module_name}.{global_name}'!r}, which no file of GEO-Bench needs"
            )
        # A class of its own per reading: whatever a pickle does to it is gone with the pickle.
        return type(kind.__name__, (kind,), {"origin": f"{module_name}.{global_name}"})


def unpickle_inert(raw: bytes, described: str) -> Any:
    """Read a pickle into plain values and stand-ins; nothing in it is run.

    Args:
        raw: the pickle.
        described: what it is, for messages: its file.

    Returns:
        Plain values of Python, :class:`Inert` for objects, :class:`PickledArray` for arrays.

    Raises:
        StoreError: it is damaged, or asks for anything but the classes of GEO-Bench and numpy's
            numbers; the message names what it asked for.
    """
    load: Callable[[], Any] = _InertUnpickler(io.BytesIO(raw)).load
    try:
        return load()
    except _RefusedError as error:
        raise StoreError(
            f"{described} is refused, and nothing in it was run: {first_line(error)}. "
            "It was damaged or made to do harm; download it again from its publisher."
        ) from error
    except _FAILURES as error:
        raise StoreError(
            f"{described} is damaged: its pickle cannot be read ({first_line(error)}). "
            "Download it again."
        ) from error
