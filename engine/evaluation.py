"""
A model, methods and metrics over a data set: rows on the disk, figures with intervals in the hand.

::

    dataset --read_ahead--> batches --Judge--> rows --shards--> folder --summary--> figures --> report

The folder is the state: a shard is there whole or not at all, any number of processes may fill it, and one that is
started again does what is missing. Nothing in the rows depends on who made them, or when.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from .choices import Choice, choose
from .datasets import Broken, Dataset, Read, known_of, open_dataset, read_ahead
from .errors import InputError
from .explainer import Explainer
from .judging import Judge, Tally
from .limits import UNLIMITED, Cancellation, Limits
from .methods import resolve as resolve_method
from .methods import validate as validate_method
from .methods.table import Method
from .metrics import resolve as resolve_metric
from .metrics import validate as validate_metric
from .metrics.accounting import require_complete
from .metrics.case import Ground
from .metrics.plan import Plan, plan_of
from .metrics.randomisation import randomiser
from .metrics.table import Metric
from .opening import load
from .session import runtime
from .shards import Run
from .summary import Summary, summarise
from .workers import work

__all__ = ["Evaluation", "Evaluator", "Opener", "Setting", "evaluate", "finished", "specification", "steps_of"]

Array = npt.NDArray[Any]
Rows = dict[str, dict[str, Any]]

METHODS = ("gradcam", "gradcampp", "layercam", "hirescam", "eigencam", "randomcam", "fakecam")
METRICS = ("average_drop", "average_increase", "average_gain", "adcc", "insertion", "deletion")
BATCH = 8  # images that are judged together: 40 MB of maps and orders for ten methods at 224 x 224
SHARD = 32  # images a shard: what a killed worker loses at most
FORMAT = 1  # of the folder; another number is refused


@dataclass(frozen=True)
class Setting:
    """
    What is evaluated, beside the model and the data set; plain data that travels to other processes.

    Attributes
    ----------
    methods, metrics : tuple of str
        Words as `camrt.choices` reads them.
    classes : {"predicted", "label"}
        Which class of a picture is explained and scored.
    layer : str, tuple of str or None
        As in `Explainer.explain`.
    pipeline : str
        As in `Explainer.explain`.
    mask_space : {"normalised", "raw"}
        What hidden pixels show, to methods and metrics.
    batch, shard : int
        Images judged together, and written together.
    protocol : str or None
        The published protocol that this follows.
    """

    methods: tuple[str, ...] = METHODS
    metrics: tuple[str, ...] = METRICS
    classes: Literal["predicted", "label"] = "predicted"
    layer: str | tuple[str, ...] | None = None
    pipeline: str = "camrt"
    mask_space: str = "normalised"
    batch: int = BATCH
    shard: int = SHARD
    protocol: str | None = None

    def __post_init__(self) -> None:
        if self.classes not in ("predicted", "label"):
            raise InputError(f"classes must be 'predicted' or 'label'; got {self.classes!r}")
        if self.batch < 1 or self.shard < 1:
            raise InputError(f"batch and shard must be at least 1; got {self.batch} and {self.shard}")

    @property
    def chosen_methods(self) -> list[Choice[Method]]:
        """The methods, checked."""
        return choose(self.methods, resolve_method, validate_method)

    @property
    def chosen_metrics(self) -> list[Choice[Metric]]:
        """The metrics, checked."""
        return choose(self.metrics, resolve_metric, validate_metric)

    def plan(self, size: tuple[int, int]) -> Plan:
        """
        Work out what will be run.

        Parameters
        ----------
        size : tuple of int
            ``(H, W)`` of the model's input.

        Returns
        -------
        Plan
            For `Plan.described`.
        """
        return plan_of(self.chosen_metrics, size, self.mask_space)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """
    What an evaluation found.

    Attributes
    ----------
    summary : Summary
        Means with intervals, win rates.
    run : Run or None
        The folder; None where it was temporary.
    rows : pyarrow.Table or None
        What a temporary folder held; use `table`.
    problems : list of dict
        Pictures that were skipped, each with its index, id and reason.
    spec : mapping
        What was evaluated.
    tally : Tally
        What this call has run; less than everything where rows were there already.
    """

    summary: Summary
    run: Run | None
    rows: Any
    problems: list[dict[str, Any]]
    spec: Mapping[str, Any]
    tally: Tally = field(default_factory=Tally)

    @property
    def table(self) -> Any:
        """The rows, a pyarrow.Table: one an image and method, sorted by image."""
        return self.rows if self.run is None else self.run.table()


def evaluate(
    explainer: Explainer,
    dataset: Dataset | str | Path,
    methods: Sequence[str] = METHODS,
    metrics: Sequence[str] = METRICS,
    *,
    out: str | Path | None = None,
    classes: Literal["predicted", "label"] = "predicted",
    layer: str | Sequence[str] | None = None,
    pipeline: str = "camrt",
    mask_space: str = "normalised",
    batch: int = BATCH,
    shard: int = SHARD,
    part: tuple[int, int] | None = None,
    timeout: float | None = None,
    cancel: Cancellation | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """
    Judge methods by metrics over a data set.

    Parameters
    ----------
    explainer : Explainer
        The model.
    dataset : Dataset, str or path
        Pictures; what `camrt.datasets.open_dataset` opens.
    methods, metrics : sequence of str
        ``id[:variant][,name=value...]`` each; `camrt.methods` and `camrt.metrics` list them.
    out : str or path, optional
        Folder of the rows; what is there already is not run again. A temporary one where None.
    classes : {"predicted", "label"}, default "predicted"
        Which class of a picture is explained and scored.
    layer, pipeline, mask_space : optional
        As in `Explainer.explain`; the mask space is also the metrics'.
    batch : int, default 8
        Images judged together.
    shard : int, default 32
        Images written together; what an interrupted run loses at most.
    part : tuple of int, optional
        ``(i, n)``: do the i-th of n parts alone, from 0; n machines need no locks then.
    timeout : float, optional
        Seconds until the call fails; what was written stays.
    cancel : Cancellation, optional
        An off switch that another thread may pull.
    progress : callable, optional
        Called with (images done, images in all).

    Returns
    -------
    Evaluation
        Figures, rows, and what was skipped.

    Raises
    ------
    MethodError
        If a method or metric does not exist, or a metric cannot judge a method.
    InputError
        If the data set is empty, or a metric needs boxes, masks or labels that it does not have.
    OutputError
        If the folder holds another evaluation, or cannot be written.
    DeadlineError, CancelledError
        If `timeout` passed or `cancel` was pulled; finished shards stay.

    Notes
    -----
    Cost: `Setting.plan` tells the forwards before anything is run. Memory does not grow with the data set, apart from
    the list of its pictures and the rows that the summary reads.
    """
    held = tuple(layer) if layer is not None and not isinstance(layer, str) else layer
    setting = Setting(tuple(methods), tuple(metrics), classes, held, pipeline, mask_space, batch, shard)
    data = open_dataset(dataset)
    spec = specification(explainer, data, setting)
    with tempfile.TemporaryDirectory(prefix="camrt-") as spare:
        run = Run.open(Path(spare) / "run" if out is None else Path(out), spec, total=len(data), shard_size=shard)
        limited = Limits(timeout, cancel) if timeout is not None or cancel is not None else UNLIMITED
        with limited as limits:
            compute = Evaluator(explainer, data, setting, limits=limits, progress=_stepping(run, data, progress))
            work(run, compute, part=part)
        return finished(run, setting, compute.tally, keep=out is not None)


def finished(run: Run, setting: Setting, tally: Tally | None = None, *, keep: bool = True) -> Evaluation:
    """
    Read what a folder holds and sum it up.

    Parameters
    ----------
    run : Run
        The folder.
    setting : Setting
        What was evaluated.
    tally : Tally, optional
        What has been run.
    keep : bool
        Whether the folder stays.

    Returns
    -------
    Evaluation
        Of the shards that are there.
    """
    summary = summarise(run, setting.chosen_metrics, [choice.name for choice in setting.chosen_methods])
    table = None if keep else run.table()
    return Evaluation(summary, run if keep else None, table, run.problems(), run.spec, tally or Tally())


def specification(explainer: Explainer, dataset: Dataset, setting: Setting) -> dict[str, Any]:
    """
    Write down everything that rows depend on, so that a folder is only ever filled by the same evaluation.

    Parameters
    ----------
    explainer : Explainer
        The model.
    dataset : Dataset
        The pictures.
    setting : Setting
        The rest.

    Returns
    -------
    dict
        Plain data for JSON.

    Raises
    ------
    MethodError, LayerError, InputError
        If something in it does not fit the rest.
    """
    _check_needs(setting, dataset, explainer)
    layers = {choice.name: list(explainer.layers_of(choice.row.id, setting.layer)) for choice in setting.chosen_methods}
    return {
        "format": FORMAT,
        "model": explainer.manifest.model,
        "dataset": {"name": dataset.name, "images": len(dataset), "fingerprint": dataset.fingerprint},
        "methods": [{**choice.to_dict(), "layers": layers[choice.name]} for choice in setting.chosen_methods],
        "metrics": [choice.to_dict() for choice in setting.chosen_metrics],
        "setting": {**asdict(setting), "methods": list(setting.methods), "metrics": list(setting.metrics)},
        "preprocess": explainer.preprocess.to_dict(),
        "providers": explainer.running["providers"],
        "precision": explainer.running["precision"],
        "chunk": explainer.chunk,
        "versions": {"camrt": version("camrt"), "onnxruntime": runtime().__version__, "numpy": np.__version__},
    }


@dataclass(frozen=True)
class Opener:
    """
    How a worker opens the model for itself; plain data that travels to other processes and machines.

    Attributes
    ----------
    model : str
        An ``.onnx`` file or a bundle folder.
    options : mapping
        Keywords of `camrt.load`.
    fields : mapping
        Fields of the preprocessing that are changed after it.
    dataset : Dataset
        The pictures.
    setting : Setting
        What is evaluated.
    """

    model: str
    options: Mapping[str, Any]
    fields: Mapping[str, Any]
    dataset: Dataset
    setting: Setting

    def __call__(self) -> Evaluator:
        """Open the model."""
        explainer = load(self.model, **self.options)
        return self.around(explainer.preprocessing(**self.fields) if self.fields else explainer)

    def around(self, explainer: Explainer, progress: Callable[[int], None] | None = None) -> Evaluator:
        """
        Return what computes rows, with a model that is open already.

        Parameters
        ----------
        explainer : Explainer
            The model.
        progress : callable, optional
            Told how many more images are done.

        Returns
        -------
        callable
            From a range to rows and problems.
        """
        return Evaluator(explainer, self.dataset, self.setting, progress=progress)


class Evaluator:
    """
    Return a function from a range of the data set to its rows and problems.

    Parameters
    ----------
    explainer : Explainer
        The model.
    dataset : Dataset
        The pictures.
    setting : Setting
        What is evaluated.
    limits : Limits
        What may end it early.
    progress : callable, optional
        Told how many more images are done.

    Notes
    -----
    The rows of a range depend on nothing else, to the bit: batches begin at its first image.
    """

    def __init__(
        self,
        explainer: Explainer,
        dataset: Dataset,
        setting: Setting,
        *,
        limits: Limits = UNLIMITED,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._explainer, self._dataset, self._setting = explainer, dataset, setting
        self._progress = progress
        self.tally = Tally()
        self._judge = Judge(
            explainer,
            setting.chosen_methods,
            setting.plan(explainer.preprocess.size),
            setting.layer,
            setting.pipeline,
            setting.mask_space,
            randomised=randomiser(explainer),
            limits=limits,
            tally=self.tally,
        )

    def __call__(self, indices: range) -> tuple[Rows, list[dict[str, Any]]]:
        """Judge the pictures of a range."""
        problems: list[dict[str, Any]] = []
        parts: list[tuple[list[Read], dict[str, dict[str, Array]]]] = []
        for batch in self._batches(indices, problems):
            x = np.concatenate([read.x for read in batch])
            labels = np.array([-1 if read.label is None else read.label for read in batch], np.int64)
            ground = Ground(
                boxes=[read.boxes for read in batch],
                masks=[read.mask for read in batch],
                labels=labels,
                ignored=[read.ignored for read in batch],
            )
            parts.append((batch, self._judge.batch(x, labels if self._setting.classes == "label" else None, ground)))
        return _joined(parts, [choice.name for choice in self._judge.methods]), problems

    def _batches(self, indices: range, problems: list[dict[str, Any]]) -> Iterator[list[Read]]:
        """Read pictures ahead, put broken ones aside, and yield full batches."""
        batch: list[Read] = []
        classes = self._explainer.manifest.classes
        for read in read_ahead(self._dataset, indices, self._explainer.preprocess, n_classes=classes):
            if isinstance(read, Broken):
                problems.append({"index": read.sample.index, "id": read.sample.id, "reason": read.reason})
            elif self._setting.classes == "label" and read.label is None:
                reason = "it has no label, and labels are what is explained"
                problems.append({"index": read.sample.index, "id": read.sample.id, "reason": reason})
            else:
                batch.append(read)
            if self._progress is not None and len(batch) < self._setting.batch:
                self._progress(1)
            if len(batch) == self._setting.batch:
                yield batch
                batch = []
                if self._progress is not None:
                    self._progress(1)
        if batch:
            yield batch


def steps_of(run: Run, advance: Callable[[int], None]) -> Callable[[int], None]:
    """
    Return a callable that turns a count of all pictures done into steps.

    Parameters
    ----------
    run : Run
        The folder.
    advance : callable
        Told how many more are done.

    Returns
    -------
    callable
        Told how many are done.
    """
    done = 0

    def _report(count: int) -> None:
        nonlocal done
        advance(min(count, run.total) - done)
        done = min(count, run.total)

    return _report


def _joined(parts: Sequence[tuple[list[Read], dict[str, dict[str, Array]]]], methods: Sequence[str]) -> Rows:
    """Put the columns of batches together, with what is known of each picture."""
    if not parts:
        return {}
    known = {
        "index": np.array([read.sample.index for batch, _ in parts for read in batch], np.int64),
        "id": [read.sample.id for batch, _ in parts for read in batch],
        "label": np.array([-1 if read.label is None else read.label for batch, _ in parts for read in batch], np.int64),
    }
    return {
        method: known
        | {name: np.concatenate([rows[method][name] for _, rows in parts]) for name in parts[0][1][method]}
        for method in methods
    }


def _check_needs(setting: Setting, dataset: Dataset, explainer: Explainer) -> None:
    """Refuse metrics that need what the data set does not have, or weights where there are programs alone."""
    has = known_of(dataset)
    for choice in setting.chosen_metrics:
        wanted = {"boxes", "masks"} & set(choice.row.needs)
        if wanted and not wanted & has:
            raise InputError(f"{choice.row.id} needs {' or '.join(sorted(wanted))}; {dataset.name} has none")
        if "labels" in choice.row.needs and "labels" not in has:
            raise InputError(f"{choice.row.id} needs labels; {dataset.name} has none")
        if "raw" in choice.row.needs:
            for method in setting.chosen_methods:
                require_complete(method.row.id, method.variant)
        if "model" in choice.row.needs:
            _ = explainer.weight_layers
    if setting.classes == "label" and "labels" not in has:
        raise InputError(f"labels are to be explained, and {dataset.name} has none: leave classes at 'predicted'")


def _stepping(run: Run, dataset: Dataset, progress: Callable[[int, int], None] | None) -> Callable[[int], None] | None:
    """Return a callable that counts images on top of those that are there."""
    if progress is None:
        return None
    done = sum(len(run.ranges[shard]) for shard in run.done())
    progress(done, len(dataset))

    def step(images: int) -> None:
        nonlocal done
        done += images
        progress(min(done, len(dataset)), len(dataset))

    return step
