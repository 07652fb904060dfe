"""
Execution providers: their names, and the options that decide what numbers they give and how they hold memory.

In: what the caller asked for. Out: `Provider` entries as ONNX Runtime wants them. What the caller says of an option
stands; what he leaves open is set here where ONNX Runtime's own default would change numbers unasked (TF32 on CUDA, bf16
on OpenVINO) or fits a fixed shape only (CUDA's search for convolutions, its arena's growth).

TensorRT's are in `camrt.tensorrt`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .errors import ProviderError

__all__ = [
    "BUCKETS",
    "CPU",
    "CUDA",
    "OPENVINO",
    "TENSORRT",
    "Provider",
    "bucket_of",
    "parse_providers",
    "tuned",
]

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
TENSORRT, OPENVINO = "TensorrtExecutionProvider", "OpenVINOExecutionProvider"
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
