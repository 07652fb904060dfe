"""
The methods: one small file a paper, one row each in the table.

`resolve` finds a method by a forgiving name, `validate` completes a variant and options, `raw_map` runs it.
"""

from __future__ import annotations

from . import (  # each registers its row
    cam,
    eigencam,
    eigengradcam,
    elementwisecam,
    fakecam,
    fem,
    finercam,
    fullgrad,
    gradcam,
    gradcampp,
    guidedgradcam,
    hirescam,
    integratedgradcam,
    kpcacam,
    lafam,
    layercam,
    liftcam,
    randomcam,
    refinecam,
    relevancecam,
    shapleycam,
    smoothgradcampp,
    xgradcam,
)
from .raw import check_finite, raw_map
from .table import EVIDENCE, METHODS, Method, Option, Result, register, resolve, validate

__all__ = [
    "EVIDENCE",
    "METHODS",
    "Method",
    "Option",
    "Result",
    "cam",
    "check_finite",
    "eigencam",
    "eigengradcam",
    "elementwisecam",
    "fakecam",
    "fem",
    "finercam",
    "fullgrad",
    "gradcam",
    "gradcampp",
    "guidedgradcam",
    "hirescam",
    "integratedgradcam",
    "kpcacam",
    "lafam",
    "layercam",
    "liftcam",
    "randomcam",
    "raw_map",
    "refinecam",
    "register",
    "relevancecam",
    "resolve",
    "shapleycam",
    "smoothgradcampp",
    "validate",
    "xgradcam",
]
