"""
The table of metrics: what each asks, what it returns, which way is better, and which paper uses which setting.

A metric is two pure functions and a row of this table. `changes` names the pictures the model must see (`again`: those
the method must explain), from the maps' size alone; `values` turns the answers into one number an image, or several. So
the whole work of an evaluation is known before it starts, and every metric shares what another asked for.

    register(Metric(id="average_drop", changes=..., values=..., ...))     one row, beside its functions
    metric = resolve("Average Drop")                                      a name, forgiving
    variant, options = validate(metric, None, {"steps": 28})              complete and checked
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy.typing as npt

from ..errors import MethodError
from ..methods.table import Option, completed
from ..words import normalise, offer
from .changes import Change

__all__ = ["METRICS", "Field", "Metric", "Need", "register", "resolve", "validate"]

Array = npt.NDArray[Any]
Better = Literal["higher", "lower", "neither"]
Need = Literal["map", "scores", "again", "boxes", "masks", "labels", "raw", "model"]


@dataclass(frozen=True)
class Field:
    """
    One number of a metric.

    Attributes
    ----------
    name : str
        As in result files: the metric's id is the main one, others are written ``id.name``.
    better : {"higher", "lower", "neither"}
        Which way is better.
    low, high : float
        Its range, ends included.
    help : str
        One line for tables and documentation.
    percent : bool
        Whether printed tables multiply it by 100, as papers do.
    """

    name: str
    better: Better
    low: float
    high: float
    help: str
    percent: bool = False


@dataclass(frozen=True, eq=False)
class Metric:
    """
    One row of the table.

    Attributes
    ----------
    id : str
        The canonical name, the same in Python, command line and result files.
    title : str
        As papers write it.
    paper : str
        Where it comes from.
    settings : str
        Which papers' tables use which variant or setting.
    fields : tuple of Field
        What is averaged over a data set and printed; the headline first.
    variants : tuple of str
        Named definitions, the default first.
    values : callable
        ``values(case, *, variant, **options)`` returns arrays by name, the first axis N: the metric's per-image value under
        its `id`, further ones under their field's name, curves and histograms (N, P) under any name.
    changes : callable, optional
        ``changes(size, *, variant, **options)`` returns the pictures (tuple of Change) the model must see; none where None.
    again : callable, optional
        The same for pictures the method must explain once more.
    overall : callable, optional
        ``overall(means, *, variant, **options)`` turns means over images (the same names as `values` gives, any axes
        before each value's own: bootstrap resamples) into the `fields`; the plain means where None.
    by_class : bool
        Whether values are averaged over the images of each class first, then over classes.
    pairwise : bool
        Whether it compares methods: of two, the one with the lower value on an image wins it; the field is the share won.
    needs : tuple of Need
        What it cannot do without. "boxes" and "masks" together mean either.
    options : mapping of str to Option
        What the functions may be told.
    aliases : tuple of str
        Other names that find it.
    by_variant : mapping of str to tuple of Field
        The fields of variants that have their own: another range, or the other way better.
    """

    id: str
    title: str
    paper: str
    settings: str
    fields: tuple[Field, ...]
    variants: tuple[str, ...]
    values: Callable[..., Mapping[str, Array]]
    changes: Callable[..., tuple[Change, ...]] | None = None
    again: Callable[..., tuple[Change, ...]] | None = None
    overall: Callable[..., Mapping[str, Array]] | None = None
    by_class: bool = False
    pairwise: bool = False
    needs: tuple[Need, ...] = ("map",)
    options: Mapping[str, Option] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    by_variant: Mapping[str, tuple[Field, ...]] = field(default_factory=dict)

    def fields_of(self, variant: str) -> tuple[Field, ...]:
        """
        Return what a variant prints.

        Parameters
        ----------
        variant : str
            One of the metric's variants.

        Returns
        -------
        tuple of Field
            Its own, or the common ones.
        """
        return self.by_variant.get(variant, self.fields)


METRICS: dict[str, Metric] = {}
_NAMES: dict[str, str] = {}  # every normalised id and alias -> id


def register(metric: Metric) -> Metric:
    """
    Enter a metric into the table.

    Parameters
    ----------
    metric : Metric
        The row.

    Returns
    -------
    Metric
        The same row.

    Raises
    ------
    ValueError
        If an id or alias is taken, or there is no field or variant: a mistake of the programmer, not of a user.
    """
    if not metric.fields or not metric.variants:
        raise ValueError(f"{metric.id}: a metric has a field and a variant at least")
    for name in (metric.id, *metric.aliases):
        if normalise(name) in _NAMES:
            raise ValueError(f"the name {name!r} of {metric.id} already belongs to {_NAMES[normalise(name)]}")
    METRICS[metric.id] = metric
    _NAMES.update({normalise(name): metric.id for name in (metric.id, *metric.aliases)})
    return metric


def resolve(name: str) -> Metric:
    """
    Find a metric by its name; case, hyphens, underscores and spaces do not matter.

    Parameters
    ----------
    name : str
        An id or an alias, for example ``"Average Drop"``.

    Returns
    -------
    Metric
        The row of the table.

    Raises
    ------
    MethodError
        If there is none; the message offers near names.
    """
    if not isinstance(name, str):
        raise MethodError(f"a metric is given by its name, for example 'average_drop'; got {type(name).__name__}")
    found = _NAMES.get(normalise(name))
    if found is None:
        raise MethodError(f"no metric is called {name!r}; {offer(name, METRICS)}")
    return METRICS[found]


def validate(
    metric: Metric, variant: str | None = None, options: Mapping[str, object] | None = None
) -> tuple[str, dict[str, object]]:
    """
    Complete and check a variant and options.

    Parameters
    ----------
    metric : Metric
        A row of the table.
    variant : str, optional
        One of its variants; the default where None.
    options : mapping of str to object, optional
        Values for some of its options.

    Returns
    -------
    variant : str
        The variant's exact name.
    options : dict of str to object
        Every option with its value, in the order of the table.

    Raises
    ------
    MethodError
        If the variant or an option does not exist, or a value is out of range.
    """
    return completed(metric.id, metric.variants, metric.options, variant, options)
