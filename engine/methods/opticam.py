"""
Opti-CAM: the channel weights whose map, used as a mask, raises the class's logit most.

Activations, the model's input and ways to ask the model at masked inputs go in; the raw map of the best weights comes
out. Zhang, Torres, Sicre, Avrithis and Ayache 2024, arXiv:2301.07002. With u a vector of K numbers an image,

    S(u) = sum over k of softmax(u)_k ReLU(A_k),    M = n(up(S)),    maximise  g(f(x M + hidden (1 - M)))  over u

where n scales to [0, 1] and g is the class's logit. Adam climbs; its gradient needs one gradient of the model at the
masked input an iteration, and the rest is the chain rule: with Q the sum over colours of that gradient times
(x - hidden), and q_k = <ReLU(A_k), up'(n'(Q))>,

    dg / du_k = softmax(u)_k (q_k - sum over j of softmax(u)_j q_j)

The few numbers of the optimiser are in float64 on the host; what is as large as an image stays where the input lies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from camrt import kernels
from camrt.kernels import is_cupy

from ..errors import MethodError, NumericError
from ..scalars import Target, cotangent, value
from ..targets import Contrast, LogProbability, pin
from .arrays import Array, namespace, planes
from .table import Method, Option, Result, register

Numbers = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Objective = Callable[[Numbers, Rows], tuple[Numbers, Numbers]]  # logits, images -> values, cotangents at the logits
LogitsAt = Callable[[Array], Array]
ImageGradientOf = Callable[[Array, Array, Rows], tuple[Array, Array]]

BETAS, EPS = (0.9, 0.999), 1e-8  # Adam's, as in its paper and in PyTorch
START = 0.5  # of every weight; any other constant gives the same softmax
CHECKS = 10  # how many times a run looks whether to stop early


def opticam(
    acts: Array,
    x: Array,
    logits: Array,
    target: Array,
    size: tuple[int, int],
    hidden: Array | None,
    target_at: Callable[[Array, Rows], tuple[Array, Array]],
    logits_at: LogitsAt,
    image_gradient_of: ImageGradientOf,
    *,
    variant: str = "camrt",
    iters: int = 100,
    lr: float = 0.1,
    objective: str = "logit",
    loss: str = "plain",
    norm: str = "max_min",
    stop: str = "none",
) -> Result:
    """
    Optimise the channel weights of each image's map.

    Parameters
    ----------
    acts : ndarray of float, shape (N, K, h, w)
        Activations of one layer.
    x : ndarray of float, shape (N, ...)
        The model's input.
    logits : ndarray of float, shape (N, C)
        Its logits.
    target : ndarray of int64, shape (N,)
        Class explained, -1 where the target is no single class.
    size : tuple of int
        ``(H, W)`` of the input.
    hidden : ndarray, broadcastable to `x`, or None
        What a hidden pixel shows: zero where None.
    target_at : callable
        ``(logits (M,C), images (M,))`` gives the target scalar (M,) and its cotangent (M,C) at other logits.
    logits_at : callable
        Takes inputs like `x`, returns their logits.
    image_gradient_of : callable
        ``(inputs, cotangents (M,C), images (M,))`` gives the logits of the inputs and the gradient at them.
    variant : {"camrt", "official", "official-demo"}
        "camrt" returns the best weights seen, image by image. "official" returns the last weights, and is defined by black
        as what hides (its row of the table says so). "official-demo" has besides fewer iterations and stops the batch early.
    iters : int
        Adam's steps; 0 gives the mean of ReLU(A).
    lr : float
        Adam's step size.
    objective : {"logit", "margin", "cross-entropy", "mse"}
        g: the target itself (a class logit unless another was asked for), the class's logit minus the largest other,
        its log-probability, or minus the mean squared distance of all logits from those of the whole image.
    loss : {"plain", "norm"}
        Whether g(whole image) - g(masked image) is made small, or its absolute value.
    norm : {"max_min", "sigmoid", "max", "max2", "max3", "max4", "tanh", "softmax"}
        n, how the resized map U becomes a mask: min-max; (tanh(U/2) + 1) / 2; U over its largest value, or that to the
        power 2, 3 or 4; tanh U; the softmax over all pixels.
    stop : {"none", "image", "batch"}
        Before which steps to look whether to stop: none, or every tenth of `iters` (every step below 20). There the loss
        is compared with that of the look before; where it is larger the weights of this very moment are the last.
        "image" compares and stops each image by itself; "batch" the sum over the batch, so that the result depends on
        the images beside it, as in the official code.

    Returns
    -------
    Result
        Raw map S (N,h,w) at the layer's resolution, and the flags ``objective_first``, ``objective_last`` and
        ``objective_best`` (g at the start, at the end, and where the loss was smallest) and ``best_iteration``.

    Raises
    ------
    MethodError
        If the model's input is not of a floating type, or "margin" or "cross-entropy" is asked of a target that is no
        class.
    NumericError
        If a gradient holds NaN or infinity.

    Notes
    -----
    Cost: `iters` runs of model and gradient, and one forward for the value of the last weights. While the cotangent
    changes with the logits (any but class logits and their differences) one more forward an iteration. An image whose
    gradient vanishes at the start (no positive activation, a single channel) is not run again.

    A map that is constant hides all under "max_min"; the gradient there is zero.

    References
    ----------
    Zhang et al. 2024, Opti-CAM, arXiv:2301.07002; Kingma and Ba 2015, Adam, arXiv:1412.6980.
    """
    if x.dtype.kind != "f":
        raise MethodError(f"opticam masks the input and needs a model that takes floats; got {x.dtype}")
    whole = _on_host(logits).astype(np.float64)
    goal = _goal(objective, _on_host(target).tolist(), whole, target_at)
    clean, seeds = goal(whole, np.arange(len(x)))
    model = _Model(goal, logits_at, image_gradient_of, seeds)
    search = _Search((len(x), acts.shape[1]), clean if loss == "norm" else None)
    scene = whole_scene = _Scene(acts, x, hidden, size, NORMS[norm])
    rows, every = np.arange(len(x)), max(1, iters // CHECKS)
    for step in range(iters):
        values, gradient = model.ask(scene.masked(search.weights[rows]), rows)
        search.record(step, rows, values)
        slopes = scene.slopes(gradient) * search.sign(rows)
        if not np.isfinite(slopes).all():
            bad = int(rows[~np.isfinite(slopes).all(1)][0])
            raise NumericError(f"opticam: the gradient for image {bad} holds NaN or infinity; run the model in float32")
        staying = slopes.any(1) if step == 0 else np.ones(len(rows), bool)
        if stop != "none" and step % every == 0:
            staying &= search.improved(together=stop == "batch")[rows]
        rows = rows[staying]
        search.climb(step, rows, slopes[staying], lr)
        if not len(rows):
            break
        if not staying.all():
            scene = whole_scene.of(rows)
    if len(rows):
        search.record(iters, rows, goal(_on_host(logits_at(scene.masked(search.weights[rows]))), rows)[0])
    chosen = search.best_weights if variant == "camrt" else search.weights
    return Result(whole_scene.maps(_softmax(chosen)), search.flags())


class _Search:
    """Every image's weights, Adam's two moments of them, and what has been reached; on the host."""

    def __init__(self, shape: tuple[int, int], clean: Numbers | None) -> None:
        self.weights = np.full(shape, START)
        self.best_weights = self.weights.copy()
        self._mean, self._square = np.zeros((2, *shape))
        self._clean = clean  # values of the whole images where the loss is a distance from them
        self._first, self._last, self._best = np.zeros((3, shape[0]))
        self._merit, self._looked = np.zeros(shape[0]), np.full(shape[0], -np.inf)  # minus the loss
        self._best_merit, self._best_step = np.full(shape[0], -np.inf), np.zeros(shape[0], np.int64)

    def record(self, step: int, rows: Rows, values: Numbers) -> None:
        """Keep the values that the present weights of some images have."""
        merit = values if self._clean is None else -abs(self._clean[rows] - values)
        if step == 0:
            self._first[rows] = values
        self._last[rows], self._merit[rows] = values, merit
        better = merit > self._best_merit[rows]
        improved = rows[better]
        self._best[improved], self._best_merit[improved], self._best_step[improved] = (
            values[better],
            merit[better],
            step,
        )
        self.best_weights[improved] = self.weights[improved]

    def sign(self, rows: Rows) -> Numbers:
        """Return whether the value is to rise (1) or to fall (-1), for each of some images, (M, 1)."""
        if self._clean is None:
            return np.ones((len(rows), 1))
        return np.sign(self._clean[rows] - self._last[rows])[:, None]

    def improved(self, *, together: bool) -> npt.NDArray[np.bool_]:
        """Tell for every image whether the loss is not larger than at the last look; and look."""
        if together:
            verdict = np.full(len(self._merit), self._merit.sum() >= self._looked.sum())
        else:
            verdict = self._merit >= self._looked
        self._looked[:] = self._merit
        return verdict

    def climb(self, step: int, rows: Rows, slopes: Numbers, lr: float) -> None:
        """Take Adam's step for some images (Kingma and Ba 2015, algorithm 1), upwards."""
        mean = BETAS[0] * self._mean[rows] + (1 - BETAS[0]) * slopes
        square = BETAS[1] * self._square[rows] + (1 - BETAS[1]) * slopes**2
        self._mean[rows], self._square[rows] = mean, square
        fair_mean, fair_square = mean / (1 - BETAS[0] ** (step + 1)), square / (1 - BETAS[1] ** (step + 1))
        self.weights[rows] += lr * fair_mean / (np.sqrt(fair_square) + EPS)

    def flags(self) -> dict[str, Array]:
        """Return what a reader of the map must know."""
        values = {"first": self._first, "last": self._last, "best": self._best}
        return {**{f"objective_{name}": array for name, array in values.items()}, "best_iteration": self._best_step}


class _Scene:
    """Images under masks made of channel weights, and the way back; where the activations lie."""

    def __init__(self, acts: Array, x: Array, hidden: Array | None, size: tuple[int, int], norm: _Norm) -> None:
        xp = namespace(acts)
        self._acts, self._x, self._size, self._norm = xp.maximum(acts, 0), x, size, norm
        self._hidden = xp.broadcast_to(xp.asarray(0 if hidden is None else hidden, dtype=x.dtype), x.shape)
        self._shown = planes(x - self._hidden, size)  # what a mask of 1 adds to what is hidden
        self._masked = xp.empty_like(x)
        self._shares: Numbers = np.zeros(acts.shape[:2])
        self._resized = self._mask = xp.zeros((len(x), *size), acts.dtype)

    def of(self, rows: Rows) -> _Scene:
        """Return the scene of some of the images."""
        picked = namespace(self._acts).asarray(rows)
        return _Scene(self._acts[picked], self._x[picked], self._hidden[picked], self._size, self._norm)

    def maps(self, shares: Numbers) -> Array:
        """Return S (N,h,w), the sum of positive activations in the given shares (N,K)."""
        return kernels.weighted_sum(self._acts, namespace(self._acts).asarray(shares, dtype=self._acts.dtype))

    def masked(self, weights: Numbers) -> Array:
        """Return the images under the masks of weights (N,K), in an array that the next call writes over."""
        self._shares = _softmax(weights)
        self._resized = kernels.resize(self.maps(self._shares), self._size)
        self._mask = self._norm.scale(self._resized)
        namespace(self._x).multiply(self._shown, self._mask[:, None], out=planes(self._masked, self._size))
        self._masked += self._hidden
        masked: Array = self._masked
        return masked

    def slopes(self, gradient: Array) -> Numbers:
        """Carry gradients at the images last masked back to their weights, (N,K)."""
        xp, (n, k, *grid) = namespace(self._acts), self._acts.shape
        at_mask = xp.einsum("nchw,nchw->nhw", planes(gradient, self._size), self._shown)
        at_resized = self._norm.back(self._resized, self._mask, at_mask)
        at_map = kernels.resize_adjoint(at_resized, (grid[0], grid[1])).astype(self._acts.dtype, copy=False)
        cells = self._acts.reshape(n, k, -1)
        pull = _on_host(cells @ at_map.reshape(n, -1, 1))[:, :, 0].astype(np.float64)
        slopes: Numbers = self._shares * (pull - (self._shares * pull).sum(1, keepdims=True))
        return slopes


class _Model:
    """
    Values of the objective at masked images, and its gradients there.

    One run gives the gradient for a known cotangent and the logits, while the right cotangent may depend on these
    logits. So that of an image's last iterate is tried, and the run repeated for the images where it turns out to be
    another; once most of them were wrong, the logits are asked for first.
    """

    def __init__(
        self, goal: Objective, logits_at: LogitsAt, image_gradient_of: ImageGradientOf, seeds: Numbers
    ) -> None:
        self._goal, self._logits_at, self._image_gradient_of = goal, logits_at, image_gradient_of
        self._seeds, self._steady = seeds.copy(), True

    def ask(self, x: Array, rows: Rows) -> tuple[Numbers, Array]:
        """Return the values (M,) of masked images and the gradients at them; `rows` says which images they are of."""
        xp, tried = namespace(x), self._seeds[rows]
        if self._steady:
            logits, gradient = self._image_gradient_of(x, xp.asarray(tried), rows)
            values, seeds = self._goal(_on_host(logits), rows)
        else:
            values, seeds = self._goal(_on_host(self._logits_at(x)), rows)
        wrong = np.flatnonzero((seeds != tried).any(1))
        if not self._steady:
            gradient = self._image_gradient_of(x, xp.asarray(seeds), rows)[1]
        elif len(wrong):
            places, gradient = xp.asarray(wrong), gradient.copy()
            gradient[places] = self._image_gradient_of(x[places], xp.asarray(seeds[wrong]), rows[wrong])[1]
        self._steady = 2 * len(wrong) <= len(rows)
        self._seeds[rows] = seeds
        return values, gradient


@dataclass(frozen=True)
class _Norm:
    """How a resized map U (N,H,W) becomes a mask M, and ``back(U, M, dg/dM) -> dg/dU``."""

    scale: Callable[[Array], Array]
    back: Callable[[Array, Array, Array], Array]


def _over_largest(power: int) -> _Norm:
    """Return the norm (U / max U) ** power; of several largest pixels the first in raster order counts."""

    def top(maps: Array) -> Array:
        largest = maps.max((1, 2), keepdims=True)
        divisor: Array = namespace(maps).where(largest == 0, 1, largest)  # an empty map stays empty
        return divisor

    def scale(maps: Array) -> Array:
        mask: Array = (maps / top(maps)) ** power
        return mask

    def back(maps: Array, mask: Array, slope: Array) -> Array:
        xp, largest = namespace(maps), top(maps)
        carried = slope * power * (maps / largest) ** (power - 1) / largest
        flat, place = carried.reshape(len(maps), -1), maps.reshape(len(maps), -1).argmax(1)
        flat[xp.arange(len(maps)), place] -= power * (slope * mask).sum((1, 2)) / largest[:, 0, 0]
        return carried

    return _Norm(scale, back)


def _pixel_softmax(maps: Array) -> Array:
    """Return the softmax over all pixels."""
    powers = namespace(maps).exp(maps - maps.max((1, 2), keepdims=True))
    mask: Array = powers / powers.sum((1, 2), keepdims=True)
    return mask


NORMS = {
    "max_min": _Norm(lambda u: kernels.min_max(u)[0], lambda u, m, q: kernels.min_max_gradient(u, q)),
    "sigmoid": _Norm(lambda u: (namespace(u).tanh(u / 2) + 1) / 2, lambda u, m, q: q * m * (1 - m)),
    "max": _over_largest(1),
    "max2": _over_largest(2),
    "max3": _over_largest(3),
    "max4": _over_largest(4),
    "tanh": _Norm(lambda u: namespace(u).tanh(u), lambda u, m, q: q * (1 - m * m)),
    "softmax": _Norm(_pixel_softmax, lambda u, m, q: m * (q - (q * m).sum((1, 2), keepdims=True))),
}


def _goal(
    objective: str, classes: list[int], whole: Numbers, target_at: Callable[[Array, Rows], tuple[Array, Array]]
) -> Objective:
    """Return the objective as a function of logits and of the images they are for."""
    if objective == "logit":
        return target_at
    if objective == "mse":
        return lambda logits, rows: _distance(logits.astype(np.float64), whole[rows])
    if min(classes, default=0) < 0:
        raise MethodError(f"objective {objective!r} needs a class; the target is none: take 'logit', the target itself")
    make: Callable[[int], Target] = Contrast if objective == "margin" else LogProbability

    def goal(logits: Array, rows: Rows) -> tuple[Numbers, Numbers]:
        scores = logits.astype(np.float64)
        pairs = list(zip(pin([make(classes[row]) for row in rows], scores), scores, strict=True))
        return np.array([value(*pair) for pair in pairs]), np.array([cotangent(*pair) for pair in pairs])

    return goal


def _distance(logits: Numbers, whole: Numbers) -> tuple[Numbers, Numbers]:
    """Return minus the mean squared distance of logits from those of whole images, and its cotangent."""
    apart = logits - whole
    return -(apart**2).mean(1), apart * (-2 / apart.shape[1])


def _softmax(weights: Numbers) -> Numbers:
    """Return each image's shares (N,K), which sum to 1."""
    powers = np.exp(weights - weights.max(1, keepdims=True))
    shares: Numbers = powers / powers.sum(1, keepdims=True)
    return shares


def _on_host(array: Array) -> Any:
    """Return an array in NumPy's hands."""
    return array.get() if is_cupy(array) else array  # type: ignore[attr-defined]


register(
    Method(
        id="opticam",
        function=opticam,
        needs=(
            "acts",
            "x",
            "logits",
            "target",
            "size",
            "hidden",
            "target_at",
            "logits_at",
            "image_gradient_of",
        ),
        gives="map",
        family="optimised",
        work=302.0,
        paper="arXiv:2301.07002",
        title="Opti-CAM",
        variants=("camrt", "official", "official-demo"),
        mask_space={"official": "raw", "official-demo": "raw"},
        options={
            "iters": Option(100, "integer", "Adam's steps", low=0, by_variant={"official-demo": 50}),
            "lr": Option(0.1, "number", "Adam's step size", low=0),
            "objective": Option(
                "logit", "choice", "what the mask is to raise", choices=("logit", "margin", "cross-entropy", "mse")
            ),
            "loss": Option("plain", "choice", "the drop, or its absolute value", choices=("plain", "norm")),
            "norm": Option("max_min", "choice", "how the resized map becomes a mask", choices=tuple(NORMS)),
            "stop": Option(
                "none",
                "choice",
                "stop once the loss rises, every image by itself or all together",
                choices=("none", "image", "batch"),
                by_variant={"official-demo": "batch"},
            ),
        },
    )
)
