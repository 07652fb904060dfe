"""
A model that is ready to explain: pictures and targets go in, an `Explanation` comes out.

::

    images --prepare--> x --maps--> raw maps, heatmaps, flags --fetch--> Explanation
           (image.py)  (drawing.py)                      (results.py)

What is asked is checked in `plans.py`; how much of it goes into one run of the model is in `runs.py`. An `Explainer`
holds a model's sessions and settings and never changes: any number of threads may use it at once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from camrt.export.manifest import Layer, Manifest, Source

from . import targets as target_table
from .anytime import Budget
from .drawing import Mapper, Request
from .errors import ImageError, MethodError, TargetError
from .evidence import Question, gather
from .explanation import Explanation
from .image import prepare
from .limits import UNLIMITED, Cancellation, Limits
from .maps import Maps, joined
from .planner import Planner
from .plans import Plans
from .preprocess import Preprocess
from .results import Drawn, drawn_of, explanation_of, fetched, made_by, provenance_of
from .runs import MEMORY, Runs, parts
from .session import Sessions
from .targets import Logit, Target

__all__ = ["Explainer"]

Array = npt.NDArray[Any]


class Explainer:
    """
    A classifier, ready to explain; made by `camrt.load`.

    Parameters
    ----------
    sessions : Sessions
        The model's programs.
    preprocess : Preprocess
        How pictures become inputs.
    labels : tuple of str
        Class names, or empty.
    layer : Layer, optional
        The default layer, in place of the manifest's.
    preprocess_reason : str
        Where `preprocess` comes from.
    memory : int
        Bytes that a chunk of masked forwards may take.
    """

    def __init__(
        self,
        sessions: Sessions,
        preprocess: Preprocess,
        labels: tuple[str, ...] = (),
        *,
        layer: Layer | None = None,
        preprocess_reason: str = "",
        memory: int = MEMORY,
    ) -> None:
        self._sessions = sessions
        self._layer = layer
        self.preprocess = preprocess
        self.preprocess_reason = preprocess_reason
        self.labels = labels
        self._plans = Plans(sessions.source, preprocess.size, layer)
        self._runs = Runs(sessions, memory)
        self._mapper = Mapper(sessions, self._runs, preprocess, labels)

    @property
    def manifest(self) -> Manifest:
        """What is known of the model."""
        return self._sessions.source.manifest

    @property
    def source(self) -> Source:
        """Where the programs come from: a bundle, or the model in memory."""
        return self._sessions.source

    @property
    def sessions(self) -> Sessions:
        """The model's programs, as ONNX Runtime runs them."""
        return self._sessions

    @property
    def layers(self) -> tuple[Layer, ...]:
        """Every tensor that can be explained, the default marked, in graph order."""
        return self._plans.layers

    def explain(
        self,
        images: Any,
        *,
        method: str = "gradcam",
        target: Any = None,
        layer: str | Sequence[str] | None = None,
        variant: str | None = None,
        options: Mapping[str, object] | None = None,
        pipeline: str = "camrt",
        fuse: str | None = None,
        eigen_smooth: bool = False,
        tta: bool = False,
        mask_space: str = "normalised",
        budget: Budget | None = None,
        timeout: float | None = None,
        cancel: Cancellation | None = None,
        progress: Callable[[float, int], None] | None = None,
    ) -> Explanation:
        """
        Explain pictures.

        Parameters
        ----------
        images : path, bytes, PIL image, ndarray or list of those
            Pictures; a float array in the model's own layout is taken as prepared. What `camrt.image.prepare` made is
            taken as it is, without another look at it.
        method : str, default "gradcam"
            A method id or alias; `camrt.methods` lists them.
        target : optional
            None for the predicted class; a class index, a label, a target object of `camrt.targets`; a list of those
            for several targets an image; an (N, T) array.
        layer : str or sequence of str, optional
            A tensor, node or module path; several are fused.
        variant : str, optional
            One of the method's variants.
        options : mapping, optional
            The method's options, for example ``{"n": 10}``.
        pipeline : {"camrt", "pytorch-grad-cam", "torchcam"}, default "camrt"
            The order of ReLU, scaling and resize.
        fuse : {"mean", "max", "product"}, optional
            How maps of several layers are joined; the method's own way unless told otherwise.
        eigen_smooth : bool, default False
            Replace the sum over channels by the leading component of the weighted activations.
        tta : bool, default False
            Average six runs: plain and mirrored, each at 0.9, 1.0 and 1.1 times the input.
        mask_space : {"normalised", "raw"}, default "normalised"
            What hidden pixels show to methods that mask: zero after preprocessing, which is the mean colour, or black. A
            variant that is defined by one of them keeps it; the provenance says which.
        budget : Budget, optional
            Stop a method of masked forwards early; the flags ``complete``, ``forwards``, ``stability`` and ``bound`` say
            how far it came.
        timeout : float, optional
            Seconds until the call fails.
        cancel : Cancellation, optional
            An off switch that another thread may pull.
        progress : callable, optional
            Called with (images done, images in all) after every batch, and with parts of an image where one takes many
            forwards.

        Returns
        -------
        Explanation
            Logits, raw maps, heatmaps, flags and provenance.

        Raises
        ------
        ImageError, TargetError, LayerError, MethodError
            If an argument does not fit; each says what to give instead.
        NumericError
            If a map, or the score of a masked image, holds NaN or infinity.
        MemoryBoundError
            If a single masked forward does not fit the memory that is allowed.
        DeadlineError, CancelledError
            If `timeout` passed or `cancel` was pulled; nothing partial is returned.

        Notes
        -----
        Cost: METHODS lists each method's work; a gradient method on one target takes one run of little more than a
        forward. Many images are run in batches of a few; results do not depend on it. Masked forwards of all images,
        and of all callers at the same time, share chunks (`camrt.planner`); several targets of an image share the
        forwards themselves.
        """
        plan = self._plans.of(method, variant, options, layer, pipeline, fuse, eigen_smooth, mask_space)
        if budget is not None and plan.method.runs is None:
            raise MethodError(
                f"a budget is for methods of many masked forwards; {plan.method.id} has none to leave out"
            )
        prepared = prepare(images, self.preprocess)
        x = prepared.x
        table = target_table.parse(target, n_images=len(x), n_classes=self.manifest.classes, labels=self.labels)
        draw = self._mapper.augmented if tta else self._mapper.maps
        chunks: list[Maps] = []
        with _limited(timeout, cancel) as limits, self._sessions.place() as placed:
            step = self.batch if budget is None else 1  # what a budget allows does not depend on the neighbours
            for start in range(0, len(x), step):
                rows = slice(start, start + step)
                limits.check()
                request = Request(limits, budget, _within(progress, start, len(x[rows]), len(x)))
                maps = draw(plan, request, placed(x[rows]), _columns(table[rows]))
                chunks.append(fetched(plan, maps, self.labels))
                if progress is not None:
                    progress(min(start + step, len(x)), len(x))
        return explanation_of(plan, chunks, prepared, provenance_of(plan, self._made_by, tta=tta))

    def draw(
        self,
        x: Array,
        classes: npt.NDArray[np.int64] | None = None,
        *,
        method: str = "gradcam",
        variant: str | None = None,
        options: Mapping[str, object] | None = None,
        layer: str | Sequence[str] | None = None,
        pipeline: str = "camrt",
        mask_space: str = "normalised",
        limits: Limits = UNLIMITED,
    ) -> Drawn:
        """
        Make one map for each prepared input and leave it where it was made; what evaluations are built on.

        Parameters
        ----------
        x : ndarray, shape (N, ...)
            Inputs that `camrt.image.prepare` made, or changed copies of such, on the host or where `place` put them.
        classes : ndarray of int64, shape (N,), optional
            The class explained of each; the predicted ones where None.
        method, variant, options, layer, pipeline, mask_space : optional
            As in `explain`.
        limits : Limits
            What may end it early.

        Returns
        -------
        Drawn
            Maps, logits and classes.

        Raises
        ------
        MethodError, LayerError, TargetError
            If an argument does not fit.
        NumericError
            If a map or the logits hold NaN or infinity.

        Notes
        -----
        Cost: as `explain`, in runs of the same size, so the numbers are those of `explain`.
        """
        plan = self._plans.of(method, variant, options, layer, pipeline, mask_space=mask_space)
        target = None if classes is None else np.asarray(classes)[:, None]
        table = target_table.parse(target, n_images=len(x), n_classes=self.manifest.classes, labels=self.labels)
        made: list[Maps] = []
        for start, part in parts(x, self.batch):
            limits.check()
            columns = _columns(table[start : start + self.batch])
            made.append(self._mapper.maps(plan, Request(limits), part, columns))
        return drawn_of(plan, made)

    def preprocessing(self, **fields: Any) -> Explainer:
        """
        Return the same model with other preprocessing.

        Parameters
        ----------
        **fields : object
            Fields of `Preprocess` to change; the size must stay the model's.

        Returns
        -------
        Explainer
            It shares the opened programs.

        Raises
        ------
        ImageError
            If a field does not exist or does not fit.
        """
        changed = Preprocess.from_dict({**self.preprocess.to_dict(), **fields})
        if changed.shape != self.preprocess.shape:
            raise ImageError(f"the model takes inputs of shape {self.preprocess.shape}; {changed.shape} was asked for")
        return self._with(self._sessions, changed)

    @property
    def weight_layers(self) -> tuple[str, ...]:
        """
        The layers of weights that `randomised` can draw anew, by their nodes' names, from the logits to the image.

        Raises
        ------
        BundleError
            If a bundle is open.
        ModelError
            If the model is quantised, or has no weights.
        """
        return self.source.weight_layers()

    def randomised(self, layers: Sequence[str], seed: int = 0) -> Explainer:
        """
        Return the same model with some weights drawn anew, for sanity checks.

        Weights and biases come from ``U(-1/sqrt(fan_in), 1/sqrt(fan_in))``; norms behind them get scale 1 and shift 0 and
        keep their statistics.

        Parameters
        ----------
        layers : sequence of str
            Which of `weight_layers`; the others keep their weights.
        seed : int, default 0
            At least 0. A layer's numbers depend on it and on the layer's name, not on what else is drawn.

        Returns
        -------
        Explainer
            Its layers, classes and preprocessing are this one's; programs are opened on first use, and closed with it.

        Raises
        ------
        BundleError
            If a bundle is open: it holds programs, not the model.
        LayerError
            If there is no such layer of weights.
        ModelError
            If the model is quantised (``precision="twin"`` is its float twin, which can be drawn), or has no weights.

        References
        ----------
        Adebayo et al. 2018, Sanity Checks for Saliency Maps, arXiv:1810.03292.
        """
        return self._with(self._sessions.of(self.source.randomised(layers, seed)), self.preprocess)

    def layers_of(self, method: str, layer: str | Sequence[str] | None = None) -> tuple[str, ...]:
        """
        Return the layers that a method's map is made at.

        Parameters
        ----------
        method : str
            A method id or alias.
        layer : str or sequence of str, optional
            As in `explain`.

        Returns
        -------
        tuple of str
            Tensor names.

        Raises
        ------
        MethodError, LayerError
            If there is no such method or layer, or the method does not work there.
        """
        return self._plans.of(method, layer=layer).names

    @cached_property
    def batch(self) -> int:
        """How many images go into one run: what is fastest on the first provider; a fixed batch is filled."""
        return self._runs.batch

    @property
    def running(self) -> Mapping[str, Any]:
        """What the model runs on: providers and precision."""
        return {"providers": [p.name for p in self._sessions.providers], "precision": self._sessions.precision}

    def place(self) -> AbstractContextManager[Callable[[Array], Array]]:
        """
        Hold the device, where there is one.

        Returns
        -------
        context manager
            It gives a callable that brings inputs to where the model runs; `draw` is called inside.
        """
        return self._sessions.place()

    def logits(
        self, images: Any, *, timeout: float | None = None, cancel: Cancellation | None = None
    ) -> npt.NDArray[np.float32]:
        """
        Return the model's scores.

        Parameters
        ----------
        images : as in `explain`
            N pictures.
        timeout : float, optional
            Seconds until the call fails.
        cancel : Cancellation, optional
            An off switch that another thread may pull.

        Returns
        -------
        ndarray of float32, shape (N, C)
            The scores before any softmax.

        Raises
        ------
        ImageError
            If an image does not fit.
        NumericError
            If a score is NaN or infinite.
        DeadlineError, CancelledError
            If `timeout` passed or `cancel` was pulled.
        """
        x = prepare(images, self.preprocess).x
        with _limited(timeout, cancel) as limits:
            found = [
                self._sessions.run("forward", (), {"x": part}, limits)["logits"] for _, part in parts(x, self.batch)
            ]
        return joined(found).astype(np.float32, copy=False)

    def activations(self, images: Any, *, layer: str | Sequence[str] | None = None) -> dict[str, Array]:
        """
        Return a layer's values.

        Parameters
        ----------
        images : as in `explain`
            N pictures.
        layer : str or sequence of str, optional
            Layers; the default one when None.

        Returns
        -------
        dict of str to ndarray, shape (N, K, h, w)
            By layer name.
        """
        layers, x = self._plans.resolve(layer), prepare(images, self.preprocess).x
        named = [self._sessions.run("features", layers, {"x": part}) for _, part in parts(x, self.batch)]
        return _by_layer(layers, "activations", named)

    def gradients(
        self, images: Any, target: Any = None, *, layer: str | Sequence[str] | None = None
    ) -> dict[str, Array]:
        """
        Return the gradient of the target at a layer.

        Parameters
        ----------
        images : as in `explain`
            N pictures.
        target : as in `explain`
            One target an image.
        layer : str or sequence of str, optional
            Layers; the default one when None.

        Returns
        -------
        dict of str to ndarray, shape (N, K, h, w)
            d target / d activation, by layer name.
        """
        layers, x = self._plans.resolve(layer), prepare(images, self.preprocess).x
        column = self._one_column(target, len(x))
        found = []
        for start, part in parts(x, self.batch):
            rows = column[start : start + len(part)]
            (evidence,) = gather(Question(self._sessions, layers, part), [rows], gradients=True)
            found.append({f"gradients.{i}": g for i, g in enumerate(evidence.grads or ())})
        return _by_layer(layers, "gradients", found)

    def input_gradient(self, images: Any, target: Any = None) -> Array:
        """
        Return the gradient of the target at the model's input.

        Parameters
        ----------
        images : as in `explain`
            N pictures.
        target : as in `explain`
            One target an image.

        Returns
        -------
        ndarray, shape of the prepared input
            d target / d x.

        Notes
        -----
        Cost: one forward and one backward pass; another forward for targets that depend on the logits.
        """
        x = prepare(images, self.preprocess).x
        column = self._one_column(target, len(x))
        found = []
        for start, part in parts(x, self._runs.gradient_batch):
            rows = column[start : start + len(part)]
            logits = np.zeros((len(part), self.manifest.classes), np.float32)
            if not all(isinstance(t, Logit) and t.index is not None for t in rows):
                logits = self._sessions.run("forward", (), {"x": part})["logits"]
            seed = target_table.seeds(rows, logits).astype(logits.dtype, copy=False)
            found.append(self._sessions.run("input_gradient", (), {"x": part, "seed": seed})["input_gradient"])
        return joined(found)

    def planner(self, x: Array) -> Planner:
        """
        Return the stream that all masked forwards of inputs like these share.

        Parameters
        ----------
        x : ndarray, shape (N, ...)
            Prepared inputs.

        Returns
        -------
        Planner
            It runs the ``forward`` program; the same one for every caller.
        """
        return self._runs.planner(x)

    @cached_property
    def chunk(self) -> int:
        """
        How many masked forwards go into one run.

        Raises
        ------
        MemoryBoundError
            If one does not fit the memory that `camrt.load` was allowed.
        """
        return self._runs.chunk

    @property
    def chunk_memory(self) -> int:
        """
        The bytes that masked forwards take on top of the opened model, whatever the number of masks.

        It is known before anything is run, and never above what `camrt.load` was allowed as ``memory``. Beside it, the
        logits of one batch's masks are kept: four bytes for each mask and class. Opti-CAM's gradients at masked images keep
        every activation and may take more.
        """
        return self._runs.chunk_memory

    def _with(self, sessions: Sessions, preprocess: Preprocess) -> Explainer:
        """Return an explainer like this one."""
        return Explainer(
            sessions,
            preprocess,
            self.labels,
            layer=self._layer,
            preprocess_reason=self.preprocess_reason,
            memory=self._runs.memory,
        )

    def _one_column(self, target: Any, n: int) -> list[Target]:
        """Parse a target of which there may be only one an image."""
        table = target_table.parse(target, n_images=n, n_classes=self.manifest.classes, labels=self.labels)
        if any(len(row) != 1 for row in table):
            raise TargetError(f"one target an image was wanted here; {len(table[0])} were given")
        return [row[0] for row in table]

    @cached_property
    def _made_by(self) -> Mapping[str, Any]:
        """What every result's provenance says."""
        return made_by(self._sessions, self.preprocess)


def _limited(timeout: float | None, cancel: Cancellation | None) -> Limits:
    """Return a call's limits."""
    return UNLIMITED if timeout is None and cancel is None else Limits(timeout, cancel)


def _columns(table: Sequence[Sequence[Target]]) -> list[list[Target]]:
    """Turn one list of targets an image into one list of images a target."""
    return [list(column) for column in zip(*table, strict=True)]


def _within(
    progress: Callable[[float, int], None] | None, start: int, images: int, total: int
) -> Callable[[float], None] | None:
    """Return a callable that turns the share of one batch into images done."""
    return None if progress is None else lambda share: progress(start + share * images, total)


def _by_layer(layers: Sequence[str], kind: str, named: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Join the outputs of several runs by layer name."""
    return {name: np.concatenate([part[f"{kind}.{i}"] for part in named]) for i, name in enumerate(layers)}
