"""
Judge maps that came from anywhere: plain arrays in, numbers out.

`judged` is what every metric's public function calls; `judge` takes several metrics at once, which share forwards. Both
need a model only where the metric does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..choices import Choice, choose
from ..device import on_host
from ..errors import InputError, NumericError, ShapeError, TargetError
from ..noise import content_ids
from .asking import ask, ask_predicted
from .case import Again, Case, Ground, Scores
from .changes import Change, Clean
from .filling import Pictures
from .model import Judged, model_of
from .plan import Plan, plan_of
from .table import Metric, resolve, validate

__all__ = ["Explain", "checked_heatmaps", "ids_of", "judge", "judged", "named"]

Array = npt.NDArray[Any]
Explain = Callable[[Array, npt.NDArray[np.int64]], Array]


def checked_heatmaps(heatmaps: Any, size: tuple[int, int] | None = None) -> Array:
    """
    Check maps that somebody gave.

    Parameters
    ----------
    heatmaps : array_like of float, shape (N, H, W) or (H, W)
        Maps in [0, 1].
    size : tuple of int, optional
        ``(H, W)`` that they must have.

    Returns
    -------
    ndarray of float32 or float64, shape (N, H, W)
        The maps; float64 stays.

    Raises
    ------
    ShapeError
        If they are of another rank or size, empty, or no numbers.
    NumericError
        If they hold NaN or infinity, or leave [0, 1].
    """
    maps = heatmaps if hasattr(heatmaps, "dtype") else np.asarray(heatmaps)
    if maps.dtype.kind not in "fiub" or maps.ndim not in (2, 3) or not maps.size:
        raise ShapeError(f"heatmaps must be numbers (N, H, W) or (H, W); got {maps.dtype} {maps.shape}")
    maps = maps if maps.dtype == np.float64 else maps.astype(np.float32)
    maps = maps[None] if maps.ndim == 2 else maps
    if size is not None and maps.shape[1:] != size:
        raise ShapeError(
            f"heatmaps must be as large as the model's input, {size}; got {maps.shape[1:]}: resize them first"
        )
    low, high = float(maps.min()), float(maps.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise NumericError("heatmaps must be finite; some hold NaN or infinity")
    if low < 0 or high > 1:
        raise NumericError(f"heatmaps must lie in [0, 1]; got {low:g} to {high:g}: apply ReLU and min-max first")
    return maps


def judged(
    metric: Metric,
    model: Judged | None,
    x: Array | None,
    heatmaps: Any,
    classes: Any = None,
    *,
    variant: str | None = None,
    options: Mapping[str, object] | None = None,
    ground: Ground | None = None,
    explain: Explain | None = None,
    mask_space: str = "normalised",
) -> dict[str, Array]:
    """
    Judge maps by one metric.

    Parameters
    ----------
    metric : Metric
        A row of the table.
    model : Model, Explainer, callable or None
        Who is asked; None where the metric needs no model.
    x : ndarray, shape (N, ...), or None
        Prepared inputs.
    heatmaps : array_like of float, shape (N, H, W)
        Maps in [0, 1].
    classes : array_like of int, shape (N,), optional
        The class each map explains; what the model predicts where None.
    variant, options : optional
        As in `validate`.
    ground : Ground, optional
        Boxes, masks, labels.
    explain : callable, optional
        ``explain(x, classes)`` makes maps of other inputs, for metrics that explain again.
    mask_space : {"normalised", "raw"}
        What hidden pixels show.

    Returns
    -------
    dict of str to ndarray, first axis N
        As `Metric.values` gives them.
    """
    chosen, full = validate(metric, variant, options)
    choice = Choice(metric.id, metric, chosen, full)
    return _judged([choice], model, x, heatmaps, classes, ground, explain, mask_space)


def judge(
    metrics: Sequence[str | Choice[Metric]],
    model: Judged | None,
    x: Array | None,
    heatmaps: Any,
    classes: Any = None,
    *,
    ground: Ground | None = None,
    explain: Explain | None = None,
    mask_space: str = "normalised",
) -> dict[str, Array]:
    """
    Judge maps by several metrics that share forwards.

    Parameters
    ----------
    metrics : sequence of str or Choice
        ``id[:variant][,name=value...]`` each, or what `camrt.choices.choose` made of that.
    model : Model, Explainer, callable or None
        Who is asked; None where no metric needs a model.
    x : ndarray, shape (N, ...), or None
        Prepared inputs.
    heatmaps : array_like of float, shape (N, H, W)
        Maps in [0, 1], from anywhere.
    classes : array_like of int, shape (N,), optional
        The class each map explains; what the model predicts where None.
    ground : Ground, optional
        Boxes, masks, labels.
    explain : callable, optional
        ``explain(x, classes)`` makes maps of other inputs, for metrics that explain again.
    mask_space : {"normalised", "raw"}
        What hidden pixels show.

    Returns
    -------
    dict of str to ndarray, first axis N
        Values by metric: ``insertion``, ``insertion.curve``, ``insertion-polycam`` and so on.

    Raises
    ------
    MethodError
        If a metric does not exist.
    InputError
        If a metric needs a model, an `explain`, boxes or masks, and there are none.
    ShapeError, NumericError
        If the maps are not finite numbers in [0, 1] of the inputs' size.

    Notes
    -----
    Cost: the forwards of `camrt.metrics.plan.plan_of`, and one for each clean input.
    """
    words = [metric for metric in metrics if not isinstance(metric, Choice)]
    chosen = iter(choose(words, resolve, validate) if words or not metrics else ())
    choices = [metric if isinstance(metric, Choice) else next(chosen) for metric in metrics]
    return _judged(choices, model, x, heatmaps, classes, ground, explain, mask_space)


def ids_of(x: Array, plan: Plan) -> npt.NDArray[np.uint64]:
    """
    Return content hashes of inputs where anything depends on them.

    Parameters
    ----------
    x : ndarray, shape (N, ...)
        Inputs.
    plan : Plan
        What is asked.

    Returns
    -------
    ndarray of uint64, shape (N,)
        The hashes; zeros where nothing asks for them.
    """
    return content_ids(x) if plan.is_seeded else np.zeros(len(x), np.uint64)


def named(choice: Choice[Metric], values: Mapping[str, Array]) -> dict[str, Array]:
    """
    Give a metric's values the names they have in results.

    Parameters
    ----------
    choice : Choice
        The chosen metric.
    values : mapping of str to ndarray
        What `Metric.values` returned.

    Returns
    -------
    dict of str to ndarray
        The same, the metric's id replaced by the choice's name.

    Raises
    ------
    ValueError
        If a value is not named after the metric, or holds NaN: a mistake in the metric.
    """
    renamed = {}
    for name, array in values.items():
        if name != choice.row.id and not name.startswith(choice.row.id + "."):
            raise ValueError(f"{choice.row.id} returned a value called {name!r}")
        if np.isnan(array).any():
            raise ValueError(f"{choice.row.id} returned NaN in {name!r}")
        renamed[choice.name + name[len(choice.row.id) :]] = array
    return renamed


def _judged(
    choices: Sequence[Choice[Metric]],
    model: Judged | None,
    x: Array | None,
    heatmaps: Any,
    classes: Any,
    ground: Ground | None,
    explain: Explain | None,
    mask_space: str,
) -> dict[str, Array]:
    """Ask what the metrics need, and let them judge."""
    plain = {"map", "boxes", "masks", "labels"}
    asks = [choice.row.id for choice in choices if not set(choice.row.needs) <= plain]
    if not asks:
        heat = checked_heatmaps(heatmaps)
        given = np.zeros(len(heat), np.int64) if classes is None else np.asarray(classes, np.int64)
        case = _case(heat, given, np.zeros((len(heat), 0)), ground)
        return _values(choices, case)
    if model is None or x is None:
        raise InputError(f"{asks[0]} asks the model; give a model and its inputs x beside the heatmaps")
    for choice in choices:
        if "raw" in choice.row.needs or "model" in choice.row.needs:
            raise InputError(f"{choice.row.id} needs more than maps: use its own function, or camrt.evaluate")
    asked = model_of(model)
    if x.ndim != 4:
        raise ShapeError(f"inputs must be prepared for the model, (N, C, H, W) or (N, H, W, C); got {x.shape}")
    heat = checked_heatmaps(heatmaps, x.shape[1:3] if asked.channels_last else x.shape[2:])
    if len(heat) != len(x):
        raise ShapeError(f"one heatmap an input was wanted; got {len(heat)} for {len(x)}")
    plan = plan_of(choices, (heat.shape[1], heat.shape[2]), mask_space)
    ids = ids_of(x, plan)
    wanted = _scored(choices, plan, (heat.shape[1], heat.shape[2]))
    with asked.place() as placed:
        x, heat = placed(x), placed(heat)
        pictures = Pictures(x, [heat], ids, asked, mask_space)
        if classes is None:
            (found,), given = ask_predicted(pictures, [wanted])
        else:
            given = _classes(classes, len(x), asked.classes)
            (found,) = ask(pictures, given, [[Clean(), *wanted]])
        scores = plan.by_name(found)
        again = plan.by_name(_again(plan.again, pictures, given, explain, choices, placed))
        return _values(choices, _case(heat, given, x, ground, pictures, scores, again))


def _scored(choices: Sequence[Choice[Metric]], plan: Plan, size: tuple[int, int]) -> list[Change]:
    """Return what the metrics want scores of; a caller's `explain` tells none of what it explains."""
    rows = [(c.row.changes, {"variant": c.variant, **c.options}) for c in choices if c.row.changes is not None]
    asked = dict.fromkeys(plan.names[change] for changes, told in rows for change in changes(size, **told))
    return [change for change in asked if change != Clean()]


def _again(
    changes: Sequence[Change],
    pictures: Pictures,
    classes: npt.NDArray[np.int64],
    explain: Explain | None,
    choices: Sequence[Choice[Metric]],
    placed: Callable[[Array], Array],
) -> dict[Change, Again]:
    """Have changed pictures explained by the caller, who sees them on the host."""
    if changes and explain is None:
        who = next(choice.row.id for choice in choices if choice.row.again is not None)
        raise InputError(
            f"{who} explains changed pictures; give explain, a function (x, classes) -> heatmaps (N, H, W)"
        )
    found: dict[Change, Again] = {}
    for change in changes:
        assert explain is not None
        heat = checked_heatmaps(explain(on_host(pictures.of(change)), classes), pictures.heats[0].shape[1:])
        found[change] = Again(placed(heat), _flat(heat))
    return found


def _case(
    heat: Array,
    classes: npt.NDArray[np.int64],
    x: Array,
    ground: Ground | None,
    pictures: Pictures | None = None,
    scores: Mapping[Change, Scores] | None = None,
    again: Mapping[Change, Again] | None = None,
) -> Case:
    """Lay out what metrics judge."""
    known = ground or Ground()
    for name in ("boxes", "masks", "ignored", "labels"):
        listed = getattr(known, name)
        if listed is not None and len(listed) != len(heat):
            raise ShapeError(f"{name} must be given for every one of {len(heat)} heatmaps; got {len(listed)}")
    return Case(
        heat,
        _flat(heat),
        classes,
        np.zeros(len(heat), np.uint64) if pictures is None else pictures.ids,
        x,
        pictures is not None and pictures.model.channels_last,
        scores or {},
        again or {},
        known,
        shift_means={} if pictures is None else pictures.shift_means,
    )


def _values(choices: Sequence[Choice[Metric]], case: Case) -> dict[str, Array]:
    """Let every metric judge."""
    found: dict[str, Array] = {}
    for choice in choices:
        found |= named(choice, choice.row.values(case, variant=choice.variant, **choice.options))
    return found


def _classes(classes: Any, n: int, n_classes: int | None) -> npt.NDArray[np.int64]:
    """Check the class given for each image, as far as the model's number of classes is known."""
    given = np.asarray(classes)
    if given.shape != (n,) or given.dtype.kind not in "iu":
        raise TargetError(f"classes must be one integer an image, ({n},); got {given.dtype} {given.shape}")
    if given.size and not (given.min() >= 0 and (n_classes is None or given.max() < n_classes)):
        range_ = "be at least 0" if n_classes is None else f"lie in 0..{n_classes - 1}"
        raise TargetError(f"classes must {range_}; got {given.min()} to {given.max()}")
    return given.astype(np.int64)


def _flat(heat: Array) -> npt.NDArray[np.bool_]:
    """Tell which maps are constant."""
    flat: npt.NDArray[np.bool_] = on_host(heat.max((1, 2)) == heat.min((1, 2)))
    return flat
