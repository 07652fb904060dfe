"""
TensorRT: untested by this project.

In: a manifest, a program, and what an engine is built for. Out: options of ONNX Runtime's TensorRT provider. They are
generated here and tested as text; no part of the provider has ever been run by this project, and nothing chooses it but
the caller's own word. Only options that are compiled into ONNX Runtime 1.31.1 are used.
"""

from __future__ import annotations

import ctypes
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

from camrt.export.manifest import Manifest, Program

from .errors import OutputError, ProviderError
from .providers import BUCKETS, TENSORRT, Provider

__all__ = ["NOTE", "private_folder", "shapes_of", "tensorrt_for", "tensorrt_options"]

NOTE = "TensorRT: untested by this project"
LIBRARY = "libnvinfer.so.10"  # that ONNX Runtime 1.31 is linked with; it tells its own version
WHO_KNOWS = {
    "onnxruntime": "the package tells it",
    "tensorrt": f"{LIBRARY} tells it",
    "gpu": "CuPy tells it, where there is one",
}


def tensorrt_for(
    provider: Provider, manifest: Manifest, program: Program, *, onnxruntime: str, gpu: str, precision: str
) -> Provider:
    """
    Complete the provider for one program. TensorRT: untested by this project.

    Parameters
    ----------
    provider : Provider
        As the caller asked for it; what he says of an option stands. ``trt_engine_cache_path`` is the folder of all
        caches, ``~/.cache/camrt/tensorrt`` where it is absent.
    manifest : Manifest
        The model.
    program : Program
        The program.
    onnxruntime, gpu : str
        Version and device.
    precision : str
        As in `camrt.load`.

    Returns
    -------
    Provider
        With profiles and a cache of its own, whose folder is made.

    Raises
    ------
    ProviderError
        As `tensorrt_options`; the version of TensorRT is what its library says.
    OutputError
        If the cache's folder cannot be made.

    Warns
    -----
    RuntimeWarning
        That the project has never run it.
    """
    cache = Path(provider.options.get("trt_engine_cache_path", Path.home() / ".cache" / "camrt" / "tensorrt"))
    versions = {"onnxruntime": onnxruntime, "tensorrt": _installed(), "gpu": gpu}
    made = tensorrt_options(manifest, program, cache=cache, versions=versions, precision=precision)
    warnings.warn(f"{NOTE}; compare with `camrt compare --provider cpu tensorrt` first", RuntimeWarning, stacklevel=2)
    private_folder(made["trt_engine_cache_path"])
    paths = {name: made[name] for name in ("trt_engine_cache_path", "trt_timing_cache_path")}
    return replace(provider, name=TENSORRT, options={**made, **provider.options, **paths})


def _installed() -> str:
    """Return the version of the TensorRT that loads, or nothing."""
    try:
        return str(ctypes.CDLL(LIBRARY).getInferLibVersion())
    except (OSError, AttributeError):
        return ""


def shapes_of(manifest: Manifest, program: Program) -> dict[str, tuple[int | str, ...]]:
    """
    Return the shape of every input of a program, the batch as ``"N"``.

    Parameters
    ----------
    manifest : Manifest
        The model.
    program : Program
        One of its programs.

    Returns
    -------
    dict of str to tuple
        By input, in order.

    Raises
    ------
    ProviderError
        If the manifest does not say the shape of an input: what a tail needs beside its layer.
    """
    layers = {layer.name: layer for layer in manifest.layers}
    shapes: dict[str, tuple[int | str, ...]] = {
        "x": tuple(manifest.input["shape"]),
        "target": ("N",),
        "seed": ("N", manifest.classes),
    }
    for i, name in enumerate(program.layers):
        shapes[f"activations.{i}"] = ("N", layers[name].channels, *layers[name].grid)
    if manifest.batch is not None:
        shapes = {name: tuple(manifest.batch if d == "N" else d for d in shape) for name, shape in shapes.items()}
    unknown = [name for name in program.inputs if name not in shapes]
    if unknown:
        raise ProviderError(
            f"{NOTE}: it needs the shape of every input, that of {unknown[0]!r} of the {program.kind} program is "
            "not known; ask for cuda, or for a layer that everything passes through"
        )
    return {name: shapes[name] for name in program.inputs}


def tensorrt_options(
    manifest: Manifest,
    program: Program,
    *,
    cache: str | os.PathLike[str],
    versions: Mapping[str, str],
    buckets: Sequence[int] = BUCKETS,
    precision: str = "float32",
) -> dict[str, str]:
    """
    Return the TensorRT provider's options for one program. TensorRT: untested by this project.

    One engine serves every batch from the smallest bucket to the largest, tuned for the largest. Its cache is kept apart by
    everything that an engine depends on, because TensorRT does not notice a change of the model by itself.

    Parameters
    ----------
    manifest : Manifest
        The model; its sha256 is part of the cache's path.
    program : Program
        The program, whose inputs get profiles.
    cache : path
        The folder of all caches.
    versions : mapping of str to str
        ``onnxruntime``, ``tensorrt`` and ``gpu``: what an engine is built for.
    buckets : sequence of int
        Batch sizes in rising order.
    precision : {"float32", "float16"}
        float16 is in the graph already (`camrt.export.half`); TensorRT's own switches are not used.

    Returns
    -------
    dict of str to str
        Provider options; nothing is written.

    Raises
    ------
    ProviderError
        If an input's shape is not known, a version is missing, or the precision is another.

    Notes
    -----
    The provider has no switch for TF32: set the environment variable ``NVIDIA_TF32_OVERRIDE=0`` to forbid it.
    """
    if precision not in ("float32", "float16"):
        raise ProviderError(f"{NOTE}: it takes float32 or float16 programs; {precision!r} was asked for")
    lacking = [name for name in ("onnxruntime", "tensorrt", "gpu") if not versions.get(name)]
    if lacking:
        raise ProviderError(
            f"{NOTE}: its cache depends on the version of {lacking[0]}, which is not known ({WHO_KNOWS[lacking[0]]}); "
            "mend that, or ask for cuda or cpu"
        )
    if not buckets or list(buckets) != sorted(set(buckets)) or buckets[0] < 1:
        raise ProviderError(f"batch buckets are rising numbers from 1; {list(buckets)} came")
    shapes = shapes_of(manifest, program)
    apart = "\n".join([*(versions[name] for name in ("onnxruntime", "tensorrt", "gpu")), precision, str(list(buckets))])
    layers = sha256("\n".join(program.layers).encode()).hexdigest()[:8]
    folder = Path(cache) / manifest.model["sha256"] / sha256(apart.encode()).hexdigest()[:16]
    options = {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(folder),
        "trt_engine_cache_prefix": f"{program.kind}_{layers}",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(folder),
    }
    dynamic = {name: shape for name, shape in shapes.items() if any(isinstance(d, str) for d in shape)}
    if dynamic:
        sizes = {"min": buckets[0], "opt": buckets[-1], "max": buckets[-1]}
        for which, n in sizes.items():
            sides = (
                f"{name}:{'x'.join(str(n if isinstance(d, str) else d) for d in s)}" for name, s in dynamic.items()
            )
            options[f"trt_profile_{which}_shapes"] = ",".join(sides)
    return options


def private_folder(path: str | os.PathLike[str]) -> Path:
    """
    Make a folder that its owner alone may enter: engines in a cache are code that will be run.

    Parameters
    ----------
    path : path
        The folder; parents are made as well.

    Returns
    -------
    Path
        The folder, of mode 0700.

    Raises
    ------
    OutputError
        If it cannot be made, is not the caller's own, or is a link.
    """
    folder = Path(path)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if folder.is_symlink() or (hasattr(os, "getuid") and folder.stat().st_uid != os.getuid()):
            raise OutputError(f"a cache folder of one's own was wanted; {str(folder)!r} is a link or another user's")
        folder.chmod(0o700)
    except OSError as error:
        raise OutputError(f"the cache folder {str(folder)!r} cannot be made: {error.strerror}") from error
    return folder
