"""Reads the pickles of GEO-Bench v1 without running any code that they name.

A pickle is a program: it names functions and calls them. Here every permitted name stands for an
inert object that keeps its arguments; any other name is refused before it is looked up. Numbers
and arrays of numpy are decoded from their bytes, so that numpy's own unpickling, which can be made
to unpickle further objects, is never called.

Source: https://docs.python.org/3/library/pickle.html#restricting-globals
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
"""Package of the benchmark: its present name, and its name when the files were made."""

_METADATA: Final = frozenset(
    {
        *(("datetime", name) for name in ("date", "datetime", "time", "timedelta", "timezone")),
        ("affine", "Affine"),
        ("rasterio.crs", "CRS"),
        ("numpy", "ndarray"),
    }
)
"""Other classes in a band's description, which are permitted and not used."""

_NUMBER: Final = re.compile(r"[biuf][1248]")
"""Numpy's type code of a boolean, integer or floating-point number."""

_FAILURES: Final = (
    *(pickle.UnpicklingError, EOFError, ImportError, AttributeError, LookupError),
    *(TypeError, ValueError, ArithmeticError, RecursionError, MemoryError),
)
"""Errors that reading a damaged pickle raises."""


class _RefusedError(pickle.UnpicklingError):
    """The pickle names something that GEO-Bench's files do not need."""


class Inert:
    """Stand-in for an object of a class that is not loaded; calling it does nothing."""

    origin: ClassVar[str] = ""
    """Full name of the class that it stands for."""

    def __new__(cls, *arguments: Any) -> Any:
        """Keep the arguments that the class would have been called with."""
        instance = super().__new__(cls)
        instance.arguments = arguments
        instance.state = None
        return instance

    arguments: tuple[Any, ...]
    state: Any
    """State of the object: its attributes by name, for most classes."""

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute of the object that was pickled."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default


class _Dtype(Inert):
    """A data type of numpy: its code and, once its state is set, its byte order."""

    def numeric(self) -> np.dtype[Any]:
        """Return the type, if it is one of plain numbers."""
        code = self.arguments[0] if self.arguments else None
        if not isinstance(code, str) or not _NUMBER.fullmatch(code):
            raise _RefusedError(f"it holds values of the type {code!r}, not numbers")
        order = ">" if isinstance(self.state, tuple) and self.state[1] == ">" else "<"
        return np.dtype(f"{order}{code}")


class _Scalar(Inert):
    """A number of numpy, converted to one of Python."""

    def __new__(cls, *arguments: Any) -> Any:
        dtype, raw = arguments
        return np.frombuffer(raw, dtype.numeric(), count=1)[0].item()


class PickledArray(Inert):
    """An array of numpy."""

    values: NDArray[Any]

    def __setstate__(self, state: Any) -> None:
        # State of numpy.ndarray.__reduce__: version, shape, type, order, bytes.
        _, shape, dtype, is_fortran, raw = state
        # A shape that does not fit the bytes is refused by reshape, before any allocation.
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
"""Modules that define them in numpy 1 and in numpy 2."""


class _InertUnpickler(pickle.Unpickler):
    """An unpickler that finds nothing but stand-ins."""

    def find_class(self, module_name: str, global_name: str) -> type[Inert]:
        """Return the stand-in of a class; never import anything."""
        if module_name in _NUMPY_MODULES.get(global_name, ()):
            kind = _NUMPY[global_name]
        elif module_name.partition(".")[0] in _PACKAGES or (module_name, global_name) in _METADATA:
            kind = Inert
        else:
            raise _RefusedError(
                f"it asks for {f'{module_name}.{global_name}'!r}, which no file of GEO-Bench needs"
            )
        # A new class each time, so that what a pickle sets on it does not outlast the pickle.
        return type(kind.__name__, (kind,), {"origin": f"{module_name}.{global_name}"})


def unpickle_inert(raw: bytes, described: str) -> Any:
    """Read a pickle into plain values and stand-ins; nothing in it is run.

    Args:
        raw: the pickle.
        described: description of the pickle for messages, such as its file.

    Returns:
        Plain values of Python, :class:`Inert` for objects, :class:`PickledArray` for arrays.

    Raises:
        StoreError: the pickle is damaged, or names anything but the classes of GEO-Bench and
            numpy's numbers; the message says what.
    """
    load: Callable[[], Any] = _InertUnpickler(io.BytesIO(raw)).load
    try:
        return load()
    # Before the general failures: _RefusedError is an UnpicklingError, too.
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
