"""
Execution providers: their names, and the options that decide what numbers they give and how they hold memory.

In: what the caller asked for. Out: `Provider` entries as ONNX Runtime wants them. What the caller says of an option
stands; what he leaves open is set here where ONNX Runtime's own default would change numbers unasked (TF32 on CUDA, bf16
on OpenVINO) or fits a fixed shape only (CUDA's search for convolutions, its arena's growth).

TensorRT: untested by this project. Its options are generated (`tensorrt_options`) and tested as text; no part of the
provider has ever been run here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from camrt.export.manifest import Manifest, Program

from .errors import OutputError, ProviderError

__all__ = [
    "BUCKETS",
    "CPU",
    "CUDA",
    "OPENVINO",
    "TENSORRT",
    "TENSORRT_NOTE",
    "Provider",
    "bucket_of",
    "parse_providers",
    "private_folder",
    "shapes_of",
    "tensorrt_options",
    "tuned",
]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT, OPENVINO = "TensorrtExecutionProvider", "OpenVINOExecutionProvider"
TENSORRT_NOTE = "TensorRT: untested by this project"
BUCKETS = (1, 4, 16, 32)  # batch sizes that engines and CUDA graphs are made for; what lies between is filled up

_ALIASES = {"cpu": CPU, "cuda": CUDA, "tensorrt": TENSORRT, "openvino": OPENVINO}
_HINTS = {"float32": "f32", "bfloat16": "bf16"}  # INFERENCE_PRECISION_HINT


@dataclass(frozen=True)
class Provider:
    """An execution provider and its options, as ONNX Runtime wants them."""

    name: str
    options: Mapping[str, str] = field(default_factory=dict)


def parse_providers(providers: str | Sequence[str | tuple[str, Mapping[str, Any]]] | None) -> tuple[Provider, ...]:
    """
    Read a provider list.

    Parameters
    ----------
    providers : str, sequence or None
        ``"cuda,cpu"``, ``["cuda", "cpu"]``, ``[("CUDAExecutionProvider", {"device_id": 1})]``; None is the CPU.
        Short names are cpu, cuda, tensorrt (untested by this project) and openvino.

    Returns
    -------
    tuple of Provider
        In order of preference, each once.

    Raises
    ------
    ProviderError
        If the list is empty, or an entry is not a name with options.

    Examples
    --------
    >>> [p.name for p in parse_providers("cpu")]
    ['CPUExecutionProvider']
    """
    if providers is None:
        providers = ["cpu"]
    items = [p.strip() for p in providers.split(",") if p.strip()] if isinstance(providers, str) else list(providers)
    parsed: dict[str, Provider] = {}
    for item in items:
        pair = (item, {}) if isinstance(item, str) else item
        if not isinstance(pair, (tuple, list)) or len(pair) != 2 or not isinstance(pair[0], str) or not pair[0]:
            raise ProviderError(f"a provider is a name or (name, options), {item!r} came")
        name, options = pair
        if not isinstance(options, Mapping):
            raise ProviderError(f"options of provider {name!r} are a mapping, {options!r} came")
        full = _ALIASES.get(name.lower(), name)
        parsed[full] = Provider(full, {str(k): str(v) for k, v in options.items()})
    if not parsed:
        raise ProviderError(f"at least one execution provider was wanted: {', '.join(_ALIASES)}; an empty list came")
    return tuple(parsed.values())


def tuned(provider: Provider, precision: str = "float32") -> Provider:
    """
    Fill in the options that the caller left open.

    Parameters
    ----------
    provider : Provider
        As the caller asked for it.
    precision : str, default "float32"
        As in `camrt.load`.

    Returns
    -------
    Provider
        CUDA: TF32 only for precision "tf32", an arena that grows by what is asked for, the quick search for
        convolutions, which does not start again for every batch size. OpenVINO: its precision, said explicitly. Others
        as they came.

    Examples
    --------
    >>> tuned(Provider("CUDAExecutionProvider")).options["use_tf32"]
    '0'
    """
    defaults: dict[str, str] = {}
    if provider.name == CUDA:
        defaults = {
            "use_tf32": str(int(precision == "tf32")),
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": "HEURISTIC",
        }
    elif provider.name == OPENVINO:
        device = provider.options.get("device_type", "CPU")
        hint = {device: {"INFERENCE_PRECISION_HINT": _HINTS.get(precision, "f32")}}
        defaults = {"device_type": device, "load_config": json.dumps(hint)}
    return replace(provider, options={**defaults, **provider.options})


def bucket_of(n: int, buckets: Sequence[int] = BUCKETS) -> int:
    """
    Return the batch size that `n` rows are filled up to.

    Parameters
    ----------
    n : int
        Rows, at least 1.
    buckets : sequence of int
        Sizes in rising order.

    Returns
    -------
    int
        The smallest bucket that holds them; `n` itself above the largest.

    Examples
    --------
    >>> bucket_of(5), bucket_of(40)
    (16, 40)
    """
    return next((bucket for bucket in buckets if bucket >= n), n)


# TensorRT --------------------------------------------------------------------------------------------------------


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
            f"{TENSORRT_NOTE}: it needs the shape of every input, that of {unknown[0]!r} of the {program.kind} program is "
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
        raise ProviderError(f"{TENSORRT_NOTE}: it takes float32 or float16 programs; {precision!r} was asked for")
    lacking = [name for name in ("onnxruntime", "tensorrt", "gpu") if not versions.get(name)]
    if lacking:
        raise ProviderError(f"{TENSORRT_NOTE}: its cache depends on the version of {lacking[0]}, which is not known")
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
