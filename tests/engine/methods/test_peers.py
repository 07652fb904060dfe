"""
Our variants and pipelines against torch-cam and pytorch-grad-cam, as installed.

``golden/peers.npz`` holds evidence and maps of two small networks; ``golden/make_peer_maps.py`` made it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import camrt
from camrt import kernels
from camrt.fuse import fuse_layers
from camrt.kernels import min_max
from camrt.methods import raw_map, resolve, validate
from camrt.pipeline import PIPELINES
from tests.engine.methods.edited import edited_evidence
from tests.engine.methods.heads import GapLinear, TwoLayer, raw

PEERS = dict(np.load(Path(__file__).parent / "golden" / "peers.npz"))
SIZE, AGREES = (16, 24), 1e-4
PROJECTED = ("eigencam", "eigengradcam")  # the peer's sign is LAPACK's, which another build may turn


def evidence(kind, layer="last"):
    """Lay out what the peers saw at one layer."""
    found = {
        name.split("/")[1]: array for name, array in PEERS.items() if name.count("/") == 1 and name.startswith(kind)
    }
    given = {"acts": found[f"acts_{layer}"], "grads": found[f"grads_{layer}"], "logits": found["logits"]}
    given |= {"target": PEERS["target"], "ids": np.arange(2, dtype=np.uint64)}
    if kind == "gap":
        return {**given, "head": found["weight_0"][PEERS["target"]]}
    head = TwoLayer(found["weight_0"], found["bias_0"], found["weight_1"], found["bias_1"])
    return {**given, "gradients_of": lambda seed: head.grads(given["acts"], seed)}


def peer(path):
    """Return a peer's map, scaled to [0, 1]."""
    return min_max(PEERS[path])[0]


def heat(name, given, variant=None, *, eigen_smooth=False, **options):
    """Return our heatmap through pytorch-grad-cam's pipeline, and the same of the negated raw map."""
    method = resolve(name)
    chosen, full = validate(method, variant, options)
    made = raw_map(method, given, variant=chosen, options=full, layer="last", eigen_smooth=eigen_smooth).array
    return tuple(min_max(PIPELINES["pytorch-grad-cam"](array, SIZE)[0])[0] for array in (made, -made))


PYTORCH_GRAD_CAM = [
    ("gradcam", "gradcam", None, {}),
    ("gradcampp", "gradcampp", "pytorch-grad-cam", {}),
    ("xgradcam", "xgradcam", "pytorch-grad-cam", {}),
    ("layercam", "layercam", None, {}),
    ("hirescam", "hirescam", None, {}),
    ("elementwisecam", "elementwisecam", None, {}),
    ("eigencam", "eigencam", "pytorch-grad-cam", {}),
    ("eigengradcam", "eigengradcam", "pytorch-grad-cam", {}),
    ("eigengradcam_seg", "eigengradcam", "seg", {}),
    ("kpcacam", "kpcacam", None, {}),
    ("kpcacam_rbf", "kpcacam", None, {"kernel": "rbf", "gamma": 0.5}),
    ("fem", "fem", None, {}),
]


@pytest.mark.parametrize(("recorded", "name", "variant", "options"), PYTORCH_GRAD_CAM)
def test_heatmaps_agree_with_pytorch_grad_cam(recorded, name, variant, options):
    ours, negated = heat(name, evidence("two_layer"), variant, **options)
    for image, theirs in enumerate(peer(f"two_layer/pytorch-grad-cam/{recorded}")):
        gap = abs(ours[image] - theirs).max()
        if recorded in PROJECTED:
            gap = min(gap, abs(negated[image] - theirs).max())
        assert gap <= AGREES


@pytest.mark.parametrize("name", ["gradcam", "gradcampp", "xgradcam"])
def test_heatmaps_under_a_gap_head_agree_with_pytorch_grad_cam(name):
    variant = None if name == "gradcam" else "pytorch-grad-cam"
    ours, _ = heat(name, evidence("gap"), variant)
    np.testing.assert_allclose(ours, peer(f"gap/pytorch-grad-cam/{name}"), atol=AGREES)


def test_eigen_smoothing_agrees_with_pytorch_grad_cam_up_to_its_sign():
    ours, negated = heat("gradcam", evidence("two_layer"), eigen_smooth=True)
    theirs = peer("two_layer/pytorch-grad-cam/gradcam_smooth")
    gaps = [min(abs(ours[n] - theirs[n]).max(), abs(negated[n] - theirs[n]).max()) for n in range(2)]
    assert max(gaps) <= AGREES


@pytest.mark.parametrize(
    ("recorded", "options"), [("finercam", {}), ("finercam_hirescam", {"base": "hirescam", "alpha": 0.5})]
)
def test_finercam_agrees_with_pytorch_grad_cam_on_the_prediction(recorded, options):
    given = evidence("two_layer")
    ours, _ = heat("finercam", {**given, "target": given["logits"].argmax(1)}, **options)
    np.testing.assert_allclose(ours, peer(f"two_layer/pytorch-grad-cam/{recorded}"), atol=AGREES)


def test_shapleycam_agrees_with_pytorch_grad_cam():
    """Its Hessian-vector product is autograd's; ours is a cotangent from two logits that differ by float32's rounding."""
    given = evidence("two_layer")
    head = TwoLayer(*(PEERS[f"two_layer/{part}"] for part in ("weight_0", "bias_0", "weight_1", "bias_1")))
    given |= {"piecewise": True, "logits_from": head.logits, "gradients_from": head.grads}
    theirs = peer("two_layer/pytorch-grad-cam/shapleycam")
    for exact in (True, False):
        ours, _ = heat("shapleycam", {**given, "piecewise": exact})
        np.testing.assert_allclose(ours, theirs, atol=AGREES)
    assert abs(heat("gradcam", given)[0] - theirs).max() > 0.05


def test_fullgrad_agrees_with_pytorch_grad_cam():
    found = {name: PEERS[f"two_layer/{name}"] for name in ("x", "grads_x", "term_0", "term_1")}
    terms = [found["term_0"], found["term_1"], np.ones((2, 12), np.float32)]  # a layer without a grid takes no part
    given = {
        "x": found["x"],
        "size": SIZE,
        "seed": lambda: None,
        "full_of": lambda seed, times: (found["grads_x"], terms),
    }
    theirs = peer("two_layer/pytorch-grad-cam/fullgrad")
    np.testing.assert_allclose(min_max(raw("fullgrad", given, "pytorch-grad-cam"))[0], theirs, atol=AGREES)
    assert abs(min_max(raw("fullgrad", given))[0] - theirs).max() > 0.05  # the official scaling is another


def layers(name, variant=None, **options):
    """Return the raw maps of both layers, the shallow one first."""
    return [raw(name, evidence("two_layer", layer), variant, **options) for layer in ("mid", "last")]


def test_the_mean_over_layers_agrees_with_pytorch_grad_cam():
    ours, _ = fuse_layers(layers("gradcam"), SIZE, PIPELINES["pytorch-grad-cam"])
    np.testing.assert_allclose(ours, PEERS["two_layer/pytorch-grad-cam/gradcam_mean"], atol=AGREES)


def test_refinecam_agrees_with_pytorch_grad_cam():
    raws = layers("refinecam", base_variant="pytorch-grad-cam")
    ours, _ = fuse_layers(raws, SIZE, PIPELINES["pytorch-grad-cam"], how="product")
    np.testing.assert_allclose(ours, PEERS["two_layer/pytorch-grad-cam/refinecam"], atol=AGREES)


TORCHCAM = [
    ("gradcam", "gradcam", None, {}),
    ("gradcampp", "gradcampp", "torchcam", {}),
    ("xgradcam", "xgradcam", "torchcam", {}),
    ("layercam", "layercam", "torchcam", {}),
    ("finercam", "finercam", "torchcam", {}),
    ("finercam_gradcampp", "finercam", "torchcam", {"base": "gradcampp"}),
]


def through_torchcam(made, size, *, relu=True):
    """Return raw maps through torch-cam's pipeline at a size, scaled to [0, 1]."""
    return min_max(PIPELINES["torchcam"](made, size, relu)[0])[0]


@pytest.mark.parametrize(("recorded", "name", "variant", "options"), TORCHCAM)
def test_maps_agree_with_torchcam(recorded, name, variant, options):
    ours = raw(name, evidence("two_layer"), variant, **options)
    theirs = peer(f"two_layer/torchcam/{recorded}")
    np.testing.assert_allclose(through_torchcam(ours, theirs.shape[1:]), theirs, atol=AGREES)


@pytest.mark.parametrize(("recorded", "name", "variant", "options"), TORCHCAM[:4])
def test_maps_under_a_gap_head_agree_with_torchcam(recorded, name, variant, options):
    theirs = peer(f"gap/torchcam/{recorded}")
    ours = raw(name, evidence("gap"), variant, **options)
    np.testing.assert_allclose(through_torchcam(ours, theirs.shape[1:]), theirs, atol=AGREES)


def test_cam_agrees_with_torchcam_and_has_no_relu():
    theirs = peer("gap/torchcam/cam")
    ours = through_torchcam(raw("cam", evidence("gap")), theirs.shape[1:], relu=resolve("cam").relu_of("official"))
    np.testing.assert_allclose(ours, theirs, atol=AGREES)


def test_smoothgradcampp_agrees_with_torchcam_on_its_own_noisy_inputs():
    recorded = zip(PEERS["two_layer/torchcam/noisy_acts"], PEERS["two_layer/torchcam/noisy_grads"], strict=True)
    given = {
        **evidence("two_layer"),
        "x": np.zeros((2, 3, *SIZE), np.float32),
        "gradients_at": lambda x: next(recorded),
    }
    ours = raw("smoothgradcampp", given, "torchcam")
    assert next(recorded, None) is None  # as many noisy inputs as torch-cam takes
    theirs = peer("two_layer/torchcam/smoothgradcampp")
    np.testing.assert_allclose(through_torchcam(ours, theirs.shape[1:]), theirs, atol=AGREES)


@pytest.mark.parametrize(
    ("recorded", "name", "how"),
    [
        ("layercam_fused", "layercam", "layercam"),
        ("refinecam", "refinecam", "largest-product"),
        ("gradcam_max", "gradcam", "max"),
    ],
)
def test_fusions_agree_with_torchcam(recorded, name, how):
    variant = None if name == "gradcam" else "torchcam"
    theirs = peer(f"two_layer/torchcam/{recorded}")
    _, full = validate(resolve(name), variant)
    options = {key: full[key] for key in resolve(name).fusion_options}
    ours, _ = fuse_layers(layers(name, variant), theirs.shape[1:], PIPELINES["torchcam"], how=how, options=options)
    np.testing.assert_allclose(min_max(ours)[0], theirs, atol=AGREES)


def network():
    """Return the two-layer network as ONNX; its layers are called mid and last."""
    names = [f"{part}_{depth}" for depth in (0, 1) for part in ("conv_weight", "conv_bias", "weight", "bias")]
    strided = {"pads": [1, 1, 1, 1], "strides": [2, 2]}
    nodes = [
        helper.make_node("Conv", ["x", "conv_weight_0", "conv_bias_0"], ["c0"], **strided),
        helper.make_node("Relu", ["c0"], ["mid"]),
        helper.make_node("Conv", ["mid", "conv_weight_1", "conv_bias_1"], ["c1"], **strided),
        helper.make_node("Relu", ["c1"], ["last"]),
        helper.make_node("Flatten", ["last"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weight_0", "bias_0"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["hr"]),
        helper.make_node("Gemm", ["hr", "weight_1", "bias_1"], ["logits"], transB=1),
    ]
    shapes = {"x": ["n", 3, *SIZE], "logits": ["n", PEERS["two_layer/logits"].shape[1]]}
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    arrays = [numpy_helper.from_array(PEERS[f"two_layer/{name}"], name) for name in names]
    graph = helper.make_graph(nodes, "peer", ends[:1], ends[1:], arrays)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8).SerializeToString()


def explained(name, variant, pipeline, layer="last", **options):
    """Return our heatmap of each image for its own target, masked forwards and all, scaled to [0, 1]."""
    result = camrt.load(network(), preprocess="raw").explain(
        PEERS["two_layer/x"], method=name, variant=variant, layer=layer, pipeline=pipeline, options=options,
        target=PEERS["target"].tolist(),
    )  # fmt: skip
    return np.stack([min_max(result.heatmaps[n])[0][n] for n in range(2)])


def test_the_network_is_the_peers_network():
    explainer, x = camrt.load(network(), preprocess="raw"), PEERS["two_layer/x"]
    np.testing.assert_allclose(explainer.logits(x), PEERS["two_layer/logits"], atol=1e-5)
    np.testing.assert_allclose(explainer.activations(x, layer="last")["last"], PEERS["two_layer/acts_last"], atol=1e-5)


def test_scorecam_agrees_with_pytorch_grad_cam():
    theirs = peer("two_layer/pytorch-grad-cam/scorecam")
    np.testing.assert_allclose(explained("scorecam", "pytorch-grad-cam", "pytorch-grad-cam"), theirs, atol=AGREES)
    assert abs(explained("scorecam", "official", "pytorch-grad-cam") - theirs).max() > 10 * AGREES


@pytest.mark.parametrize(
    ("recorded", "layer", "options"),
    [("ablationcam", "last", {}), ("ablationcam_signed", "c1", {}), ("ablationcam_ratio", "c1", {"ratio": 0.25})],
)
def test_ablationcam_agrees_with_pytorch_grad_cam(recorded, layer, options):
    theirs = peer(f"two_layer/pytorch-grad-cam/{recorded}")
    ours = explained("ablationcam", "pytorch-grad-cam", "pytorch-grad-cam", layer, **options)
    np.testing.assert_allclose(ours, theirs, atol=AGREES)
    if options or layer == "c1":
        plain = explained("ablationcam", "abs", "pytorch-grad-cam", layer, value="min")
        assert abs(plain - theirs).max() > 10 * AGREES


def test_ablationcam_under_a_gap_head_agrees_with_pytorch_grad_cam():
    given = evidence("gap")
    head = GapLinear(PEERS["gap/weight_0"], PEERS["gap/bias_0"])
    given |= edited_evidence(head.logits, given["acts"], given["target"])
    ours, _ = heat("ablationcam", given, "pytorch-grad-cam")
    np.testing.assert_allclose(ours, peer("gap/pytorch-grad-cam/ablationcam"), atol=AGREES)


MASKED_BY_TORCHCAM = [("scorecam", {}), ("sscam", {"n": 4, "sigma": 0.5}), ("iscam", {"n": 5})]


@pytest.mark.parametrize(("name", "options"), MASKED_BY_TORCHCAM)
def test_masked_forwards_agree_with_torchcam(name, options, monkeypatch):
    noise, seen = PEERS["two_layer/torchcam/noise"], []

    def recorded(shape, seed, image, sample):
        """Return the noise that torch-cam was given; images in the order in which they are met."""
        seen.extend([image] * (image not in seen))
        assert shape == SIZE
        return noise[sample, seen.index(image)]

    monkeypatch.setattr("camrt.forwards.standard_normal", recorded)
    theirs = kernels.resize(PEERS[f"two_layer/torchcam/{name}"], SIZE)  # torch-cam's maps have the layer's size
    np.testing.assert_allclose(explained(name, "torchcam", "torchcam", **options), min_max(theirs)[0], atol=AGREES)
    assert abs(explained(name, "torchcam-0.2", "torchcam", **options) - min_max(theirs)[0]).max() > 10 * AGREES


@pytest.mark.parametrize(
    ("path", "name", "variant"),
    [
        ("gap/pytorch-grad-cam/gradcampp", "gradcampp", "paper"),
        ("two_layer/torchcam/gradcampp", "gradcampp", "cube-inside"),
        ("two_layer/torchcam/finercam", "finercam", "official"),
        ("two_layer/pytorch-grad-cam/hirescam", "gradcam", None),
        ("two_layer/pytorch-grad-cam/eigengradcam_seg", "eigengradcam", "centred"),
    ],
)
def test_other_definitions_do_not_agree(path, name, variant):
    theirs = peer(path)
    made = raw(name, evidence(path.split("/")[0]), variant)
    assert abs(through_torchcam(made, theirs.shape[1:]) - theirs).max() > 10 * AGREES
