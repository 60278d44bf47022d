"""Finds labelled images in one folder per class, and splits them.

Images are ``<root>/<class>/<image>``, or with a split
``<root>/{train,validation,test}/<class>/<image>``; the root may lie below folders that hold
nothing else (UC Merced's ``Images/``). Folders within a class are not searched. What is left out is
counted in a warning; what systems and tools leave behind (``__MACOSX``, ``._*``, ``Thumbs.db``, GDAL's
side files) is not.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from salibi_data.store.errors import UsageError
from salibi_model.data.input_names import listed
from salibi_model.evals.datasets.labelled import SPLITS, Split

SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".tif", ".tiff"})
"""Suffixes of image files, in lower case."""
SPLIT_SHARES: Final = (0.6, 0.2, 0.2)
"""Shares of each class for training, validation and test, if the images come without a split."""

_SPLIT_FOLDERS: Final[dict[str, Split]] = {
    "train": "train",
    **dict.fromkeys(("val", "valid", "validation"), "validation"),
    "test": "test",
}
_MIN_IMAGES: Final = 3
"""Smallest number of images of a class: one for each split."""

_LEFT_BEHIND: Final = frozenset(
    {"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"}
)
"""Names, in lower case, of what systems leave in folders; those that begin with a dot count too."""
_SIDE_SUFFIXES: Final = frozenset(
    {
        ".ovr",
        ".msk",
        ".prj",
        ".wld",
        *(f".{name}w" for name in ("tf", "jg", "pg", "tif", "jpg", "png")),
    }
)
"""Suffixes of files beside an image that say more of it; and ``.aux.xml``."""
_OTHER_IMAGES: Final = frozenset(
    {*SUFFIXES, ".gif", ".bmp", ".webp", ".jp2", ".npy", ".nc", ".h5", ".hdf5", ".mat", ".heic"}
)
"""Suffixes of files that are no documents: where no class is, they are images left out."""


class LeftOutWarning(UserWarning):
    """Files of a folder are not used."""


def find_root(folder: Path) -> Path:
    """Descend through folders that hold nothing but one folder of folders."""
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder; give one with a folder of images per class.")
    subfolders = _folders(folder)
    while len(subfolders) == 1 and not _images(folder) and _folders(subfolders[0]):
        folder = subfolders[0]
        subfolders = _folders(folder)
    return folder


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in _entries(folder) if path.is_dir())


def _images(folder: Path) -> list[Path]:
    return sorted(
        path for path in _entries(folder) if path.suffix.lower() in SUFFIXES and path.is_file()
    )


def _entries(folder: Path) -> Iterator[Path]:
    """Yield what somebody has put into a folder."""
    for path in folder.iterdir():
        name = path.name.lower()
        if not name.startswith(".") and name not in _LEFT_BEHIND:
            yield path


def find_images(root: Path, seed: int) -> dict[Split, dict[str, list[Path]]]:
    """Return the images by split and class, and warn of what is left out.

    Raises:
        UsageError: there are no images, too few, only one class, or a split is missing.
    """
    split_folders = {
        _SPLIT_FOLDERS[folder.name.lower()]: folder
        for folder in _folders(root)
        if folder.name.lower() in _SPLIT_FOLDERS
    }
    if "train" not in split_folders:
        classes = _classes(root)
        _warn_of_left_out(root, [root], classes)
        return _random_split(classes, seed, root)
    missing = [split for split in SPLITS if split not in split_folders]
    if missing:
        raise UsageError(
            f"{root} has a folder of training images, but none for {' and '.join(missing)}; give "
            f"it {', '.join(SPLITS)}, or none of them and a split is drawn."
        )
    by_split = {split: _classes(split_folders[split]) for split in SPLITS}
    for split in SPLITS:
        untrained = sorted(set(by_split[split]) - set(by_split["train"]))
        if untrained:
            raise UsageError(
                f"{split_folders[split]} has classes that {split_folders['train']} lacks: "
                f"{', '.join(untrained)}."
            )
    used = {
        path.parent.as_posix(): [path] for each in by_split.values() for (path, *_) in each.values()
    }
    _warn_of_left_out(root, [root, *split_folders.values()], used)
    return by_split


def _warn_of_left_out(root: Path, above: list[Path], classes: Mapping[str, list[Path]]) -> None:
    """Warn of files of other suffixes, images outside of the classes, and folders in these.

    Args:
        root: the root, for the message.
        above: the folders that hold folders of splits or classes.
        classes: images of each class, one at least.
    """
    class_folders = [paths[0].parent for paths in classes.values() if paths]
    used = {*above, *class_folders}
    counts: Counter[str] = Counter()
    folders: list[str] = []
    for folder in (*above, *class_folders):
        in_class = folder not in above
        for path in sorted(_entries(folder)):
            suffix = path.suffix.lower()
            if path.is_dir():
                folders += [path.relative_to(root).as_posix()] if path not in used else []
            elif not in_class:
                counts[suffix] += suffix in _OTHER_IMAGES
            elif suffix not in SUFFIXES and not _is_side_file(path):
                counts[suffix or "no suffix"] += 1
    if number := counts.total():
        by_suffix = ", ".join(f"{name} {count}" for name, count in counts.most_common() if count)
        warnings.warn(
            f"{root}: left out {number} {'file' if number == 1 else 'files'}: {by_suffix}. Images are "
            f"{', '.join(sorted(SUFFIXES))} in the folders of their classes.",
            LeftOutWarning,
            stacklevel=4,
        )
    if folders:
        warnings.warn(
            f"{root}: left out {len(folders)} {'folder' if len(folders) == 1 else 'folders'}: "
            f"{listed(folders)}. Folders within a class, or beside those of the splits, are not "
            "searched.",
            LeftOutWarning,
            stacklevel=4,
        )


def _is_side_file(path: Path) -> bool:
    return path.suffix.lower() in _SIDE_SUFFIXES or path.name.lower().endswith(".aux.xml")


def _classes(folder: Path) -> dict[str, list[Path]]:
    """Return the images of each class folder."""
    classes = {each.name: _images(each) for each in _folders(folder)}
    empty = [name for name, paths in classes.items() if not paths]
    if not classes or len(empty) == len(classes):
        raise UsageError(
            f"{folder} holds no images in folders named for their classes; give a folder such as "
            f"{folder.name}/<class>/<image> with {', '.join(sorted(SUFFIXES))}, or that of a "
            "GEO-Bench task."
        )
    if empty:
        raise UsageError(
            f"{folder / empty[0]} holds no images ({', '.join(sorted(SUFFIXES))}); fill it or "
            "remove it."
        )
    if len(classes) == 1:
        raise UsageError(
            f"{folder} has images of one class alone, {next(iter(classes))!r}; a classification "
            "needs two."
        )
    return classes


def _random_split(
    classes: dict[str, list[Path]], seed: int, root: Path
) -> dict[Split, dict[str, list[Path]]]:
    """Split each class at random, by the hash of names: adding an image moves few others."""
    by_split: dict[Split, dict[str, list[Path]]] = {split: {} for split in SPLITS}
    for name, paths in classes.items():
        if len(paths) < _MIN_IMAGES:
            raise UsageError(
                f"{root / name} holds {len(paths)} of the {_MIN_IMAGES} images that training, "
                "validation and test need at least; add some, or remove the class."
            )
        # By class and name, not by the path: a copy in another folder has the same split.
        order = sorted(paths, key=lambda path: _sha256(f"{seed}/{path.parent.name}/{path.name}"))
        _, validation, test = (max(1, round(share * len(paths))) for share in SPLIT_SHARES)
        by_split["test"][name] = sorted(order[:test])
        by_split["validation"][name] = sorted(order[test : test + validation])
        by_split["train"][name] = sorted(order[test + validation :])
    return by_split


def _sha256(text: str) -> bytes:
    # Names of files need not be UTF-8; Python keeps their bytes as surrogates.
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
