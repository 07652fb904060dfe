"""
The story of one request: pictures and targets go in, an `Explanation` comes out.

::

    images --prepare--> x --gather--> logits, activations, gradients --method--> raw map --pipeline--> heatmap
                                        (evidence.py)                 (methods/)          (pipeline.py, fuse.py)

An `Explainer` holds a model's sessions and settings and never changes: any number of threads may use it at once.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from importlib.metadata import version
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from camrt.export.manifest import Layer, Manifest, Source
from camrt.kernels import is_cupy

from . import targets as target_table
from .anytime import Budget, draw_in_rounds
from .device import on_host
from .errors import ImageError, InputError, LayerError, MethodError, TargetError
from .estimate import cost_of
from .evidence import Evidence, Question, gather, map_in_graph, plain_column
from .explanation import Explanation
from .forwards import Forwards, score_of
from .fuse import HEAT_FUSIONS, RAW_FUSIONS, fuse_layers
from .image import prepare
from .limits import UNLIMITED, Cancellation, Limits
from .methods import Method, Result, resolve, validate
from .methods.arrays import namespace
from .methods.raw import check_finite, raw_map
from .noise import content_ids
from .pipeline import PIPELINES
from .planner import Planner, chunk_of
from .preprocess import Preprocess
from .propagation import ways
from .session import Sessions, runtime
from .stages import stages_of
from .tails import Heads
from .targets import Logit, Target

__all__ = ["MASK_SPACES", "Drawn", "Explainer"]

Array = npt.NDArray[Any]

BATCH = 32  # images a run on a device; ResNet-50's activations and gradients then stay below 1 GB
CPU_BATCH = 4  # on a CPU: runs of 4 took 0.84 (MobileNetV2) to 0.97 (ResNet-50) of the time of one run of 16
CPU_GRADIENT_BATCH = 2  # of gradients at the image, which hold twice the tensors; runs of 4 took up to 1.09 of its time
MAP_OUTPUTS = {"logits", "explained", "map", "heat", "degenerate", "signed"}  # any other is a flag of the method
DEVICE_CHUNK = 128  # masked forwards a run on a device
ARENA = 3  # what ONNX Runtime's arena holds, in multiples of the tensors alive: it grows by doubling
MASK_SPACES = ("normalised", "raw")
MEMORY = 400 * 2**20  # bytes that a chunk of masked forwards may take, unless told otherwise
TTA_GAINS = (0.9, 1.0, 1.1)  # pytorch-grad-cam's intensities (METHODS.md 5.33)
_BY_FORWARDS = {"masked_of", "logits_at", "image_gradient_of", "ablated_of", "cells_of"}  # what `camrt.forwards` gives


@dataclass(frozen=True)
class _Plan:
    """Everything about a request but its pictures, checked."""

    method: Method
    variant: str
    options: Mapping[str, object]
    layers: tuple[Layer, ...]
    pipeline: str
    fuse: str
    eigen_smooth: bool
    size: tuple[int, int]
    in_graph: bool
    mask_space: str

    @property
    def by_forwards(self) -> bool:
        """Whether the method asks for forwards of other inputs than the image."""
        return bool(_BY_FORWARDS & set(self.method.needs))

    @property
    def expected(self) -> int:
        """How many runs of other inputs, or tails, one image takes."""
        costs = [
            cost_of(self.method, self.options, channels=layer.channels, cells=layer.grid[0] * layer.grid[1])
            for layer in self.layers
        ]
        return sum(cost.forwards - 1 + cost.tails for cost in costs)  # the first forward is that of the image itself

    @property
    def needs_gradients(self) -> bool:
        """Whether the method reads gradients at all; the linear head's weights are read from them too."""
        return bool({"grads", "head"} & set(self.method.needs))

    @property
    def names(self) -> tuple[str, ...]:
        """Return the layers' names."""
        return tuple(layer.name for layer in self.layers)


@dataclass(frozen=True)
class _Maps:
    """Maps of N images for T targets each: raw by layer, heatmaps, flags, and the last layer's maps at the image."""

    evidence: tuple[Evidence, ...]  # one a target
    raws: tuple[Array, ...]  # (N, T, h, w)
    heat: Array  # (N, T, H, W)
    degenerate: Array  # (N, T), as every flag
    flags: Mapping[str, Array]
    raw_input: Array | None = None


@dataclass(frozen=True)
class _Request:
    """What a call asks beside its plan."""

    limits: Limits = UNLIMITED
    budget: Budget | None = None
    progress: Callable[[float], None] | None = None  # told the share of the batch that is done


@dataclass(frozen=True)
class Drawn:
    """
    One map an image, and what the model said while it was made.

    Attributes
    ----------
    heat : ndarray of float, shape (N, H, W)
        Heatmaps, where the model runs.
    degenerate : ndarray of bool, shape (N,)
        Which are constant; on the host.
    raw : ndarray of float, shape (N, h, w)
        The last layer's maps before ReLU, resize and scaling.
    logits : ndarray, shape (N, C)
        Scores of the inputs, where the model runs.
    classes : ndarray of int64, shape (N,)
        The class each map explains; on the host.
    """

    heat: Array
    degenerate: npt.NDArray[np.bool_]
    raw: Array
    logits: Array
    classes: npt.NDArray[np.int64]


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
        self._memory = memory
        self._plans: dict[tuple[Any, ...], _Plan] = {}  # as many as there are methods, layers and settings
        self._planners: dict[tuple[Any, ...], Planner] = {}  # one for each shape of input
        self._heads = Heads(sessions.precision)
        self._opening = threading.Lock()

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
        """Return every tensor that can be explained, the default marked, in graph order."""
        if self._layer is None:
            return self.manifest.layers
        return tuple(replace(layer, default=layer.name == self._layer.name) for layer in self.manifest.layers)

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
        plan = self._plan(method, variant, options, layer, pipeline, fuse, eigen_smooth, mask_space)
        if budget is not None and plan.method.runs is None:
            raise MethodError(
                f"a budget is for methods of many masked forwards; {plan.method.id} has none to leave out"
            )
        prepared = prepare(images, self.preprocess)
        x = prepared.x
        table = target_table.parse(target, n_images=len(x), n_classes=self.manifest.classes, labels=self.labels)
        run = self._augmented if tta else self._maps
        chunks: list[_Maps] = []
        with _limited(timeout, cancel) as limits, self._sessions.place() as placed:
            step = self.batch if budget is None else 1  # what a budget allows does not depend on the neighbours
            for start in range(0, len(x), step):
                rows = slice(start, start + step)
                limits.check()
                request = _Request(limits, budget, _within(progress, start, len(x[rows]), len(x)))
                made = run(plan, request, placed(x[rows]), _columns(table[rows]))
                chunks.append(self._fetched(plan, made))
                if progress is not None:
                    progress(min(start + step, len(x)), len(x))
        return self._result(plan, chunks, prepared.pictures, prepared.names, tta)

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
        plan = self._plan(method, variant, options, layer, pipeline, None, False, mask_space)
        target = None if classes is None else np.asarray(classes)[:, None]
        table = target_table.parse(target, n_images=len(x), n_classes=self.manifest.classes, labels=self.labels)
        parts: list[_Maps] = []
        for start in range(0, len(x), self.batch):
            rows = slice(start, start + self.batch)
            limits.check()
            parts.append(self._maps(plan, _Request(limits), x[rows], _columns(table[rows])))
        whole = _together(parts, 0)
        raw = whole.raws[-1][:, 0]
        if is_cupy(raw):
            check_finite(on_host(abs(raw).max((1, 2))), plan.method.id, plan.names[-1])
        return Drawn(
            heat=whole.heat[:, 0],
            degenerate=on_host(whole.degenerate[:, 0]),
            raw=raw,
            logits=_joined([part.evidence[0].logits for part in parts]),
            classes=np.concatenate([on_host(part.evidence[0].target) for part in parts]).astype(np.int64, copy=False),
        )

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

    def _with(self, sessions: Sessions, preprocess: Preprocess) -> Explainer:
        """Return an explainer like this one."""
        return Explainer(
            sessions,
            preprocess,
            self.labels,
            layer=self._layer,
            preprocess_reason=self.preprocess_reason,
            memory=self._memory,
        )

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
        return self._plan(method, None, None, layer, "camrt", None, False).names

    @cached_property
    def batch(self) -> int:
        """How many images go into one run: what is fastest on the first provider; a fixed batch is filled."""
        return self.manifest.batch or (CPU_BATCH if self._on_cpu else BATCH)

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
            parts = [self._sessions.run("forward", (), {"x": part}, limits)["logits"] for _, part in self._parts(x)]
        return _joined(parts).astype(np.float32, copy=False)

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
        layers = self._resolve(layer)
        named = [
            self._sessions.run("features", layers, {"x": part})
            for _, part in self._parts(prepare(images, self.preprocess).x)
        ]
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
        layers, x = self._resolve(layer), prepare(images, self.preprocess).x
        column = self._one_column(target, len(x))
        found = []
        for start, part in self._parts(x):
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
        parts = []
        for start, part in self._parts(x, CPU_GRADIENT_BATCH if self._on_cpu else BATCH):
            rows = column[start : start + len(part)]
            logits = np.zeros((len(part), self.manifest.classes), np.float32)
            if not all(isinstance(t, target_table.Logit) and t.index is not None for t in rows):
                logits = self._sessions.run("forward", (), {"x": part})["logits"]
            seed = target_table.seeds(rows, logits).astype(logits.dtype, copy=False)
            parts.append(self._sessions.run("input_gradient", (), {"x": part, "seed": seed})["input_gradient"])
        return _joined(parts)

    # one request, step by step -----------------------------------------------------------------------------------

    def _plan(
        self,
        name: str,
        variant: str | None,
        options: Mapping[str, object] | None,
        layer: str | Sequence[str] | None,
        pipeline: str,
        fuse: str | None,
        eigen_smooth: bool,
        mask_space: str = "normalised",
    ) -> _Plan:
        """Check everything that does not depend on the pictures; the same request is checked once."""
        key = (name, variant, layer, pipeline, fuse, eigen_smooth, mask_space)
        known = options is None and all(item is None or isinstance(item, str | bool) for item in key)
        if known and key in self._plans:
            return self._plans[key]
        plan = self._checked(name, variant, options, layer, pipeline, fuse, eigen_smooth, mask_space)
        if known:
            self._plans[key] = plan
        return plan

    def _checked(
        self,
        name: str,
        variant: str | None,
        options: Mapping[str, object] | None,
        layer: str | Sequence[str] | None,
        pipeline: str,
        fuse: str | None,
        eigen_smooth: bool,
        mask_space: str,
    ) -> _Plan:
        """Make a plan of a request, or say what is wrong with it."""
        method = resolve(name)
        chosen, full = validate(method, variant, options)
        if pipeline not in PIPELINES:
            raise MethodError(f"pipeline must be one of {', '.join(PIPELINES)}; got {pipeline!r}")
        if mask_space not in MASK_SPACES:
            raise InputError(f"mask_space must be one of {', '.join(MASK_SPACES)}; got {mask_space!r}")
        joined = fuse or method.fuse_of(chosen)
        if joined not in HEAT_FUSIONS and joined not in RAW_FUSIONS:
            raise MethodError(f"fuse must be one of {', '.join(HEAT_FUSIONS)}; got {fuse!r}")
        names = stages_of(self.layers) if method.stages and layer is None else self._resolve(layer)
        layers = tuple(next(item for item in self.layers if item.name == n) for n in names)
        if "head" in method.needs:
            for item in layers:
                if item.name not in self.manifest.linear_layers:
                    raise LayerError(
                        f"{method.id} needs global average pooling and one linear layer between the layer and the logits; "
                        f"{item.name!r} has more: use gradcam, which generalises it"
                        + (f", or layer {self.manifest.linear_layers[0]!r}" if self.manifest.linear_layers else "")
                    )
        size = self.preprocess.size
        plain = (chosen, full) == validate(method) and not eigen_smooth and len(names) == 1
        in_graph = plain and self._sessions.source.offers(f"map_{method.id}", names)
        space = method.mask_space.get(chosen, mask_space)
        return _Plan(method, chosen, full, layers, pipeline, joined, eigen_smooth, size, in_graph, space)

    def _resolve(self, layer: str | Sequence[str] | None) -> tuple[str, ...]:
        """Return layer names, each once, the shallowest first."""
        if layer is None:
            return (next(item for item in self.layers if item.default).name,)
        given = [layer] if isinstance(layer, str) else list(layer)
        if not given:
            raise LayerError("at least one layer was wanted; an empty list came")
        chosen = {self._sessions.source.resolve(name).name for name in given}
        return tuple(item.name for item in self.layers if item.name in chosen)

    @property
    def _on_cpu(self) -> bool:
        """Whether the model runs on the host."""
        return self._sessions.providers[0].name == "CPUExecutionProvider"

    def _parts(self, x: Array, most: int = BATCH) -> Iterator[tuple[int, Array]]:
        """Cut a batch into runs of no more than `most`, each with the place of its first image."""
        size = self.manifest.batch or min(self.batch, most)
        for start in range(0, len(x), size):
            yield start, x[start : start + size]

    def _one_column(self, target: Any, n: int) -> list[Target]:
        """Parse a target of which there may be only one an image."""
        table = target_table.parse(target, n_images=n, n_classes=self.manifest.classes, labels=self.labels)
        if any(len(row) != 1 for row in table):
            raise TargetError(f"one target an image was wanted here; {len(table[0])} were given")
        return [row[0] for row in table]

    def _maps(self, plan: _Plan, request: _Request, x: Array, columns: Sequence[Sequence[Target]]) -> _Maps:
        """Make the maps of one batch, one column a target."""
        question = Question(self._sessions, plan.names, x, self.labels, request.limits)
        plain = plain_column(columns)
        if plan.in_graph and plain is not None:
            return self._direct(plan, question, plain)
        found = gather(question, columns, gradients=plan.needs_gradients)
        forwards = self._forwards(plan, request, question, len(columns)) if plan.by_forwards else None
        if plan.method.class_free:
            one = self._drawn(plan, question, found[:1], forwards)
            return replace(_together([one] * len(found), 1), evidence=tuple(found))
        if request.budget is None or forwards is None:
            return self._drawn(plan, question, found, forwards)
        return _together(
            [self._drawn_in_rounds(plan, request.budget, question, evidence, forwards) for evidence in found], 1
        )

    def _forwards(self, plan: _Plan, request: _Request, question: Question, columns: int) -> Forwards:
        """Open the memory of one batch's masked forwards."""
        rows, report = max(1, plan.expected * len(question.x)), request.progress
        return Forwards(
            question,
            self.planner(question.x),
            ids=partial(content_ids, question.x),
            hidden=self._hidden(plan, question.x),
            channels_last=self.preprocess.layout == "nhwc",
            heads=self._heads,
            memory=self._memory,
            remember=columns > 1 or request.budget is not None,
            progress=None if report is None else lambda done: report(min(0.99, done / rows)),
        )

    def _hidden(self, plan: _Plan, x: Array) -> Array | None:
        """Return what a hidden pixel shows, broadcastable to a batch; None where that is zero."""
        if plan.mask_space == "normalised":
            return None
        shape = (1, 1, 1, -1) if self.preprocess.layout == "nhwc" else (1, -1, 1, 1)
        dtype = x.dtype if x.dtype.kind == "f" else np.float32  # of integers, too, a part may show through a mask
        values: Array = namespace(x).asarray(self.preprocess.black, dtype=dtype).reshape(shape)
        return values

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
        key = (x.shape[1:], x.dtype.str, is_cupy(x))
        with self._opening:
            if key not in self._planners:
                self._planners[key] = Planner(_masked_by(self), _buffers_like(x), self.chunk, self._lanes)
            return self._planners[key]

    def _run_masked(self, buffer: Array, limits: Limits) -> Array:
        """Run one chunk."""
        return self._sessions.run_unchecked("forward", (), {"x": buffer}, limits)["logits"]

    @cached_property
    def chunk(self) -> int:
        """
        How many masked forwards go into one run.

        Raises
        ------
        MemoryBoundError
            If one does not fit the memory that `camrt.load` was allowed.
        """
        fixed = self.manifest.batch
        if fixed is not None:  # it is filled up, so that a part of it takes as much
            return fixed * chunk_of(1, fixed * self._row_memory, self._memory // self._lanes)
        return chunk_of(CPU_BATCH if self._on_cpu else DEVICE_CHUNK, self._row_memory, self._memory // self._lanes)

    @property
    def _row_memory(self) -> int:
        """The bytes that one masked forward takes."""
        return ARENA * self.manifest.row_bytes

    @property
    def _lanes(self) -> int:
        """How many chunks may run at the same time: no more than fit the memory."""
        fitting = self._memory // max(1, (self.manifest.batch or 1) * self._row_memory)
        return max(1, min(self._sessions.lanes, fitting))

    @property
    def chunk_memory(self) -> int:
        """
        The bytes that masked forwards take on top of the opened model, whatever the number of masks.

        It is known before anything is run, and never above what `camrt.load` was allowed as ``memory``. Beside it, the
        logits of one batch's masks are kept: four bytes for each mask and class. Opti-CAM's gradients at masked images keep
        every activation and may take more.
        """
        return self._lanes * self.chunk * self._row_memory

    def _drawn_in_rounds(
        self, plan: _Plan, budget: Budget, question: Question, evidence: Evidence, forwards: Forwards
    ) -> _Maps:
        """Make the maps of one target within a budget."""
        drawn = draw_in_rounds(
            lambda: self._drawn(plan, question, [evidence], forwards),
            lambda maps: maps.heat[:, 0],
            forwards,
            budget,
            plan.expected,
        )
        n = len(question.x)
        flags = {
            **drawn.drawing.flags,
            "complete": np.full((n, 1), drawn.complete),
            "forwards": drawn.forwards[:, None],
        }
        if drawn.stability is not None:
            flags["stability"] = drawn.stability[:, None]
        return replace(drawn.drawing, flags=flags)

    def _fetched(self, plan: _Plan, maps: _Maps) -> _Maps:
        """Bring what a result holds to the host; this is where a device is waited for."""
        if not is_cupy(maps.heat):
            return maps
        raws = tuple(on_host(raw) for raw in maps.raws)
        for raw, name in zip(raws, plan.names, strict=True):
            check_finite(raw, plan.method.id, name)
        return _Maps(
            tuple(evidence.fetched(self.labels) for evidence in maps.evidence),
            raws,
            on_host(maps.heat),
            on_host(maps.degenerate),
            {name: on_host(flag) for name, flag in maps.flags.items()},
            None if maps.raw_input is None else on_host(maps.raw_input),
        )

    def _direct(self, plan: _Plan, question: Question, column: Sequence[Logit]) -> _Maps:
        """Let the graph make the raw map, and finish it."""
        evidence, named = map_in_graph(question, column, plan.method.id)
        raw, heat, flat = named["map"], named["heat"], named["degenerate"]
        check_finite(raw, plan.method.id, plan.names[0])
        if plan.pipeline != "camrt":
            heat, flat = PIPELINES[plan.pipeline](raw, plan.size, plan.method.relu_of(plan.variant))
        flags = {name: array[:, None] for name, array in named.items() if name not in MAP_OUTPUTS}
        if plan.method.nonnegative:  # not asked where the layer's operator rules it out
            flags["signed_activations"] = named.get("signed", np.zeros(len(raw), bool))[:, None]
        return _Maps((evidence,), (raw[:, None],), heat[:, None], flat[:, None], flags)

    def _drawn(self, plan: _Plan, question: Question, found: Sequence[Evidence], forwards: Forwards | None) -> _Maps:
        """Run the method for every target at every layer, finish the maps, those of all targets at once, and fuse them."""
        results = [
            [self._raw_map(plan, question, evidence, index, forwards) for index in range(len(plan.layers))]
            for evidence in found
        ]
        raws = tuple(_beside([result.array for result in layer]) for layer in zip(*results, strict=True))
        n, t = raws[0].shape[:2]
        flags = {
            name: _beside(flag) for name, flag in _flags([_worst(result) for result in results], [(n,)] * t).items()
        }
        last = [result[-1] for result in results]
        if last[0].gives == "heatmap":  # finished maps; they do not depend on the layer
            return _Maps(tuple(found), raws, raws[0], np.zeros((n, t), bool), flags)
        heat, degenerate = fuse_layers(
            [raw.reshape(n * t, *raw.shape[2:]) for raw in raws],
            plan.size,
            PIPELINES[plan.pipeline],
            how=plan.fuse,
            relu=plan.method.relu_of(plan.variant),
            options={name: value for name, value in plan.options.items() if name in plan.method.fusion_options},
        )
        at_image = [result.raw_input for result in last if result.raw_input is not None]
        return _Maps(
            tuple(found),
            raws,
            heat.reshape(n, t, *heat.shape[1:]),
            degenerate.reshape(n, t),
            flags,
            _beside(at_image) if at_image else None,
        )

    def _raw_map(
        self, plan: _Plan, question: Question, evidence: Evidence, index: int, forwards: Forwards | None
    ) -> Result:
        """Run the method for one target at one layer."""
        return raw_map(
            plan.method,
            self._offer(plan, question, evidence, index, forwards),
            variant=plan.variant,
            options=plan.options,
            layer=plan.layers[index].name,
            eigen_smooth=plan.eigen_smooth,
        )

    def _offer(
        self, plan: _Plan, question: Question, evidence: Evidence, index: int, forwards: Forwards | None
    ) -> dict[str, object]:
        """Lay out what the method may read, by the names of `camrt.methods.table.EVIDENCE`."""
        x, layer = question.x, plan.layers[index]
        grads = None if evidence.grads is None else evidence.grads[index]
        needs = set(plan.method.needs)
        offered: dict[str, object] = {
            "acts": evidence.acts[index],
            "grads": grads,
            "head": grads.sum(axis=(2, 3)) if grads is not None and "head" in needs else None,  # GAP: G = W_ck / Z
            "logits": evidence.logits,
            "target": evidence.target,
            "ids": content_ids(x) if "ids" in needs else None,
            "size": plan.size,
            "x": x,
            "gradients_at": partial(_swap, evidence.gradients_at, index),
            "gradients_of": partial(_swap, evidence.gradients_of, index),
            "piecewise": layer.piecewise,
            "hidden": self._hidden(plan, x),
            "tokens": layer.layout in ("tokens", "tokens_first"),
        }
        if forwards is not None:
            known = evidence.named if len(plan.layers) == 1 else {}
            offered |= forwards.offered(layer, known)
            offered["score_of"] = partial(score_of, evidence.pinned, forwards.shared)
        if not needs <= offered.keys():
            offered |= ways(question, evidence, index)
        return offered

    def _augmented(self, plan: _Plan, request: _Request, x: Array, columns: Sequence[Sequence[Target]]) -> _Maps:
        """Average the maps of mirrored and brightened inputs; the classes stay those of the clean input."""
        if not np.issubdtype(x.dtype, np.floating):
            raise MethodError(f"tta scales the input and needs a floating-point model; this one takes {x.dtype}")
        logits = self._sessions.run("forward", (), {"x": x}, request.limits)["logits"]
        pinned = [target_table.pin(column, logits) for column in columns]
        width = 2 if self.preprocess.layout == "nhwc" else 3
        n = 2 * len(TTA_GAINS)
        clean = self._maps(plan, _part(request, 0, n), x, pinned)
        heat, raws = np.zeros_like(clean.heat), [np.zeros_like(raw) for raw in clean.raws]
        flat = np.ones_like(clean.degenerate)
        kinds = sorted(product((False, True), TTA_GAINS), key=lambda kind: kind != (False, 1.0))
        for turn, (mirrored, gain) in enumerate(kinds):
            moved = (np.flip(x, width) if mirrored else x) * np.asarray(gain, x.dtype)
            made = clean if turn == 0 else self._maps(plan, _part(request, turn, n), moved, pinned)
            heat += np.flip(made.heat, 3) if mirrored else made.heat
            for total, raw in zip(raws, made.raws, strict=True):
                total += np.flip(raw, 3) if mirrored else raw
            flat &= made.degenerate
        return replace(clean, heat=heat / n, raws=tuple(raw / n for raw in raws), degenerate=flat)

    def _result(self, plan: _Plan, chunks: Sequence[_Maps], pictures: Any, names: Any, tta: bool) -> Explanation:
        """Put the batches together: axis 0 images, axis 1 targets."""
        whole = _together(chunks, 0)

        def said(pick: Callable[[Evidence], Array]) -> Array:
            return _joined([_beside([pick(evidence) for evidence in maps.evidence]) for maps in chunks])

        return Explanation(
            logits=_joined([maps.evidence[0].logits for maps in chunks]).astype(np.float32, copy=False),
            targets=said(lambda evidence: evidence.target),
            values=said(lambda evidence: evidence.values),  # type: ignore[arg-type, return-value]
            labels=[row for maps in chunks for row in zip(*(e.names for e in maps.evidence), strict=True)],
            raw=whole.raws[-1],
            layer_raws=dict(zip(plan.names, whole.raws, strict=True)),
            heatmaps=whole.heat.astype(np.float32, copy=False),
            degenerate=whole.degenerate,
            raw_input=whole.raw_input,
            flags=dict(sorted(whole.flags.items())),
            method=plan.method.id,
            variant=plan.variant,
            options=dict(plan.options),
            layers=plan.names,
            pipeline=plan.pipeline,
            pictures=pictures,
            names=names,
            provenance=self._provenance(plan, tta),
        )

    def _provenance(self, plan: _Plan, tta: bool) -> dict[str, Any]:
        """Say what made a result, so that it can be made again."""
        return {
            **self._made_by,
            "fuse": plan.fuse if len(plan.layers) > 1 else None,
            "eigen_smooth": plan.eigen_smooth,
            "tta": tta,
            **({"mask_space": plan.mask_space} if {"masked_of", "hidden"} & set(plan.method.needs) else {}),
        }

    @cached_property
    def _made_by(self) -> Mapping[str, Any]:
        """What does not change from call to call."""
        return {
            "model": self.manifest.model,
            "camrt": version("camrt"),
            "onnxruntime": runtime().__version__,
            "numpy": np.__version__,
            "providers": [p.name for p in self._sessions.providers],
            "precision": self._sessions.precision,
            "preprocess": self.preprocess.to_dict(),
        }


def _masked_by(explainer: Explainer) -> Callable[[Array, Limits], Array]:
    """Return a callable that runs a chunk and does not keep the explainer alive, so that sessions close with it."""
    known = weakref.proxy(explainer)
    return lambda buffer, limits: known._run_masked(buffer, limits)


def _limited(timeout: float | None, cancel: Cancellation | None) -> Limits:
    """Return a call's limits."""
    return UNLIMITED if timeout is None and cancel is None else Limits(timeout, cancel)


def _columns(table: Sequence[Sequence[Target]]) -> list[list[Target]]:
    """Turn one list of targets an image into one list of images a target."""
    return [list(column) for column in zip(*table, strict=True)]


def _swap(function: Callable[[Array, int], Any], index: int, array: Array) -> Any:
    """Call `function` with the layer's index as its second argument."""
    return function(array, index)


def _within(
    progress: Callable[[float, int], None] | None, start: int, images: int, total: int
) -> Callable[[float], None] | None:
    """Return a callable that turns the share of one batch into images done."""
    return None if progress is None else lambda share: progress(start + share * images, total)


def _part(request: _Request, turn: int, turns: int) -> _Request:
    """Return the request of one of several turns, whose progress is a part of the whole."""
    report = request.progress
    if report is None:
        return request
    return replace(request, progress=lambda share: report((turn + share) / turns))


def _buffers_like(x: Array) -> Callable[[int], Array]:
    """Return a callable that makes buffers of many inputs like these."""
    shape, dtype, made_by = x.shape[1:], x.dtype, namespace(x)
    return lambda rows: made_by.empty((rows, *shape), dtype)


def _worst(results: Sequence[Result]) -> dict[str, Array]:
    """Return the flags of one target, the highest of all layers'."""
    flags: dict[str, Array] = {}
    for result in results:
        for name, flag in result.flags.items():
            flags[name] = flag if name not in flags else np.maximum(flags[name], flag)
    return flags


def _flags(parts: Sequence[Mapping[str, Array]], shapes: Sequence[tuple[int, ...]]) -> dict[str, list[Array]]:
    """Return every part's flags by name; what a part did not raise is zero there."""
    kinds = {name: flag for part in parts for name, flag in part.items()}
    return {
        name: [
            part[name] if name in part else namespace(like).zeros(shape, like.dtype)
            for part, shape in zip(parts, shapes, strict=True)
        ]
        for name, like in sorted(kinds.items())
    }


def _together(parts: Sequence[_Maps], axis: int) -> _Maps:
    """Put maps of several batches (axis 0) or of several targets (axis 1) together; a single part stays as it is."""
    if len(parts) == 1:
        return parts[0]
    flags = _flags([part.flags for part in parts], [part.degenerate.shape for part in parts])
    at_image = [part.raw_input for part in parts if part.raw_input is not None]
    return _Maps(
        tuple(evidence for part in parts for evidence in part.evidence),
        tuple(_joined(raws, axis) for raws in zip(*(part.raws for part in parts), strict=True)),
        _joined([part.heat for part in parts], axis),
        _joined([part.degenerate for part in parts], axis),
        {name: _joined(flag, axis) for name, flag in flags.items()},
        _joined(at_image, axis) if at_image else None,
    )


def _joined(parts: Sequence[Array], axis: int = 0) -> Array:
    """Join arrays along an axis; a single one is not copied."""
    if len(parts) == 1:
        return parts[0]
    joined: Array = namespace(parts[0]).concatenate(parts, axis=axis)
    return joined


def _beside(columns: Sequence[Array]) -> Array:
    """Make the targets' arrays (N, ...) one of shape (N, T, ...); a single one is not copied."""
    return _joined([column[:, None] for column in columns], 1)


def _by_layer(layers: Sequence[str], kind: str, named: Sequence[Mapping[str, Array]]) -> dict[str, Array]:
    """Join the outputs of several runs by layer name."""
    return {name: np.concatenate([part[f"{kind}.{i}"] for part in named]) for i, name in enumerate(layers)}
