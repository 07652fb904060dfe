"""Opti-CAM: PyTorch's own optimiser and gradients on the same network, and what iterates, stops and flags must be."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

import camrt
from camrt.errors import MethodError, NumericError
from camrt.image import prepare
from camrt.kernels import min_max, resize
from camrt.pipeline import PIPELINES
from camrt.scalars import softmax
from camrt.targets import Probability, Vector
from tests import tiny
from tests.engine.methods.heads import raw, run

NORMS = ("max_min", "sigmoid", "max", "max2", "max3", "max4", "tanh", "softmax")
OBJECTIVES = ("logit", "margin", "cross-entropy", "mse")
SIZE, GRID, K, CLASSES = (12, 10), (6, 5), 4, 5


class Network:
    """Strided filters, a ReLU, and two linear layers: logits, activations and exact gradients in float64."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.filters = rng.normal(size=(K, 3, 2, 2))
        self.first = rng.normal(size=(9, K * GRID[0] * GRID[1])) / 4
        self.second = rng.normal(size=(CLASSES, 9))
        self.runs: list[tuple[str, tuple[int, ...]]] = []

    def blocks(self, x):
        """Cut images into their 2 x 2 blocks."""
        return x.reshape(len(x), 3, GRID[0], 2, GRID[1], 2)

    def acts(self, x):
        return np.maximum(np.einsum("kcab,nchawb->nkhw", self.filters, self.blocks(x)), 0)

    def hidden(self, x):
        return self.acts(x).reshape(len(x), -1) @ self.first.T

    def logits(self, x):
        return np.maximum(self.hidden(x), 0) @ self.second.T

    def gradient(self, x, seed):
        at_acts = ((seed @ self.second) * (self.hidden(x) > 0)) @ self.first
        at_acts = at_acts.reshape(len(x), K, *GRID) * (self.acts(x) > 0)
        return np.einsum("nkhw,kcab->nchawb", at_acts, self.filters).reshape(x.shape)

    def evidence(self, x, target, hidden=0.0):
        """Lay out what Opti-CAM asks for, and count the runs; the target is a class's logit."""
        target, whole = np.asarray(target), self.logits(x)

        def target_at(logits, images):
            seeds = np.eye(CLASSES)[target[images]]
            return (logits * seeds).sum(1), seeds

        def logits_at(other):
            self.runs.append(("logits", tuple(range(len(other)))))
            return self.logits(other)

        def image_gradient_of(other, seed, images):
            self.runs.append(("gradient", tuple(images.tolist())))
            return self.logits(other), self.gradient(other, seed)

        return {
            "acts": self.acts(x),
            "x": x,
            "logits": whole,
            "target": target,
            "size": SIZE,
            "hidden": np.asarray(hidden),
            "target_at": target_at,
            "logits_at": logits_at,
            "image_gradient_of": image_gradient_of,
        }

    def in_torch(self, torch):
        """Return activations and logits as functions of tensors."""
        filters, first, second = (torch.from_numpy(a) for a in (self.filters, self.first, self.second))

        def acts(x):
            return torch.relu(torch.nn.functional.conv2d(x, filters, stride=2))

        def logits(x):
            return torch.relu(acts(x).flatten(1) @ first.T) @ second.T

        return SimpleNamespace(acts=acts, logits=logits)


def images(n=3, seed=1):
    """Return seeded images."""
    return np.random.default_rng(seed).normal(size=(n, 3, *SIZE))


def torch_loop(
    torch, net, x, target, *, hidden=0.0, iters=100, lr=0.1, objective="logit", loss="plain", norm="max_min"
):
    """Optimise with PyTorch alone, from the paper's formulas; return the map and the objective before each step."""
    functional = torch.nn.functional
    x, rows, target = torch.from_numpy(x), np.arange(len(x)), torch.as_tensor(target)
    acts, whole = net.acts(x).detach().relu(), net.logits(x).detach()

    def scale(u):
        low, high = u.amin((2, 3), keepdim=True), u.amax((2, 3), keepdim=True)
        if norm.startswith("max"):
            return (u - low) / (high - low) if norm == "max_min" else (u / high) ** int(norm[3:] or 1)
        if norm == "softmax":
            return torch.softmax(u.flatten(1), 1).reshape(u.shape)
        return torch.sigmoid(u) if norm == "sigmoid" else torch.tanh(u)

    def value(logits):
        if objective == "mse":
            return -((logits - whole) ** 2).mean(1)
        if objective == "cross-entropy":
            return -functional.cross_entropy(logits, target, reduction="none")
        own = logits[rows, target]
        if objective == "logit":
            return own
        others = logits.clone()
        others[rows, target] = -torch.inf
        return own - others.amax(1)

    u = torch.full(acts.shape[:2], 0.5, dtype=acts.dtype, requires_grad=True)
    adam = torch.optim.Adam([u], lr=lr)
    maps, values = [], []
    for step in range(iters + 1):
        saliency = (torch.softmax(u, 1)[:, :, None, None] * acts).sum(1, keepdim=True)
        mask = scale(functional.interpolate(saliency, x.shape[2:], mode="bilinear", align_corners=False))
        got = value(net.logits(x * mask + hidden * (1 - mask)))
        maps.append(saliency.detach()[:, 0].numpy())
        values.append(got.detach().numpy())
        if step < iters:
            drop = value(whole) - got
            adam.zero_grad()
            (drop if loss == "plain" else drop.abs()).sum().backward()
            adam.step()
    return np.array(maps), np.array(values)


# ----- against PyTorch -----


@pytest.mark.parametrize(
    "options",
    [
        *[{"objective": o} for o in OBJECTIVES],
        *[{"norm": n} for n in NORMS[1:]],
        {"loss": "norm"},
        {"loss": "norm", "objective": "cross-entropy"},
        {"loss": "norm", "objective": "margin", "norm": "max2", "lr": 0.01},
    ],
    ids=lambda options: "-".join(map(str, options.values())),
)
def test_every_iterate_equals_pytorchs(options):
    torch = pytest.importorskip("torch")
    net, x, target = Network(), images(), [0, 3, 4]
    maps, values = torch_loop(torch, net.in_torch(torch), x, target, hidden=0.3, iters=40, **options)
    for iters in (0, 1, 2, 7, 40):
        result = run("opticam", net.evidence(x, target, hidden=0.3), "official", iters=iters, **options)
        np.testing.assert_allclose(result.array, maps[iters], rtol=0, atol=1e-6)
        np.testing.assert_allclose(result.flags["objective_last"], values[iters], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(result.flags["objective_first"], values[0], rtol=1e-9, atol=1e-12)


def test_the_best_iterate_of_the_plain_loop_is_found():
    torch = pytest.importorskip("torch")
    net, x, target = Network(2), images(4, 3), [1, 0, 2, 4]
    maps, values = torch_loop(torch, net.in_torch(torch), x, target, iters=60, lr=0.5)
    result = run("opticam", net.evidence(x, target), iters=60, lr=0.5)
    best = values.argmax(0)
    assert (best < 60).any()  # else the last would do
    np.testing.assert_array_equal(result.flags["best_iteration"], best)
    np.testing.assert_allclose(result.flags["objective_best"], values.max(0), rtol=1e-6)
    np.testing.assert_allclose(result.array, maps[best, range(4)], atol=1e-5)


def test_an_exported_network_is_optimised_as_far_as_by_a_plain_loop_in_pytorch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    import onnx

    graph = onnx.load_from_string(tiny.mlp()).graph
    w = {i.name: torch.from_numpy(onnx.numpy_helper.to_array(i).copy()) for i in graph.initializer}

    def acts(x):
        a = functional.conv2d(x, w["w1"], w["b1"], stride=2, padding=1).relu()
        return functional.conv2d(a, w["w2"], w["b2"], padding=1).relu()

    def logits(x):
        return (acts(x).flatten(1) @ w["hidden"] + w["hidden_bias"]).relu() @ w["head"] + w["bias"]

    x, target = tiny.images(3), [0, 2, 4]
    maps, values = torch_loop(torch, SimpleNamespace(acts=acts, logits=logits), x, target, iters=100)
    explainer = camrt.load(tiny.mlp(), preprocess="half")
    for iters in (1, 3, 10):
        options = {"iters": iters, "stop": "none"}
        got = np.stack([_explained(explainer, x, target, "camrt", options).raw[:, 0]])
        want = maps[values[: iters + 1].argmax(0), range(3)]
        np.testing.assert_allclose(got[0], want, atol=1e-4 * abs(want).max())
    reached = _explained(explainer, x, target, "camrt", {}).flags["objective_best"][:, 0]
    assert (reached >= values.max(0) - 0.01 * abs(values.max(0))).all()


def _explained(explainer, x, target, variant, options):
    """Explain one class an image."""
    return explainer.explain(x, target=[[t] for t in target], method="opticam", variant=variant, options=options)


# ----- what iterates must be -----


def test_no_iteration_gives_the_mean_of_the_positive_activations():
    net, x = Network(), images()
    for variant in ("camrt", "official", "official-demo"):
        result = run("opticam", net.evidence(x, [0, 1, 2]), variant, iters=0)
        np.testing.assert_allclose(result.array, np.maximum(net.acts(x), 0).mean(1), rtol=1e-14)
    masked = x * min_max(resize(result.array, SIZE))[0][:, None]
    np.testing.assert_allclose(result.flags["objective_best"], net.logits(masked)[range(3), range(3)], rtol=1e-12)


def test_the_best_is_never_below_the_first_and_the_flags_are_the_masked_logits():
    net, x, target = Network(), images(), np.array([0, 3, 4])
    result = run("opticam", net.evidence(x, target), iters=50)
    masked = x * min_max(resize(result.array, SIZE))[0][:, None]
    np.testing.assert_allclose(result.flags["objective_best"], net.logits(masked)[range(3), target], rtol=1e-10)
    assert (result.flags["objective_best"] > result.flags["objective_first"]).all()
    assert (result.flags["objective_best"] >= result.flags["objective_last"]).all()


@pytest.mark.parametrize("options", [{}, {"stop": "image", "lr": 2.0}, {"objective": "margin"}, {"norm": "max"}])
def test_a_batch_equals_its_images_one_by_one(options):
    net, x, target = Network(), images(5, 4), [0, 1, 2, 3, 4]
    whole = run("opticam", net.evidence(x, target), iters=30, **options)
    for i in range(5):
        one = run("opticam", net.evidence(x[i : i + 1], target[i : i + 1]), iters=30, **options)
        np.testing.assert_allclose(one.array[0], whole.array[i], rtol=1e-9, atol=1e-12)
        assert one.flags["best_iteration"][0] == whole.flags["best_iteration"][i]


def test_the_order_of_channels_does_not_matter():
    net, x = Network(), images()
    given = net.evidence(x, [0, 1, 2])
    turned = {**given, "acts": given["acts"][:, ::-1].copy()}
    np.testing.assert_allclose(raw("opticam", turned, iters=20), raw("opticam", given, iters=20), atol=1e-10)


def test_channels_last_is_the_same_picture():
    net, x, target = Network(), images(), [0, 3, 4]
    first = net.evidence(x, target, hidden=np.array([0.1, 0.2, 0.3]).reshape(1, 3, 1, 1))
    back = (0, 3, 1, 2)

    def image_gradient_of(other, seed, rows):
        logits, gradient = first["image_gradient_of"](other.transpose(back), seed, rows)
        return logits, gradient.transpose(0, 2, 3, 1)

    last = {
        **first,
        "x": np.ascontiguousarray(x.transpose(0, 2, 3, 1)),
        "hidden": np.array([0.1, 0.2, 0.3]),
        "logits_at": lambda other: first["logits_at"](other.transpose(back)),
        "image_gradient_of": image_gradient_of,
    }
    np.testing.assert_allclose(raw("opticam", last, iters=15), raw("opticam", first, iters=15), atol=1e-12)


def test_the_official_variants_hide_by_black_and_camrt_by_what_the_request_says():
    explainer, x = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(2)

    def found(variant, space):
        return explainer.explain(
            x, target=1, method="opticam", variant=variant, options={"iters": 9, "stop": "none"}, mask_space=space
        )

    black = found("camrt", "raw").flags["objective_first"]
    for variant in ("official", "official-demo"):
        for space in ("normalised", "raw"):
            result = found(variant, space)
            np.testing.assert_array_equal(result.flags["objective_first"], black)
            assert result.provenance["mask_space"] == "raw"
    grey = found("camrt", "normalised")
    assert (grey.flags["objective_first"] != black).all()
    assert grey.provenance["mask_space"] == "normalised"


def test_nothing_is_hidden_by_zero_where_none_is_said():
    net, x, target = Network(), images(), [0, 3, 4]
    zero = net.evidence(x, target, hidden=0.0)
    np.testing.assert_array_equal(raw("opticam", {**zero, "hidden": None}, iters=9), raw("opticam", zero, iters=9))


# ----- stopping -----


def trajectory(given, iters, every, **options):
    """Return maps and objectives at every `every`-th iterate, from runs that end there."""
    ends = [run("opticam", given, "official", iters=t, **options) for t in range(0, iters, every)]
    return [end.array for end in ends], np.array([end.flags["objective_last"] for end in ends])


def test_the_demo_stops_the_batch_where_the_summed_loss_has_risen_since_the_last_look():
    net, x, target = Network(5), images(3, 5), [0, 3, 4]
    given = net.evidence(x, target)
    maps, values = trajectory(given, 50, 5, lr=1.0)
    rises = np.flatnonzero(np.diff(values.sum(1)) < 0)
    assert rises[0] == 2
    assert (np.diff(values, axis=0)[:2] < 0).any()  # an image's own loss rose before
    got = run("opticam", given, "official-demo", lr=1.0)
    np.testing.assert_allclose(got.array, maps[rises[0] + 1], atol=1e-12)
    np.testing.assert_allclose(got.flags["objective_last"], values[rises[0] + 1], atol=1e-12)
    calm = run("opticam", given, "official-demo", lr=1e-3)  # the loss never rises
    np.testing.assert_array_equal(calm.array, raw("opticam", given, "official", iters=50, lr=1e-3))


def test_an_image_stops_by_its_own_loss_and_leaves_the_batch():
    net, x, target = Network(5), images(4, 6), [0, 3, 4, 1]
    given = net.evidence(x, target)
    maps, values = trajectory(given, 40, 4, lr=3.0)
    net.runs.clear()
    got = run("opticam", given, "official", iters=40, lr=3.0, stop="image")
    stops = []
    for image in range(4):
        rises = np.flatnonzero(np.diff(values[:, image]) < 0)
        stops.append(4 * (rises[0] + 1) if len(rises) else 40)
        if len(rises):
            np.testing.assert_allclose(got.array[image], maps[rises[0] + 1][image], atol=1e-12)
    assert len(set(stops)) > 1
    for image, stop in enumerate(stops):
        asked = [step for step, (kind, rows) in enumerate(net.runs) if kind == "gradient" and image in rows]
        assert asked == list(range(min(stop + 1, 40)))


def test_fewer_than_ten_iterations_are_looked_at_one_by_one():
    given = Network(5).evidence(images(3, 5), [0, 3, 4])
    maps, values = trajectory(given, 9, 1, lr=3.0)
    rises = np.flatnonzero(np.diff(values.sum(1)) < 0)
    assert rises[0] == 2
    got = run("opticam", given, "official", iters=9, lr=3.0, stop="batch")
    np.testing.assert_allclose(got.array, maps[3], atol=1e-12)


# ----- what it costs -----


def test_a_class_logit_takes_one_run_an_iteration_and_one_forward_at_the_end():
    net = Network()
    run("opticam", net.evidence(images(), [0, 1, 2]), iters=12)
    assert net.runs == [("gradient", (0, 1, 2))] * 12 + [("logits", (0, 1, 2))]


def test_a_margin_is_run_again_only_where_the_best_other_class_has_changed():
    net, x, target = Network(), images(6, 3), [0, 1, 2, 3, 4, 0]
    run("opticam", net.evidence(x, target), iters=25, objective="margin")
    again = [rows for kind, rows in net.runs if kind == "gradient" and len(rows) < 6]
    assert again
    assert sum(map(len, again)) < 25
    assert [kind for kind, _ in net.runs if kind == "logits"] == ["logits"]


def test_a_changing_cotangent_is_asked_for_beforehand():
    net = Network()
    run("opticam", net.evidence(images(), [0, 1, 2]), iters=5, objective="mse")
    first = [("gradient", (0, 1, 2))] * 2  # the guess was wrong
    assert net.runs == [*first, *[("logits", (0, 1, 2)), ("gradient", (0, 1, 2))] * 4, ("logits", (0, 1, 2))]


def test_dead_activations_are_degenerate_and_run_once():
    net, x = Network(), images()
    given = net.evidence(x, [0, 1, 2])
    given["acts"] = given["acts"] * np.array([1, 0, -1])[:, None, None, None]
    for norm in NORMS:
        net.runs.clear()
        result = run("opticam", given, iters=6, norm=norm)
        np.testing.assert_array_equal(result.array[1:], 0)
        assert PIPELINES["camrt"](result.array, SIZE, True)[1].tolist() == [False, True, True]
        assert all(np.isfinite(flag).all() for flag in result.flags.values())
        assert net.runs == [("gradient", (0, 1, 2)), *[("gradient", (0,))] * 5, ("logits", (0,))]


def test_a_single_channel_has_nothing_to_choose():
    net, x = Network(), images()
    given = net.evidence(x, [0, 1, 2])
    given["acts"] = given["acts"][:, :1]
    np.testing.assert_array_equal(raw("opticam", given, iters=6), given["acts"][:, 0])
    assert net.runs == [("gradient", (0, 1, 2))]


# ----- refusals -----


def test_what_cannot_be_is_refused():
    net, x = Network(), images()
    given = net.evidence(x, [0, 1, 2])
    with pytest.raises(MethodError, match="needs a model that takes floats; got uint8"):
        raw("opticam", {**given, "x": x.astype(np.uint8)})
    for objective in ("margin", "cross-entropy"):
        with pytest.raises(MethodError, match=f"objective '{objective}' needs a class"):
            raw("opticam", {**given, "target": np.array([0, -1, 2])}, objective=objective)
    broken = {**given, "image_gradient_of": lambda other, seed, rows: (net.logits(other), other * np.nan)}
    with pytest.raises(NumericError, match="gradient for image 0 holds NaN"):
        raw("opticam", broken)


# ----- through the explainer -----


def test_other_targets_are_the_objective_themselves():
    explainer, x = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(3)

    def found(target, **options):
        return explainer.explain(x, target=target, method="opticam", options={"iters": 30, **options})

    one, other = found("logprob:2"), found(2, objective="cross-entropy")
    np.testing.assert_allclose(one.flags["objective_best"], other.flags["objective_best"], rtol=1e-3, atol=1e-6)
    vector = np.zeros(tiny.CLASSES)
    vector[2] = 1
    np.testing.assert_array_equal(found(Vector(vector)).raw, found(2).raw)
    share = found(Probability(2))
    assert (share.flags["objective_best"] > share.flags["objective_first"]).all()
    assert (share.flags["objective_best"] <= 1).all()


def test_a_black_pixel_hides_under_the_official_variant():
    explainer, x = camrt.load(tiny.mlp(), preprocess="half"), tiny.images(2)
    raw_space = explainer.explain(x, target=1, method="opticam", options={"iters": 8}, mask_space="raw")
    official = explainer.explain(x, target=1, method="opticam", variant="official", options={"iters": 8})
    np.testing.assert_array_equal(raw_space.flags["objective_best"], official.flags["objective_best"])
    heat = min_max(resize(raw_space.raw[:, 0], tiny.SIZE))[0][:, None]
    hidden = np.array(explainer.preprocess.black, np.float32).reshape(1, -1, 1, 1)
    logits = explainer.explain(x * heat + hidden * (1 - heat), target=1).logits
    np.testing.assert_allclose(logits[:, 1], raw_space.flags["objective_best"][:, 0], rtol=1e-4)


@pytest.mark.realdata
def test_a_trained_network_is_surer_of_what_is_left_than_under_gradcams_mask(realdata):
    explainer = camrt.load(realdata / "models" / "resnet20_cifar10_dynamo_op18.onnx")
    x = prepare(sorted((realdata / "images" / "cifar10").glob("*.jpg"))[:4], explainer.preprocess).x
    target = explainer.explain(x).targets[:, 0]
    sure = []
    for method in ("gradcam", "opticam"):
        heat = explainer.explain(x, target=[[int(t)] for t in target], method=method).heatmaps
        logits = explainer.explain(x * heat).logits
        sure.append(softmax(logits)[range(len(x)), target])
    assert (sure[1] > sure[0]).all()
    assert sure[1].mean() > sure[0].mean() + 0.1
