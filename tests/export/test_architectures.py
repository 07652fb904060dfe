"""
Gradients of whole named networks, as torch's exporters write them, against float64 autograd.

Every architecture has random weights and at least 12 noise images. The oracle is torch's autograd over the exported
graph itself (`onnx_in_torch`), and the torch module for the scores, so that nothing is judged by its own code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from camrt.export.live import Live, open_model
from camrt.export.manifest import Layer
from camrt.export.programs import build as build_program
from camrt.export.verify import check_gradient, check_parity
from tests.export.architectures import SIDE, build, exported
from tests.export.gpu_lint import added_offences
from tests.export.judge import Figures, canonical, errors, judge, run_program
from tests.export.onnx_in_torch import gradients

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Expected:
    """
    What is known of an architecture.

    Attributes
    ----------
    default : str
        Module path that the default layer lies in; "" where no module of its own makes it.
    ops : tuple of str
        The operators that may make the default layer: the exporters spell some activations out.
    shape : tuple of int
        Its ``(K, h, w)``.
    early : str
        A module path nearer to the image.
    early_shape : tuple of int
        ``(K, h, w)`` of the last tensor made inside it.
    is_linear : bool
        Whether global average pooling and one linear layer follow the default layer.
    """

    default: str
    ops: tuple[str, ...]
    shape: tuple[int, int, int]
    early: str
    early_shape: tuple[int, int, int]
    is_linear: bool = True


EXPECTED = {
    "resnet18": Expected("layer4.1", ("Relu",), (512, 2, 2), "layer2.0", (128, 8, 8)),
    "vgg11": Expected("features.19", ("Relu",), (512, 4, 4), "features.8", (256, 16, 16), is_linear=False),
    "densenet": Expected("", ("Relu",), (138, 2, 2), "features.denseblock3.denselayer4.conv2", (16, 4, 4)),
    "googlenet": Expected("inception5b", ("Concat",), (1024, 2, 2), "inception4a", (512, 4, 4)),
    "squeezenet1_1": Expected("classifier.2", ("Relu",), (10, 3, 3), "features.7", (256, 7, 7)),
    "mobilenet_v2": Expected("features.18.2", ("Clip",), (1280, 2, 2), "features.6", (32, 8, 8)),
    "mobilenet_v3_small": Expected("features.12.2", ("HardSwish", "Mul"), (576, 2, 2), "features.4", (40, 4, 4), False),
    "efficientnet_b0": Expected("features.8.2", ("Mul", "Swish"), (1280, 2, 2), "features.3", (40, 8, 8)),
    "convnext_tiny": Expected("features.7.2", ("Add",), (192, 2, 2), "features.3.1", (48, 8, 8), False),
    "vit": Expected(
        "encoder.layers.encoder_layer_2.ln_1", ("LayerNormalization", "Add"), (64, 4, 4),
        "encoder.layers.encoder_layer_1.ln_1", (64, 4, 4), False,
    ),
}  # fmt: skip

CASES = [
    *[
        ("resnet18", "torchscript", 11),
        ("resnet18", "torchscript", 17),
        ("resnet18", "dynamo", 18),
        ("resnet18", "dynamo", 23),
    ],
    *[("mobilenet_v3_small", "torchscript", o) for o in (11, 17)],
    *[("mobilenet_v3_small", "dynamo", o) for o in (18, 23)],
    *[("vit", "torchscript", 14), ("vit", "torchscript", 17), ("vit", "dynamo", 18), ("vit", "dynamo", 23)],
    *[("convnext_tiny", "torchscript", 11), ("convnext_tiny", "torchscript", 17), ("convnext_tiny", "dynamo", 23)],
    *[("vgg11", "torchscript", 11), ("vgg11", "dynamo", 23)],
    *[("densenet", "torchscript", 17), ("densenet", "dynamo", 18)],
    *[("googlenet", "torchscript", 11), ("googlenet", "dynamo", 23)],
    *[("squeezenet1_1", "torchscript", 17), ("squeezenet1_1", "dynamo", 18)],
    *[("mobilenet_v2", "torchscript", 11), ("mobilenet_v2", "dynamo", 23)],
    *[("efficientnet_b0", "torchscript", 17), ("efficientnet_b0", "dynamo", 18)],
]


@dataclass(frozen=True)
class Case:
    """An exported architecture and what autograd says of it."""

    name: str
    module: torch.nn.Module
    given: onnx.ModelProto
    live: Live
    x: Array
    target: list[int]
    expected: Expected

    @property
    def default(self) -> Layer:
        """Return the default layer."""
        return self.live.manifest.default_layer


@pytest.fixture(scope="module", params=CASES, ids=lambda case: "-".join(map(str, case)))
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Return one architecture from one exporter."""
    name, exporter, opset = request.param
    module = build(name)
    data = exported(module, exporter, opset)
    x = np.random.default_rng(7).normal(size=(12, 3, SIDE, SIDE)).astype(np.float32)
    given = onnx.load_from_string(data)
    assert next(o.version for o in given.opset_import if not o.domain) == opset
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Case(name, module, given, open_model(data), x, [-1] * 6 + [1, 2, 3, 4, 5, 6], EXPECTED[name])
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def figures(case: Case) -> Figures:
    """Return how far the gradients of one architecture are off."""
    return judge(case.live, case.given, case.x, case.target, "scores")


def test_the_gradient_at_the_default_layer_is_that_of_float64_autograd(figures: Figures) -> None:
    assert figures.logits <= 1e-4  # the oracle computes what ONNX Runtime does
    assert figures.layer.max() <= 1e-4


def test_the_gradient_at_the_image_is_that_of_float64_autograd(figures: Figures) -> None:
    assert figures.image.min() <= max(1e-5, 3 * figures.floor.min())
    assert figures.cosine.min() >= 0.999


def test_the_scores_are_those_of_the_torch_module_and_of_the_model_as_given(case: Case) -> None:
    assert check_parity(case.live.classifier, case.live, case.x)["max_rel"] <= 1e-5
    with torch.no_grad():
        want = case.module.double()(torch.tensor(case.x, dtype=torch.float64)).numpy()
    case.module.float()
    got = run_program(case.live.program("forward"), x=case.x)["logits"]
    np.testing.assert_allclose(got, want, rtol=0, atol=1e-4 * np.abs(want).max())  # float32 through up to 121 layers


def test_the_default_layer_is_the_last_spatial_tensor_before_the_head(case: Case) -> None:
    layer, expected = case.default, case.expected
    assert layer.module.startswith(expected.default)
    assert bool(layer.module) == bool(expected.default)
    assert layer.op in expected.ops
    assert (layer.channels, *layer.grid) == expected.shape
    assert (layer.layout, layer.prefix) == (("tokens", 1) if case.name == "vit" else ("nchw", 0))
    assert case.live.manifest.linear_layers == ((layer.name,) if expected.is_linear else ())


def test_tensors_nodes_and_module_paths_name_layers(case: Case) -> None:
    layer, expected = case.default, case.expected
    assert {case.live.resolve(name) for name in (layer.name, layer.node)} == {layer}
    if expected.default:
        assert case.live.resolve(expected.default) == layer
    early = case.live.resolve(expected.early)
    assert early.module.startswith(expected.early)
    assert (early.channels, *early.grid) == expected.early_shape


def test_a_batch_gives_what_its_images_give_alone(case: Case) -> None:
    program = case.live.program("gradient", [case.default.name])
    together = run_program(program, x=case.x[:3], target=np.array([-1, 3, 5]))
    for i, target in enumerate((-1, 3, 5)):
        alone = run_program(program, x=case.x[i : i + 1], target=np.array([target]))
        assert together["explained"][i] == alone["explained"][0]
        for name in ("logits", "activations.0", "gradients.0"):
            scale = np.abs(alone[name]).max()
            np.testing.assert_allclose(together[name][i], alone[name][0], rtol=0, atol=1e-5 * scale, err_msg=name)


def test_one_program_gives_the_gradients_of_several_layers(case: Case) -> None:
    early, late = case.live.resolve(case.expected.early), case.default
    target = np.arange(12) % 10
    found = run_program(case.live.program("gradient", [early.name, late.name]), x=case.x, target=target)
    single = run_program(case.live.program("gradient", [late.name]), x=case.x, target=target)
    assert errors(found["gradients.1"], single["gradients.0"]).max() <= 1e-6
    exact = gradients(case.given, case.x, target, [early.name], "scores", torch.float64).layers[early.name]
    rough = gradients(case.given, case.x, target, [early.name], "scores", torch.float32).layers[early.name]
    floor = errors(canonical(early, rough), canonical(early, exact)).min()
    assert errors(found["gradients.0"], canonical(early, exact)).min() <= max(1e-5, 3 * floor)


def test_the_seeded_gradient_of_a_class_is_the_gradient_of_that_class(case: Case) -> None:
    layers = [case.default.name]
    one = run_program(case.live.program("gradient", layers), x=case.x[:2], target=np.array([4, 7]))
    seed = np.eye(10, dtype=np.float32)[[4, 7]]
    two = run_program(case.live.program("seeded_gradient", layers), x=case.x[:2], seed=seed)
    assert errors(two["gradients.0"], one["gradients.0"]).max() <= 1e-6


@pytest.mark.parametrize("which", ["default", "early"])
def test_the_tail_continues_what_the_features_began(case: Case, which: str) -> None:
    layer = case.default if which == "default" else case.live.resolve(case.expected.early)
    features = run_program(case.live.program("features", [layer.name]), x=case.x[:3])
    program = case.live.program("tail_gradient", [layer.name])
    feeds = {name.replace(".", "__"): value for name, value in features.items() if name != "logits"}
    assert {name.replace("__", ".") for name in feeds} | {"seed"} == set(program.inputs)
    tail = run_program(case.live.program("tail", [layer.name]), **feeds)
    np.testing.assert_allclose(tail["logits"], features["logits"], rtol=0, atol=1e-5 * np.abs(features["logits"]).max())
    seed = np.eye(10, dtype=np.float32)[[1, 2, 3]]
    found = run_program(program, seed=seed, **feeds)
    whole = run_program(case.live.program("seeded_gradient", [layer.name]), x=case.x[:3], seed=seed)
    assert errors(found["gradients.0"], whole["gradients.0"]).max() <= 1e-4
    np.testing.assert_allclose(found["logits"], whole["logits"], rtol=0, atol=1e-5 * np.abs(whole["logits"]).max())


def test_nothing_is_added_that_gpus_do_not_run(case: Case) -> None:
    classifier, early = case.live.classifier, case.live.resolve(case.expected.early)
    forward = list(build_program(classifier, "forward")[0].graph)
    known = {node.name for node in forward}
    for kind, layers in (("gradient", (early, case.default)), ("input_gradient", ()), ("tail_gradient", (early,))):
        model, _ = build_program(classifier, kind, layers)
        added = [node for node in model.graph if node.name not in known]
        assert added
        assert added_offences(added, forward) == [], kind


def test_the_gradient_is_the_slope_of_the_tail(case: Case) -> None:
    assert check_gradient(case.live, case.default.name, case.x[:2])["rel_error"] <= 1e-2


def test_every_cell_of_the_default_layer_receives_a_gradient(case: Case) -> None:
    """In a vision transformer that is not so for the layers behind: only the class token feeds the head."""
    found = run_program(case.live.program("gradient", [case.default.name]), x=case.x[:2], target=np.array([-1, -1]))
    assert (np.abs(found["gradients.0"]).max(1) > 0).all()
    later = case.live.manifest.layers[-1]
    if case.name == "vit":
        found = run_program(case.live.program("gradient", [later.name]), x=case.x[:2], target=np.array([-1, -1]))
        assert not found["gradients.0"].any()
