"""
The precision a model is run in: always the caller's choice, and an error where a provider cannot give it.

In: a name, the source of programs, the providers. Out: the source and providers that give that precision.

============  ================  ==================================================================================
precision     providers         what is run
============  ================  ==================================================================================
float32       all               the programs as they are; CUDA without TF32, OpenVINO told not to use bfloat16; a
                                quantised model's own integers for its logits
tf32          cuda              the same programs; products round their factors to 10 bits
float16       all but openvino  programs with products in float16 (`camrt.export.half`); sums, norms and maps in float32
bfloat16      openvino          the same programs; OpenVINO computes them in bfloat16
twin          all               of a quantised model its float twin alone: weights dequantised, nothing rounded
============  ================  ==================================================================================

In float16 and bfloat16 no map is made inside the graph: its contrast would be rounded away. They are made of what the
graph gives, in float32.
"""

from __future__ import annotations

from collections.abc import Sequence

from camrt.export.manifest import Layer, Manifest, Program, Source

from .errors import MethodError, MissingExtraError
from .providers import CUDA, OPENVINO, Provider, tuned

__all__ = ["PRECISIONS", "WithoutMaps", "arrange"]

PRECISIONS = ("float32", "tf32", "float16", "bfloat16", "twin")


class WithoutMaps:
    """
    A source that does not offer maps made inside the graph.

    Parameters
    ----------
    source : Source
        Any.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    @property
    def manifest(self) -> Manifest:
        """What the model is."""
        return self._source.manifest

    def program(self, kind: str, layers: Sequence[str] = ()) -> Program:
        """
        Return one program.

        Parameters
        ----------
        kind : str
            As in `Program`.
        layers : sequence of str
            Layer names, in order.

        Returns
        -------
        Program
            The source's own.
        """
        return self._source.program(kind, layers)

    def offers(self, kind: str, layers: Sequence[str] = ()) -> bool:
        """
        Tell whether a program can be had.

        Parameters
        ----------
        kind : str
            As in `Program`.
        layers : sequence of str
            Layer names, in order.

        Returns
        -------
        bool
            False for every map; else what the source says.
        """
        return not kind.startswith("map_") and self._source.offers(kind, layers)

    def resolve(self, name: str) -> Layer:
        """
        Return the layer of a name.

        Parameters
        ----------
        name : str
            A tensor, a node or a module path.

        Returns
        -------
        Layer
            The candidate of that name.
        """
        return self._source.resolve(name)

    def weight_layers(self) -> tuple[str, ...]:
        """
        Name the layers whose weights can be drawn anew.

        Returns
        -------
        tuple of str
            The source's own.
        """
        return self._source.weight_layers()

    def randomised(self, layers: Sequence[str], seed: int = 0) -> WithoutMaps:
        """
        Return the same model with some weights drawn anew.

        Parameters
        ----------
        layers : sequence of str
            Names of `weight_layers`.
        seed : int, default 0
            Of the numbers.

        Returns
        -------
        WithoutMaps
            Around what the source makes of it.
        """
        return WithoutMaps(self._source.randomised(layers, seed))


def arrange(precision: str, source: Source, providers: tuple[Provider, ...]) -> tuple[Source, tuple[Provider, ...]]:
    """
    Prepare programs and providers for a precision.

    Parameters
    ----------
    precision : str
        One of `PRECISIONS`.
    source : Source
        Of float32 programs, a model in memory or a bundle.
    providers : tuple of Provider
        As `camrt.providers.parse_providers` gives them.

    Returns
    -------
    source : Source
        Of programs in that precision.
    providers : tuple of Provider
        With the options that go with it.

    Raises
    ------
    MethodError
        If there is no such precision, or the model or the first provider cannot give it.
    MissingExtraError
        If float16 is asked for and the extra ``export`` is not installed.
    """
    if precision not in PRECISIONS:
        raise MethodError(f"precision must be one of {', '.join(PRECISIONS)}; got {precision!r}")
    first, is_quantised = providers[0].name, bool(source.manifest.model.get("quantised"))
    if precision == "tf32" and first != CUDA:
        raise MethodError(f"tf32 is a precision of cuda; the first provider is {first}: ask for float32, or cuda")
    if precision == "bfloat16" and first != OPENVINO:
        raise MethodError(
            f"bfloat16 is a precision of openvino; the first provider is {first}: ask for float32, or openvino"
        )
    if precision == "float16" and first == OPENVINO:
        raise MethodError("openvino runs float32 or bfloat16 here; float16 was asked for")
    if precision in ("float16", "bfloat16") and is_quantised:
        raise MethodError(
            f"a quantised model computes with integers, {precision} was asked for: leave it, or ask for twin"
        )
    if precision == "twin":
        source = _twin(source, is_quantised)
    elif precision == "float16":
        source = WithoutMaps(_half(source))
    elif precision == "bfloat16":
        source = WithoutMaps(source)
    return source, tuple(tuned(provider, precision) for provider in providers)


def _half(source: Source) -> Source:
    """Narrow programs on their way; this needs onnx, also for a bundle."""
    try:
        from camrt.export.half import Half
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("camrt"):
            raise
        raise MissingExtraError(
            f"{error.name} is needed to make float16 programs: pip install 'camrt[export]'"
        ) from error
    return Half(source)


def _twin(source: Source, is_quantised: bool) -> Source:
    """Return the float twin of a quantised model; a bundle has no program of it."""
    if not is_quantised:
        raise MethodError("twin is the float twin of a quantised model, and this model is not quantised: leave it out")
    alone = getattr(source, "twin", None)
    if alone is None:
        raise MethodError("a bundle holds no float twin alone: give the .onnx file that it was made of")
    twin: Source = alone()
    return twin
