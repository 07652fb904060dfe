"""
Explanations on disk.

Any number of explanations, one after another, go in; overlays, arrays and one manifest come out in a folder. File
names are made from names that users and models give, so they are cleaned, and kept apart where they meet, also on file
systems that ignore case.
"""

from __future__ import annotations

import io
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .atomic import write_bytes
from .colormap import COLORMAPS
from .errors import MethodError
from .render import png

if TYPE_CHECKING:
    from .explanation import Explanation

__all__ = ["SCHEMA", "save_all"]

SCHEMA = "camrt.explanations/1"  # raised when a field changes its meaning
LONGEST = 60  # letters of an image's or a target's name in a file name; with the method far below 255 bytes

_UNSAFE = re.compile(r"[^\w.+-]+")


class _FileNames:
    """Hands out each name once."""

    def __init__(self) -> None:
        self._taken = {"manifest"}

    def unique(self, wanted: str) -> str:
        """Return `wanted`, or `wanted` with the first free number."""
        name, number = wanted, 2
        while name.casefold() in self._taken:
            name, number = f"{wanted}_{number}", number + 1
        self._taken.add(name.casefold())
        return name


def save_all(
    explanations: Iterable[Explanation],
    folder: str | os.PathLike[str],
    *,
    overlays: bool = True,
    colormap: str = "jet",
) -> list[Path]:
    """
    Write explanations to one folder, with one manifest.

    Parameters
    ----------
    explanations : iterable of Explanation
        Written as they come, so a generator needs the memory of one.
    folder : str or path-like
        Made if it is missing; files of the same names are replaced.
    overlays : bool, default True
        Draw and write an overlay for each image and target.
    colormap : {"jet", "viridis"}, default "jet"
        The overlays' colours.

    Returns
    -------
    list of pathlib.Path
        What was written, the manifest last.

    Raises
    ------
    OutputError
        If a file cannot be written.
    MethodError
        If the colormap does not exist.
    """
    if colormap not in COLORMAPS:
        raise MethodError(f"no colormap is called {colormap!r}; there are {', '.join(COLORMAPS)}")
    root, names = Path(folder), _FileNames()
    written: list[Path] = []
    entries = []
    for explanation in explanations:
        images = []
        for i in range(len(explanation.names)):
            files, entry = _image(explanation, i, names, colormap if overlays else None)
            written += [write_bytes(root / name, data) for name, data in files.items()]
            images.append(entry)
        entries.append(_entry(explanation, images))
    manifest = json.dumps(
        _plain({"schema": SCHEMA, "explanations": entries}), indent=1, allow_nan=False, ensure_ascii=False
    )
    return [*written, write_bytes(root / "manifest.json", manifest.encode("utf-8", "replace"))]


def _entry(explanation: Explanation, images: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what the manifest says of one explanation."""
    return {
        "method": explanation.method,
        "variant": explanation.variant,
        "options": explanation.options,
        "layers": explanation.layers,
        "pipeline": explanation.pipeline,
        "provenance": explanation.provenance,
        "images": images,
    }


def _image(
    explanation: Explanation, image: int, names: _FileNames, colormap: str | None
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Return the files of one image, by name, and what the manifest says of it."""
    stem = names.unique(f"{_clean(explanation.names[image], 'image')}_{_clean(explanation.method, 'method')}")
    files = {f"{stem}.npy": _npy(explanation.heatmaps[image])}
    raw = f"{names.unique(f'{stem}_raw')}.npy"
    files[raw] = _npy(explanation.raw[image])
    entry: dict[str, Any] = {"name": explanation.names[image], "heatmaps": f"{stem}.npy", "raw": raw}
    if explanation.raw_input is not None:
        entry["raw_input"] = f"{names.unique(f'{stem}_raw_input')}.npy"
        files[entry["raw_input"]] = _npy(explanation.raw_input[image])
    targets = []
    for t in range(explanation.targets.shape[1]):
        target = {
            "class": explanation.targets[image, t],
            "label": explanation.labels[image][t],
            "value": explanation.values[image, t],
            "probability": explanation.probabilities[image, t],
            "degenerate": explanation.degenerate[image, t],
            "flags": {name: flag[image, t] for name, flag in explanation.flags.items()},
        }
        if colormap is not None:
            label = _clean(explanation.labels[image][t].split(",")[0], "target")
            target["overlay"] = f"{names.unique(f'{stem}_{label}')}.png"
            files[target["overlay"]] = png(explanation.overlay(image, t, colormap=colormap))
        targets.append(target)
    return files, {**entry, "predicted": int(explanation.logits[image].argmax()), "targets": targets}


def _clean(name: str, otherwise: str) -> str:
    """Return a name that every file system takes, and that no shell or browser reads as a path."""
    safe = _UNSAFE.sub("_", name).strip("._-")
    while len(safe.encode("utf-8", "replace")) > LONGEST:
        safe = safe[:-1]
    return safe or otherwise


def _npy(array: Any) -> bytes:
    """Return an array as a .npy file."""
    file = io.BytesIO()
    np.save(file, np.ascontiguousarray(array), allow_pickle=False)
    return file.getvalue()


def _plain(value: Any) -> Any:
    """Return a value as JSON has it; NaN and infinity become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return _plain(value.tolist())
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
