"""
The metrics that judge explanations: one file a family, one row each in the table.

`resolve` finds a metric by a forgiving name, `validate` completes a variant and options. Each metric has a function of its
name that takes plain arrays, maps of any library; `judge` takes several metrics at once, which then share forwards.
"""

from __future__ import annotations

from .adcc import adcc, adcc_of_means, coherency, complexity
from .arcc import arcc
from .boxes import localisation_error, max_box_acc_v2, saliency_metric
from .case import Case, Ground, Scores
from .completeness import completeness
from .confidence import average_drop, average_gain, average_increase, win
from .curves import deletion, insertion
from .flipping import pixel_flipping
from .model import Model
from .overlap import iou
from .plain import judge
from .pointing import energy_pointing_game, pointing_game
from .randomisation import randomisation, randomisation_table
from .road import road
from .robustness import infidelity, max_sensitivity
from .sparseness import sparseness
from .table import METRICS, Field, Metric, register, resolve, validate

__all__ = [
    "METRICS",
    "Case",
    "Field",
    "Ground",
    "Metric",
    "Model",
    "Scores",
    "adcc",
    "adcc_of_means",
    "arcc",
    "average_drop",
    "average_gain",
    "average_increase",
    "coherency",
    "completeness",
    "complexity",
    "deletion",
    "energy_pointing_game",
    "infidelity",
    "insertion",
    "iou",
    "judge",
    "localisation_error",
    "max_box_acc_v2",
    "max_sensitivity",
    "pixel_flipping",
    "pointing_game",
    "randomisation",
    "randomisation_table",
    "register",
    "resolve",
    "road",
    "saliency_metric",
    "sparseness",
    "validate",
    "win",
]
