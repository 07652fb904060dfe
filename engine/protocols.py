"""
The settings behind published tables, so that they can be run again.

A protocol's name goes in; out come the methods and metrics with their variants, the preprocessing, layer, masking and
class, what is not known of them, and the tables they belong to. What a paper does not say and its code does not show is
listed under `unknowns`, and stands at the project's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from .errors import MethodError
from .references import REFERENCES, ReferenceRow, ReferenceTable
from .words import normalise, offer

__all__ = ["PROTOCOLS", "Protocol", "resolve"]


@dataclass(frozen=True)
class Protocol:
    """
    How one paper's table was made.

    Attributes
    ----------
    id : str
        Its name here.
    title : str
        What it is.
    paper : str
        Whose table.
    methods : tuple of str
        What is judged, ``id[:variant][,name=value...]`` each.
    metrics : tuple of str
        What judges, written the same way.
    boxed : tuple of str
        Metrics that come on top where the data set has boxes.
    preprocess : mapping of str to object
        Fields of `camrt.preprocess.Preprocess` that differ from the model's own.
    layer : str or None
        Which layer is explained; the default where None.
    mask_space : {"normalised", "raw"}
        What hidden pixels show: the mean colour, or black.
    classes : {"predicted", "label"}
        Which class is explained.
    pipeline : str
        From raw map to heatmap, see `camrt.pipeline`.
    subset : str
        Which pictures.
    aggregation : str
        How per-image values became the table.
    unknowns : tuple of str
        What is not known, one sentence each.
    tables : tuple of str
        Ids of published tables, see `camrt.references`.
    """

    id: str
    title: str
    paper: str
    methods: tuple[str, ...]
    metrics: tuple[str, ...]
    boxed: tuple[str, ...] = ()
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    layer: str | None = None
    mask_space: Literal["normalised", "raw"] = "normalised"
    classes: Literal["predicted", "label"] = "predicted"
    pipeline: str = "camrt"
    subset: str = ""
    aggregation: str = "mean over images"
    unknowns: tuple[str, ...] = ()
    tables: tuple[str, ...] = ()

    @property
    def references(self) -> tuple[ReferenceTable, ...]:
        """The published tables."""
        return tuple(REFERENCES[id] for id in self.tables)

    def settings(self, *, boxes: bool = False) -> dict[str, Any]:
        """
        Return what an evaluation is to be told.

        Parameters
        ----------
        boxes : bool
            Whether the data set has boxes.

        Returns
        -------
        dict
            ``methods``, ``metrics``, ``preprocess``, ``layer``, ``mask_space``, ``classes`` and ``pipeline``.
        """
        return {
            "methods": list(self.methods),
            "metrics": [*self.metrics, *(self.boxed if boxes else ())],
            "preprocess": dict(self.preprocess),
            "layer": self.layer,
            "mask_space": self.mask_space,
            "classes": self.classes,
            "pipeline": self.pipeline,
        }

    def differences(self, used: Mapping[str, Any]) -> list[str]:
        """
        Say where a run departs from the protocol.

        Parameters
        ----------
        used : mapping
            The run's own ``preprocess``, ``layer``, ``mask_space``, ``classes`` and ``pipeline``; what is missing is
            not compared.

        Returns
        -------
        list of str
            One sentence a setting.

        Examples
        --------
        >>> PROTOCOLS["rise"].differences({"mask_space": "raw"})
        ['mask_space is raw; the protocol has normalised']
        """
        wanted = {k: v for k, v in self.settings().items() if k not in ("methods", "metrics", "preprocess")}
        wanted |= {f"preprocess.{name}": value for name, value in self.preprocess.items()}
        fields = used.get("preprocess")
        given = {**used, **{f"preprocess.{k}": v for k, v in (fields if isinstance(fields, Mapping) else {}).items()}}
        return [
            f"{name} is {_said(given[name])}; the protocol has {_said(value)}"
            for name, value in wanted.items()
            if name in given and _said(given[name]) != _said(value)
        ]

    def rows_for(self, model: str) -> list[tuple[ReferenceTable, tuple[ReferenceRow, ...]]]:
        """
        Return the published rows to draw beside a model's.

        Parameters
        ----------
        model : str
            The model's name.

        Returns
        -------
        list of (ReferenceTable, tuple of ReferenceRow)
            Those of the same network; of every network where the name fits none of a table's.
        """
        found = []
        for table in self.references:
            same = tuple(row for row in table.rows if row.is_of(model))
            found.append((table, same or table.rows))
        return found


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.id: protocol
    for protocol in (
        Protocol(
            id="adcc",
            title="ADCC: average drop, coherency, complexity",
            paper="Poppi et al. 2021, arXiv:2104.10252",
            methods=(
                "gradcam",
                "gradcampp:torchcam",
                "smoothgradcampp:torchcam",
                "scorecam:torchcam-0.2",
                "reciprocam",
                "fakecam",
            ),
            metrics=("average_drop", "average_increase", "deletion", "insertion", "coherency", "complexity", "adcc"),
            preprocess={"resize": "crop", "crop_ratio": 1.0, "size": (224, 224)},
            layer="torchcam-auto",
            pipeline="torchcam",
            subset="ImageNet validation, all pictures",
            aggregation="ADCC is the harmonic mean of the three means over images, not the mean of per-image values",
            unknowns=(
                "How insertion and deletion were set; RISE's official setting is used.",
                (
                    "Which of torch-cam's commits made the Grad-CAM++ and Smooth Grad-CAM++ rows; the variants follow "
                    "the commit that the authors' code pins."
                ),
                "How maps were enlarged; bilinear is used.",
                "Which weights; torchvision's first ones (V1) are the likely ones.",
                "Poppi's own Fake-CAM rows were not seen; by the formula ADCC is about 0.006 %.",
            ),
            tables=("poppi",),
        ),
        Protocol(
            id="scorecam",
            title="Score-CAM: half of the picture muted, insertion, deletion, energy game",
            paper="Wang et al. 2020, arXiv:1910.01279",
            methods=("gradcam", "gradcampp", "scorecam", "rise"),
            metrics=(
                "average_drop:score-cam",
                "average_increase:score-cam",
                "insertion:score-cam",
                "deletion:score-cam",
            ),
            boxed=("energy_pointing_game",),
            preprocess={"resize": "squash", "size": (224, 224)},
            subset="2000 pictures of ImageNet validation; for the energy game 500 with a single box of at most half "
            "the picture (subset 'score-cam')",
            unknowns=(
                "Which pictures were drawn.",
                "Which class: the prediction is used.",
                "Which of the two weightings in the paper made the table; the code's class probability is used.",
                "The paper squashes pictures to 224 x 224; its code crops them.",
                "The rows of Mask, Gradient, SmoothGrad and Integrated Gradients have no method here.",
            ),
            tables=("scorecam",),
        ),
        Protocol(
            id="opticam",
            title="Opti-CAM: average drop, gain and increase under black masks",
            paper="Zhang et al. 2024, arXiv:2301.07002",
            methods=(
                "fakecam",
                "gradcam",
                "gradcampp",
                "scorecam",
                "ablationcam",
                "xgradcam",
                "layercam",
                "opticam:official",
            ),
            metrics=(
                "average_drop",
                "average_gain",
                "average_increase",
                "insertion:ca-stream",
                "deletion:ca-stream",
            ),
            boxed=("localisation_error", "max_box_acc_v2", "energy_pointing_game", "saliency_metric"),
            preprocess={"size": (224, 224)},
            mask_space="raw",
            subset="ImageNet validation; how many pictures is not known",
            unknowns=(
                "Opti-CAM's own table was not seen; the rows beside yours are the same group's later ones (CA-Stream).",
                "How pictures were resized; the model's own preprocessing is used.",
                "Which class: the prediction is used; the code takes a label where one is given.",
                "Insertion and deletion follow the group's later code (CA-Stream).",
                "Whether the table took 50 or 100 iterations; 100 is used.",
            ),
            tables=("castream",),
        ),
        Protocol(
            id="rise",
            title="RISE: insertion and deletion",
            paper="Petsiuk et al. 2018, arXiv:1806.07421",
            methods=("gradcam", "rise"),
            metrics=("insertion", "deletion"),
            preprocess={"resize": "squash", "size": (224, 224)},
            subset="ImageNet validation; how many pictures is not known",
            unknowns=(
                "The paper's table was not seen, so no rows stand beside yours.",
                (
                    "Whether it was made in 224 steps, as the code does for one picture, or in 28, as it does for a "
                    "batch; 224 are used (insertion,steps=28 is the other)."
                ),
                "Which layer Grad-CAM explained; the default is used.",
            ),
        ),
    )
}


def resolve(name: str) -> Protocol:
    """
    Find a protocol by its name; case, hyphens, underscores and spaces do not matter.

    Parameters
    ----------
    name : str
        For example ``"Score-CAM"``.

    Returns
    -------
    Protocol
        The row of the table.

    Raises
    ------
    MethodError
        If there is none.
    """
    for protocol in PROTOCOLS.values():
        if isinstance(name, str) and normalise(name) == protocol.id:
            return protocol
    raise MethodError(f"no protocol is called {name!r}; {offer(name, PROTOCOLS)}")


def _said(value: object) -> str:
    """Write a setting as text; lists and tuples alike."""
    if value is None:
        return "the default"
    return " x ".join(str(item) for item in value) if isinstance(value, list | tuple) else str(value)
