"""
KServe's version 1: a document of instances to an `Ask`, an `Answer` to a document.

An instance is one image: ``{"b64": "..."}``, a nested list that is a prepared input, or an object with one of those
under ``image`` and, if you like, a ``target``. Beside ``instances`` stand ``parameters``, as in version 2, but with the
timeout in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import InputError
from .asking import make_ask, read_target, read_timeout, read_wish
from .asks import Ask
from .documents import read_base64, said
from .faults import TooLargeError
from .infer import check_json_answer, finite
from .tensors import datatype_of, read_nested

if TYPE_CHECKING:
    from .served import Served
    from .settings import Settings
    from .tickets import Answer

__all__ = ["read_instances", "write_explanations", "write_predictions"]


def read_instances(document: object, served: Served, settings: Settings, *, explain: bool = True) -> Ask:
    """
    Read a request.

    Parameters
    ----------
    document : object
        From JSON: an object with ``instances`` (or ``inputs``), and optionally ``parameters``.
    served : Served
        The model.
    settings : Settings
        Limits.
    explain : bool, default True
        Whether heatmaps are wanted beside the scores.

    Returns
    -------
    Ask
        For the scheduler.

    Raises
    ------
    InputError
        If anything is not as the protocol or the model has it; its subclasses say which status.
    """
    if not isinstance(document, dict):
        raise InputError(f"a request is a JSON object with instances; got {said(document)}")
    if "instances" in document and "inputs" in document:
        raise InputError("a request has instances or inputs; got both")
    instances = document.get("instances", document.get("inputs"))
    if not isinstance(instances, list) or not instances:
        raise InputError(f"instances must be a list of images, at least one; got {said(instances)}")
    if len(instances) > settings.max_images:
        raise TooLargeError(f"{len(instances)} instances were sent; {settings.max_images} are allowed")
    parameters = document.get("parameters")
    if not isinstance(parameters, dict | None):
        raise InputError(f"parameters must be an object; got {said(parameters)}")
    parameters = parameters or {}
    pairs = [_split(instance, index) for index, instance in enumerate(instances)]
    ask = make_ask(
        _images([image for image, _ in pairs], served),
        _target([target for _, target in pairs], parameters),
        read_wish(parameters, served, settings) if explain else None,
        read_timeout(parameters.get("timeout"), settings),
        served,
        settings,
    )
    if explain:
        check_json_answer(ask, 1, served, settings)
    return ask


def write_predictions(answer: Answer) -> dict[str, Any]:
    """
    Write the scores.

    Parameters
    ----------
    answer : Answer
        From the scheduler.

    Returns
    -------
    dict
        ``predictions``: an array (N, C), for `camrt.server.documents.write_json`.

    Raises
    ------
    NumericError
        If the model's scores are not finite; JSON could not say so.
    """
    return {"predictions": np.ascontiguousarray(finite(answer.logits))}


def write_explanations(answer: Answer) -> dict[str, Any]:
    """
    Write scores and explanations.

    Parameters
    ----------
    answer : Answer
        From the scheduler, with an explanation.

    Returns
    -------
    dict
        ``predictions`` as `write_predictions` writes them, and ``explanations``: for each image ``targets`` (classes),
        ``labels``, ``values``, ``degenerate`` and ``heatmaps`` (T, H, W).

    Raises
    ------
    NumericError
        As `write_predictions`.
    InputError
        If only scores were asked for.
    """
    made = answer.explanation
    if made is None:
        raise InputError("explanations were not asked for")
    heatmaps, values = np.ascontiguousarray(made.heatmaps, np.float32), np.ascontiguousarray(finite(made.values))
    targets, degenerate = np.ascontiguousarray(made.targets, np.int64), np.ascontiguousarray(made.degenerate, np.bool_)
    return write_predictions(answer) | {
        "explanations": [
            {
                "targets": targets[i],
                "labels": list(made.labels[i]),
                "values": values[i],
                "degenerate": degenerate[i],
                "heatmaps": heatmaps[i],
            }
            for i in range(len(targets))
        ]
    }


def _split(instance: Any, index: int) -> tuple[bytes | list[Any], Any]:
    """Return an instance's image, decoded from base64 or a nested list, and its target."""
    target = None
    if isinstance(instance, dict) and "image" in instance:
        if len(instance) > 2 or not instance.keys() <= {"image", "target"}:
            raise InputError(f"instance {index} is an object of image and target; got {said(instance)}")
        instance, target = instance["image"], instance.get("target")
    if isinstance(instance, dict) and instance.keys() == {"b64"}:
        return read_base64(instance["b64"], f"the picture of instance {index}"), target
    if isinstance(instance, list):
        return instance, target
    raise InputError(
        f"instance {index} must be a nested list, an object with b64, or one with image (and target); "
        f"got {said(instance)}"
    )


def _images(images: list[bytes | list[Any]], served: Served) -> tuple[bytes, ...] | npt.NDArray[Any]:
    """Return pictures, or one array of prepared inputs."""
    pictures = tuple(image for image in images if isinstance(image, bytes))
    numbers = [image for image in images if not isinstance(image, bytes)]
    if not numbers:
        return pictures
    if pictures:
        raise InputError("some instances are encoded pictures and some are numbers; send them in two requests")
    preprocess = served.explainer.preprocess
    datatype = datatype_of(preprocess.dtype if preprocess.dtype != "float16" else "float32")
    stacked = [
        read_nested(image, datatype, preprocess.shape, f"instance {index}") for index, image in enumerate(numbers)
    ]
    return np.stack(stacked)


def _target(targets: list[Any], parameters: Mapping[str, Any]) -> Any:
    """Return what is explained: each instance's own, or what the parameters say of all."""
    if all(target is None for target in targets):
        return read_target(parameters)
    if "target" in parameters:
        raise InputError("a target was given with an instance and as a parameter; give one of them")
    return targets
