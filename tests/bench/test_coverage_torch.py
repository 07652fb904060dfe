"""How a layer's tensor is found in a torch module, and what autograd then says, in closed form."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

if importlib.util.find_spec("torchvision") is None:
    pytest.skip("the suite's torch models come from torchvision, which is not installed", allow_module_level=True)

from bench.coverage_torch import _autograd, _settle


class Net(nn.Module):
    """A convolution whose output the head reads twice: as it is, and through a copy of equal values."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a = torch.relu(self.conv(x))
        scores: torch.Tensor = self.fc((a + a.clone()).mean((2, 3)))
        return scores


def given(layout: str = "nchw") -> tuple[nn.Module, torch.Tensor, Any, dict[str, Any]]:
    """Return a network, images, its layer's float32 activations, and the layer."""
    torch.manual_seed(0)
    net = Net().eval().requires_grad_(False)
    x = torch.randn(2, 3, 6, 4)
    activations = torch.relu(net.conv(x)).numpy()
    layer = {"name": "relu", "op": "Relu", "shape": ["N", 4, 6, 4], "layout": layout, "prefix": 0, "grid": [6, 4]}
    return net, x, activations, layer


def test_the_first_of_equal_tensors_is_the_layer_so_its_gradient_counts_every_reader() -> None:
    net, x, activations, layer = given()
    at_layer, at_image = _autograd(net.double(), x.double(), np.array([1, 4]), activations, layer)
    weights = net.fc.weight[[1, 4]].numpy()
    np.testing.assert_allclose(
        at_layer, np.broadcast_to(2 * weights[:, :, None, None] / 24, at_layer.shape), rtol=1e-12
    )
    assert at_image.shape == tuple(x.shape) and at_image.dtype == np.float64


class Idle(nn.Module):
    """A ReLU over what is not negative: equal values before and behind it, and other gradients where they are zero."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.fc = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores: torch.Tensor = self.fc(torch.relu(torch.relu(self.conv(x)) * 2).mean((2, 3)))
        return scores


def test_of_equal_tensors_the_last_by_the_layers_operator_is_the_layer() -> None:
    torch.manual_seed(0)
    net = Idle().eval().requires_grad_(False)
    x = torch.randn(2, 3, 6, 4)
    layer = {"name": "relu_1", "op": "Relu", "shape": ["N", 4, 6, 4], "layout": "nchw", "prefix": 0, "grid": [6, 4]}
    activations = torch.relu(net.conv(x)).numpy() * 2
    assert not activations.all()
    at_layer, _ = _autograd(net.double(), x.double(), np.array([1, 4]), activations, layer)
    weights = net.fc.weight[[1, 4]].numpy()
    np.testing.assert_allclose(at_layer, np.broadcast_to(weights[:, :, None, None] / 24, at_layer.shape), rtol=1e-12)


def test_activations_that_no_tensor_holds_are_told() -> None:
    net, x, activations, layer = given()
    with pytest.raises(LookupError, match="the nearest is off by"):
        _autograd(net, x, np.array([0, 0]), activations + 1, layer)
    with pytest.raises(LookupError, match="none has its size"):
        _autograd(net, x, np.array([0, 0]), activations[:, :, :3], layer | {"shape": ["N", 4, 3, 4]})


def test_tokens_are_found_in_the_grid_they_are_views_of() -> None:
    net, x, activations, layer = given()
    tokens = layer | {"shape": ["N", 6, 16], "layout": "tokens", "grid": [3, 2]}
    as_tokens = activations.reshape(2, 6, 16).transpose(0, 2, 1).reshape(2, 16, 3, 2)
    at_layer, _ = _autograd(net.double(), x.double(), np.array([1, 4]), as_tokens, tokens)
    assert at_layer.shape == (2, 16, 3, 2)


def test_settling_leaves_no_branch_at_zero_and_signals_of_about_unit_size() -> None:
    torch.manual_seed(0)
    block = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8)
    )
    nn.init.zeros_(block[4].weight)
    nn.init.constant_(block[3].weight, 1e-6)  # a layer scale
    x = torch.randn(12, 3, 16, 16)
    settled = _settle(block.requires_grad_(False), x)
    y = settled(x)
    assert not any(module.training for module in settled.modules())
    assert 0.15 < float(y.std((0, 2, 3)).min()) <= float(y.std((0, 2, 3)).max()) < 2
    assert not settled[2].inplace
