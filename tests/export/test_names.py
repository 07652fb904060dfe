"""Names of layers: what torch's two exporters write is read, and a wrong name is answered with near ones."""

from __future__ import annotations

import pytest

from camrt.errors import LayerError
from camrt.export.manifest import Layer
from camrt.export.names import module_path, pick

SCOPES = "pkg.torch.onnx.name_scopes"


def layer(name: str, node: str = "", module: str = "") -> Layer:
    """Return a candidate of which only the names matter."""
    return Layer(name, node, "Relu", module, ("N", 8, 4, 4), "nchw", 8, (4, 4))


LAYERS = [
    layer("relu_1", "node_relu_1", "layer1.0.relu"),
    layer("add_1", "node_add_1", "layer1.0"),
    layer("conv_2", "node_conv_2", "layer1.1.conv1"),
    layer("relu_2", "node_relu_2", "layer1.1.relu"),
    layer("relu_9", "node_relu_9", "layer10.0.relu"),
    layer("free", "node_free"),
]


@pytest.mark.parametrize(
    ("node", "path"),
    [
        ("/layer4/layer4.1/relu/Relu", "layer4.1.relu"),
        ("/features/features.18/features.18.2/Clip", "features.18.2"),
        ("/features/denseblock1/denselayer1/norm1/BatchNormalization", "features.denseblock1.denselayer1.norm1"),
        ("/encoder/layers/encoder_layer_2/ln_1/LayerNormalization", "encoder.layers.encoder_layer_2.ln_1"),
        ("/conv1/Conv", "conv1"),
        ("/Relu", ""),
        ("Relu_8", ""),
        ("model/activation_26/Relu", ""),
        ("", ""),
    ],
)
def test_names_of_the_older_exporter_hold_the_module_path(node: str, path: str) -> None:
    assert module_path(node, {}) == path


@pytest.mark.parametrize(
    ("scopes", "path"),
    [
        ("['', 'layer4', 'layer4.1', 'layer4.1.relu', 'relu_16']", "layer4.1.relu"),
        ("['', 'relu_120']", ""),
        ("['relu']", ""),
        ("not python", ""),
        ("__import__('os').getcwd()", ""),
        ("3", ""),
        ("-" * 100_000, ""),  # deep enough to bring down a parser
    ],
)
def test_scopes_of_the_newer_exporter_hold_the_module_path_and_are_never_run(scopes: str, path: str) -> None:
    assert module_path("node_relu_16", {SCOPES: scopes}) == path


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("relu_1", "relu_1"),
        ("node_relu_1", "relu_1"),
        ("layer1.0.relu", "relu_1"),
        ("layer1.0", "add_1"),  # the last tensor made inside the module
        ("layer1.1", "relu_2"),
        ("layer1", "relu_2"),  # not layer10
        ("layer10", "relu_9"),
    ],
)
def test_tensors_nodes_and_modules_name_a_layer(name: str, found: str) -> None:
    assert pick(name, LAYERS).name == found


def test_a_tensor_comes_before_a_module_of_the_same_name() -> None:
    layers = [layer("layer1", "n1"), layer("deep", "n2", "layer1.conv")]
    assert pick("layer1", layers).node == "n1"


@pytest.mark.parametrize(("wrong", "near"), [("layer1.2", "layer1.1"), ("relu_3", "relu_2"), ("layr1.0", "layer1.0")])
def test_a_wrong_name_is_answered_with_near_ones(wrong: str, near: str) -> None:
    with pytest.raises(LayerError, match=r"no layer .* near names: ") as caught:
        pick(wrong, LAYERS)
    assert repr(near) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("wrong", ["", "zzzzzzzzzzzz"])
def test_a_name_like_no_other_is_answered_with_the_last_layers(wrong: str) -> None:
    with pytest.raises(LayerError, match=r"some layers: .*'free'"):
        pick(wrong, LAYERS)


def test_a_layer_without_a_module_is_not_found_by_a_dot() -> None:
    with pytest.raises(LayerError):
        pick(".", LAYERS)
