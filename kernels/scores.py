"""
What masked forwards count as: of each row of logits, one class's probability or logit.

In go logits (M, C) and a class for each row; out comes one score a row, or for metrics the logarithms of the class's
probability and of the rest, so that ratios of tiny probabilities stay exact. The softmax is over the classes of the row,
so a row's score does not depend on its neighbours.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

import numpy as np

from camrt.errors import InputError

from .array import Array, DType, computing_dtype, is_cupy, require_indices, require_same_side
from .device import Gpu, Kernel

__all__ = ["ScoreKind", "class_scores", "log_scores", "softmax_parts"]

ScoreKind: TypeAlias = Literal["probability", "logit"]

THREADS = 128  # a row is one block; scores.cu has it too
CLASS_SCORES = Kernel("scores", "class_scores", (THREADS,))
LOG_SCORES = Kernel("scores", "log_scores", (THREADS,))


def class_scores(
    logits: Array, classes: Array, kind: ScoreKind = "probability", *, parts: tuple[Array, Array] | None = None
) -> Array:
    """
    Gather each row's score of one class.

    Parameters
    ----------
    logits : Array of float32 or float64, shape (M, C)
        Logits; float16 is computed in float32. Any memory layout.
    classes : Array of int64, shape (M,)
        For each row, the class; on the same side (host or device) as `logits`.
    kind : {"probability", "logit"}, default "probability"
        The softmax over the row's classes, or the logit as it is.
    parts : tuple of Array, optional
        What `softmax_parts` returned for these logits, on the host; probabilities then cost one exponential a row and are
        of the parts' type. A GPU works them out again.

    Returns
    -------
    Array, shape (M,)
        The scores: probabilities in [0, 1] without unit, or logits; float64 if `logits` are, else float32.

    Raises
    ------
    ShapeError
        If `logits` is not (M, C) of a real floating type, or `classes` is not one int64 a row.
    InputError
        If `kind` is unknown, or a class does not exist (the latter on the host alone; a GPU's score is then NaN).

    Notes
    -----
    The largest logit is subtracted before anything is raised to a power, so no finite logit overflows. A row of one
    logit is a yes-or-no classifier: its probability is the sigmoid, the softmax of (0, logit). A NaN or a positive
    infinity makes the row's probability NaN.

    Cost: ``M*C`` exponentials. On the GPU one launch, one block a row, no host synchronisation.

    References
    ----------
    Wang et al., "Score-CAM", arXiv:1910.01279, section 3.2: the probability of the class as a channel's weight.

    Examples
    --------
    >>> class_scores(np.array([[0.0, 0.0], [1000.0, 0.0]]), np.array([1, 0]))
    array([0.5, 1. ])
    >>> class_scores(np.array([[0.0]]), np.array([0]))
    array([0.5])
    """
    dtype = computing_dtype("logits", logits, "(M, C)")
    if kind not in get_args(ScoreKind):
        raise InputError(f"kind must be 'probability' or 'logit', got {kind!r}")
    require_indices("classes", classes, *logits.shape)
    require_same_side("logits", logits, "classes", classes)
    if is_cupy(logits):
        return _on_gpu(logits, classes, kind, dtype, Gpu.of(logits))
    return _on_numpy(np.ascontiguousarray(logits, dtype), classes, kind, parts)


def softmax_parts(logits: Array) -> tuple[Array, Array]:
    """
    Work out what every class's probability shares.

    Parameters
    ----------
    logits : Array of float32 or float64, shape (M, C)
        Logits on the host.

    Returns
    -------
    top : Array, shape (M,)
        What a row's softmax subtracts from each logit: the largest, or 0 where the one logit there is lies below.
    total : Array, shape (M,)
        What it divides by: the sum over classes of ``exp(logit - top)``.

    Raises
    ------
    ShapeError
        If `logits` is not (M, C) of a real floating type.

    Notes
    -----
    Cost: ``M*C`` exponentials.

    Examples
    --------
    >>> softmax_parts(np.array([[5.0, 5.0]]))
    (array([5.]), array([2.]))
    """
    return _parts(np.ascontiguousarray(logits, computing_dtype("logits", logits, "(M, C)")))


def log_scores(logits: Array, classes: Array) -> tuple[Array, Array, Array]:
    """
    Weigh one class of each row against all others, in float64.

    With ``d = s_c - log(sum over k != c of exp(s_k))``, the class's log-odds, the probability of the class is
    ``1 / (1 + exp(-d))`` and that of the rest ``1 / (1 + exp(d))``.

    Parameters
    ----------
    logits : Array of float32 or float64, shape (M, C)
        Logits; float16 is computed like float32. Any memory layout.
    classes : Array of int64, shape (M,)
        For each row, the class; on the same side (host or device) as `logits`.

    Returns
    -------
    log_p : Array of float64, shape (M,)
        ``log p_c``, at most 0.
    log_rest : Array of float64, shape (M,)
        ``log(1 - p_c)``, at most 0; finite even where ``p_c`` rounds to 1, unless every other logit is -infinity.
    hit : Array of bool, shape (M,)
        Whether the class is the first maximum of its row; False where the row has no probabilities.

    Raises
    ------
    ShapeError
        If `logits` is not (M, C) of a real floating type, or `classes` is not one int64 a row.
    InputError
        If a class does not exist (on the host alone; a GPU's scores are then NaN and no hit).

    Notes
    -----
    Both logarithms come from the log-odds, so neither is the difference of nearly equal numbers: their error is that of
    ``d``, a rounding of the logits in float64. A row of one logit is a yes-or-no classifier, the softmax of (0, logit),
    as in `class_scores`; it is a hit where the logit is above 0. A NaN or a positive infinity makes both logarithms of
    the row NaN.

    Cost: ``M*C`` exponentials. On the GPU one launch, one block a row, no host synchronisation; three numbers a row are
    all that a caller needs to fetch.

    Examples
    --------
    >>> log_p, log_rest, hit = log_scores(np.array([[0.0, 0.0], [800.0, 0.0]]), np.array([1, 0]))
    >>> np.exp(log_p), hit
    (array([0.5, 1. ]), array([False,  True]))
    >>> log_rest[1]  # 1 - p is exp(-800), which no float64 holds
    np.float64(-800.0)
    """
    dtype = computing_dtype("logits", logits, "(M, C)")
    require_indices("classes", classes, *logits.shape)
    require_same_side("logits", logits, "classes", classes)
    if is_cupy(logits):
        return _logs_on_gpu(logits, classes, dtype, Gpu.of(logits))
    return _logs_on_numpy(np.ascontiguousarray(logits, np.float64), classes)


def _on_numpy(logits: Array, classes: Array, kind: ScoreKind, parts: tuple[Array, Array] | None) -> Array:
    """Compute `class_scores` of contiguous logits."""
    chosen: Array = logits[np.arange(len(logits)), classes]
    if kind == "logit":
        return chosen
    top, total = _parts(logits) if parts is None else parts
    with np.errstate(invalid="ignore"):  # infinity - infinity is NaN, on purpose
        scores: Array = np.exp(chosen - top) / total
    return scores


def _parts(logits: Array) -> tuple[Array, Array]:
    """Compute `softmax_parts` of contiguous logits."""
    if logits.shape[1] == 1:
        logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
    top = logits.max(1)
    with np.errstate(invalid="ignore"):
        return top, np.exp(logits - top[:, None]).sum(1)


def _logs_on_numpy(logits: Array, classes: Array) -> tuple[Array, Array, Array]:
    """Compute `log_scores` of contiguous logits in float64."""
    if logits.shape[1] == 1:
        logits, classes = np.concatenate([np.zeros_like(logits), logits], axis=1), classes + 1
    rows = np.arange(len(logits))
    chosen, hit = logits[rows, classes], logits.argmax(1) == classes
    others = logits.copy()
    others[rows, classes] = -np.inf
    top = others.max(1)
    top[np.isneginf(top)] = 0  # then nothing is left to subtract it from
    with np.errstate(invalid="ignore", divide="ignore"):  # infinity - infinity is NaN and log(0) -infinity, on purpose
        rest = top + np.log(np.exp(others - top[:, None]).sum(1))
        odds = np.where(np.isposinf(chosen), np.nan, chosen) - rest
        both = np.log1p(np.exp(-np.abs(odds)))  # the smaller of the two probabilities is exp(-|odds|) of the larger
    return np.minimum(odds, 0) - both, np.minimum(-odds, 0) - both, hit & ~np.isnan(odds)


def _logs_on_gpu(logits: Array, classes: Array, dtype: DType, gpu: Gpu) -> tuple[Array, Array, Array]:
    """Compute `log_scores` with the kernel of scores.cu."""
    m, n_classes = logits.shape
    log_p, log_rest = gpu.empty((m,), np.dtype(np.float64)), gpu.empty((m,), np.dtype(np.float64))
    hit = gpu.empty((m,), np.dtype(bool))
    arguments = (gpu.contiguous(logits, dtype), gpu.contiguous(classes, np.dtype(np.int64)), log_p, log_rest, hit)
    gpu.launch(LOG_SCORES, dtype, m, (*arguments, n_classes))
    return log_p, log_rest, hit


def _on_gpu(logits: Array, classes: Array, kind: ScoreKind, dtype: DType, gpu: Gpu) -> Array:
    """Compute `class_scores` with the kernel of scores.cu."""
    m, n_classes = logits.shape
    scores = gpu.empty((m,), dtype)
    arguments = (gpu.contiguous(logits, dtype), gpu.contiguous(classes, np.dtype(np.int64)), scores)
    gpu.launch(CLASS_SCORES, dtype, m, (*arguments, n_classes, int(kind == "probability")))
    return scores
