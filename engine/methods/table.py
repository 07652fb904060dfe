"""
The table of methods: what each one needs, what it gives, and what it may be told.

A method is a pure function of arrays (the *evidence*) and a row of this table. Everything else about it, its variants,
its options with their ranges, whether the pipeline applies a ReLU, how maps of several layers are joined, is data, so
that errors, command line help, server schemas and documentation are made from one place.

    register(Method(id="gradcam", function=gradcam, needs=("acts", "grads"), ...))     one row, beside its function
    method = resolve("Grad-CAM++")                                                     a name, forgiving
    variant, options = validate(method, None, {"n": 10})                               complete and checked
    raw_map(method, evidence, variant=variant, options=options)                        see raw.py
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from ..errors import MethodError
from ..words import match, normalise, offer
from .arrays import Array

Gives = Literal["weights", "map", "heatmap"]
Family = Literal["gradient", "activation", "baseline", "fusion", "masked", "ablation", "optimised", "black-box"]
Kind = Literal["integer", "number", "choice", "integers", "flag"]

EVIDENCE: Mapping[str, str] = MappingProxyType(
    {
        "acts": "(N,K,h,w) activations of the layer",
        "grads": "(N,K,h,w) gradient of the target at the layer",
        "head": "(N,K) weights of the linear head for each image's class; None unless the tail is GAP + linear",
        "logits": "(N,C) logits of the clean input",
        "target": "(N,) int64 class index; -1 where the target is no single class",
        "ids": "(N,) uint64 content hash of each image",
        "size": "(H,W) of the input",
        "x": "(N,...) the model's input",
        "gradients_at": "callable x -> (acts, grads) for the same targets",
        "gradients_of": "callable seed (N,C) -> grads (N,K,h,w)",
        "piecewise": "whether the model is piecewise linear behind the layer",
        "tokens": "whether the layer is a sequence of tokens",
        "seed": "callable () -> (N,C) the target's cotangent at the logits",
        "logits_from": "callable acts -> logits that the layer's tail makes of other activations",
        "gradients_from": "callable (acts, seed) -> grads at other activations",
        "guided_of": "callable seed -> guided gradient at the input, shaped like x",
        "full_of": "callable (seed, times bias) -> gradient at the input, and (N,...) at every tensor with a bias",
        "relevance_of": "callable (relevance of the logits, with biases) -> (N,K,h,w) relevance of the layer",
        "attention_of": "callable (seed, blocks or None) -> (N,blocks,h,w) gradient of each block's score at its attention",
        "lift_of": "callable seed -> (N,K,h,w) contributions to the change from activations of zero",
        "masked_of": "callable Masks -> Scored: logits (N,M,C) of masked images, from one memory for all targets",
        "ablated_of": "callable (values (N,K), only (N,K) bool or None) -> Scored: logits (N,K,C), one channel set to its value",
        "cells_of": "callable gaussian -> Scored: logits (N,Z,C), all cells but one (or its neighbourhood) set to zero",
        "score_of": "callable (logits (N,M,C), 'probability' or 'logit') -> (N,M) float64 score of each image's target",
        "logits_at": "callable x -> logits (N,C) of other inputs",
        "image_gradient_of": "callable (x, seed, images) -> (logits, gradient like x); images says which of the N each row is",
        "hidden": "what a hidden pixel shows in the request's mask space, broadcastable to x",
        "target_at": "callable (logits (M,C), images (M,)) -> value (M,) and cotangent (M,C) of the images' targets there",
    }
)


@dataclass(frozen=True, eq=False)
class Result:
    """
    What a method returns when an array alone does not say it all.

    Attributes
    ----------
    array : ndarray of float
        Weights (N,K) or (N,K,h,w), a raw map (N,h,w), or a heatmap (N,H,W).
    flags : mapping of str to ndarray, shape (N,)
        What a reader of the map must know, for example ``unstable`` or ``skipped_channels``.
    gives : {"weights", "map", "heatmap"}, optional
        What `array` is, where a variant departs from the method's own `gives`.
    raw_input : ndarray of float, shape (N, C, H, W), optional
        A signed map for each channel of the image, from methods that make one.
    """

    array: Array
    flags: Mapping[str, Array] = field(default_factory=dict)
    gives: Gives | None = None
    raw_input: Array | None = None


@dataclass(frozen=True, eq=False)
class Option:
    """
    One thing a method may be told: its default and what is allowed.

    Attributes
    ----------
    default : object
        The value where none is given.
    kind : {"integer", "number", "choice", "integers", "flag"}
        What a value is read as; a text such as ``"4"``, ``"1,2,3"`` or ``"yes"`` is read the same way.
    help : str
        One line for help texts.
    low, high : float
        Range of a number, ends included.
    choices : tuple of str
        The words a choice may be.
    optional : bool
        Whether None is a value.
    by_variant : mapping of str to object
        Defaults of the variants that have their own.

    Examples
    --------
    >>> Option(2.0, "number", "strength", low=0).read("layercam", "gamma", "1.5")
    1.5
    """

    default: object
    kind: Kind
    help: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()
    optional: bool = False
    by_variant: Mapping[str, object] = field(default_factory=dict)

    @property
    def allowed(self) -> str:
        """Say in words what may be given."""
        if self.kind == "choice":
            words = f"one of {', '.join(self.choices)}"
        elif self.kind == "flag":
            words = "yes or no"
        else:
            noun = {"integer": "an integer", "number": "a number", "integers": "integers"}[self.kind]
            low = "" if self.low == -math.inf else f" of at least {self.low:g}"
            high = "" if self.high == math.inf else f"{' and' if low else ' of'} at most {self.high:g}"
            words = noun + low + high
        return words + (", or none" if self.optional else "")

    def default_of(self, variant: str) -> object:
        """
        Return the value a variant uses where none is given.

        Parameters
        ----------
        variant : str
            A variant of the option's method.

        Returns
        -------
        object
            The variant's own default, or the common one.
        """
        return self.by_variant.get(variant, self.default)

    def read(self, method: str, name: str, value: object) -> object:
        """
        Check a value and return it in its own type.

        Parameters
        ----------
        method, name : str
            Whose option this is, for the message.
        value : object
            What the caller gave.

        Returns
        -------
        object
            An int, a float, a str, a bool, a tuple of int, or None.

        Raises
        ------
        MethodError
            If the value is of another kind or out of range.
        """
        try:
            return self._parse(value)
        except (TypeError, ValueError, OverflowError) as error:
            raise MethodError(f"option {name!r} of {method} must be {self.allowed}; got {value!r}") from error

    def _parse(self, value: object) -> object:
        if self.optional and (value is None or value == "none"):
            return None
        if self.kind == "choice":
            return match(value, self.choices)
        if self.kind == "flag":
            return value if isinstance(value, bool) else _FLAGS[match(value, _FLAGS)]
        if self.kind == "integers":
            items = value.split(",") if isinstance(value, str) else value
            found = tuple(self._number(item, int) for item in items)  # type: ignore[attr-defined]
            if not found:
                raise ValueError("no integer given")
            return found
        return self._number(value, int if self.kind == "integer" else float)

    def _number(self, value: Any, kind: type[int | float]) -> int | float:
        if isinstance(value, bool):
            raise TypeError("a truth value is no number")
        number = kind(value)
        if not math.isfinite(number) or not self.low <= number <= self.high:
            raise ValueError("out of range")
        if kind is int and not isinstance(value, str) and number != value:
            raise ValueError("no whole number")
        return number


@dataclass(frozen=True, eq=False)
class Method:
    """
    One row of the table.

    Attributes
    ----------
    id : str
        The canonical name, used in Python, command line, HTTP and result files alike.
    function : callable
        ``function(*evidence, variant=..., **options)``; pure, evidence in the order of `needs`.
    needs : tuple of str
        Names of `EVIDENCE`.
    gives : {"weights", "map", "heatmap"}
        What the function returns: weights (N,K) or (N,K,h,w) of the activations, a raw map (N,h,w) of any size, or a heatmap
        (N,H,W) that skips ReLU, resize and scaling. A `Result` may say otherwise for a variant.
    family : {"gradient", "activation", "baseline", "fusion", "masked", "ablation", "optimised", "black-box"}
        The kind of method.
    work : float
        Model time for one image at default options, in forward passes.
    paper : str
        Where the method comes from.
    title : str
        The name as its authors write it.
    variants : tuple of str
        Named definitions, the default first.
    options : mapping of str to Option
        What the function may be told.
    fusion_options : mapping of str to Option
        What the fusion over several layers may be told; never passed to the function.
    aliases : tuple of str
        Other names that find the method.
    relu : bool or mapping of str to bool
        Whether the pipeline applies a ReLU to the raw map; by variant where they differ.
    nonnegative : bool
        Whether the method's reasoning assumes ``A >= 0``.
    class_free : bool
        Whether the map is the same for every class.
    fuse : str or mapping of str to str
        How maps of several layers are joined (`camrt.fuse`); by variant where they differ.
    runs : callable, optional
        ``runs(options, channels, cells)``: how many masked forwards, or tails, one image takes at one layer; for methods
        that hide.
    mask_space : mapping of str to str
        What hides in variants that are defined by it ("normalised" or "raw"); the request says it for all others.
    stages : bool
        Whether the method takes the last layer of every resolution (`camrt.stages`) where no layer is given.
    """

    id: str
    function: Callable[..., Array | Result]
    needs: tuple[str, ...]
    gives: Gives
    family: Family
    work: float
    paper: str
    title: str
    variants: tuple[str, ...]
    options: Mapping[str, Option] = field(default_factory=dict)
    fusion_options: Mapping[str, Option] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    relu: bool | Mapping[str, bool] = True
    nonnegative: bool = False
    class_free: bool = False
    fuse: str | Mapping[str, str] = "mean"
    runs: Callable[[Mapping[str, Any], int, int], int] | None = None
    mask_space: Mapping[str, str] = field(default_factory=dict)
    stages: bool = False

    def relu_of(self, variant: str) -> bool:
        """
        Tell whether the pipeline applies a ReLU to a variant's raw map.

        Parameters
        ----------
        variant : str
            A variant of this method.

        Returns
        -------
        bool
            True where negative parts of the raw map are cut off.
        """
        return self.relu if isinstance(self.relu, bool) else self.relu[variant]

    def fuse_of(self, variant: str) -> str:
        """
        Return the name of a variant's fusion over several layers.

        Parameters
        ----------
        variant : str
            A variant of this method.

        Returns
        -------
        str
            A fusion that `camrt.fuse` knows.
        """
        return self.fuse if isinstance(self.fuse, str) else self.fuse[variant]


_FLAGS = {"yes": True, "no": False, "true": True, "false": False}
METHODS: dict[str, Method] = {}
_NAMES: dict[str, str] = {}  # every normalised id and alias -> id


def register(method: Method) -> Method:
    """
    Enter a method into the table.

    Parameters
    ----------
    method : Method
        The row.

    Returns
    -------
    Method
        The same row.

    Raises
    ------
    ValueError
        If an id or alias is taken, or the row is not consistent: a mistake of the programmer, not of a user.
    """
    unknown = set(method.needs) - set(EVIDENCE)
    if unknown or not method.variants:
        raise ValueError(f"{method.id}: unknown evidence {sorted(unknown)} or no variants {method.variants}")
    for name in (method.id, *method.aliases):
        if normalise(name) in _NAMES:
            raise ValueError(f"the name {name!r} of {method.id} already belongs to {_NAMES[normalise(name)]}")
    METHODS[method.id] = method
    _NAMES.update({normalise(name): method.id for name in (method.id, *method.aliases)})
    return method


def resolve(name: str) -> Method:
    """
    Find a method by its name.

    Lower case, hyphens, underscores and spaces do not matter, and ``++`` reads as ``pp``.

    Parameters
    ----------
    name : str
        An id or an alias, for example ``"Grad-CAM++"``.

    Returns
    -------
    Method
        The row of the table.

    Raises
    ------
    MethodError
        If there is none; the message offers near names.

    Examples
    --------
    >>> resolve("Grad-CAM++").id
    'gradcampp'
    """
    if not isinstance(name, str):
        raise MethodError(f"a method is given by its name, for example 'gradcam'; got {type(name).__name__}")
    found = _NAMES.get(normalise(name))
    if found is None:
        raise MethodError(f"no method is called {name!r}; {offer(normalise(name), METHODS)}")
    return METHODS[found]


def validate(
    method: Method, variant: str | None = None, options: Mapping[str, object] | None = None
) -> tuple[str, dict[str, object]]:
    """
    Complete and check a variant and options.

    Parameters
    ----------
    method : Method
        A row of the table.
    variant : str, optional
        One of the method's variants; its default where None.
    options : mapping of str to object, optional
        Values for some of the method's options and fusion options.

    Returns
    -------
    variant : str
        The variant's exact name.
    options : dict of str to object
        Every option and fusion option with its value, in the order of the table.

    Raises
    ------
    MethodError
        If the variant or an option does not exist, or a value is out of range.

    Examples
    --------
    >>> validate(resolve("layercam"), None, {"gamma": 3})
    ('official', {'gamma': 3.0, 'scale_layers': 'shallow'})
    """
    return completed(method.id, method.variants, {**method.options, **method.fusion_options}, variant, options)


def completed(
    owner: str,
    variants: tuple[str, ...],
    known: Mapping[str, Option],
    variant: str | None,
    given: Mapping[str, object] | None,
) -> tuple[str, dict[str, object]]:
    """
    Complete and check a variant and options of a method or a metric.

    Parameters
    ----------
    owner : str
        Whose they are, for messages.
    variants : tuple of str
        Those there are, the default first.
    known : mapping of str to Option
        Options there are.
    variant : str or None
        What was asked for.
    given : mapping of str to object, or None
        Values of some options.

    Returns
    -------
    variant : str
        The variant's exact name.
    options : dict of str to object
        Every option with its value.

    Raises
    ------
    MethodError
        If the variant or an option does not exist, or a value is out of range.
    """
    try:
        chosen = variants[0] if variant is None else match(variant, variants)
    except ValueError as error:
        raise MethodError(f"{owner} has no variant {variant!r}; {offer(variant, variants)}") from error
    values = dict(given or {})
    for name in values:
        if name not in known:
            has = offer(name, known) if known else "it has none"
            raise MethodError(f"{owner} has no option {name!r}; {has}")
    return chosen, {
        name: option.read(owner, name, values[name]) if name in values else option.default_of(chosen)
        for name, option in known.items()
    }
