"""The training script, in small: steps lower the loss, and the written file computes what the network does."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest

from camrt.demo import CLASSES, SIZE
from camrt.errors import OutputError

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

from camrt.demo import train


@pytest.fixture(scope="module")
def pictures() -> train.Pictures:
    """Draw a small training set, a third of it with two objects."""
    return train.draw_pictures(5_000, 90, pair_share=1 / 3)


@pytest.fixture(scope="module")
def net() -> train.ShapeNet:
    """Return an untrained network whose normalisations have statistics worth folding."""
    torch.manual_seed(1)
    net = train.ShapeNet()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            torch.nn.init.normal_(module.running_mean, std=0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    return net.eval()


def test_targets_are_one_for_one_object_and_halves_for_two(pictures):
    assert pictures.images.shape == (90, 3, SIZE, SIZE)
    assert pictures.targets.sum(1).allclose(torch.ones(90))
    n_objects = (pictures.targets > 0).sum(1)
    assert sorted(n_objects.unique().tolist()) == [1, 2]
    assert (n_objects == 2).float().mean().item() == pytest.approx(1 / 3)


def test_classes_are_drawn_equally_often():
    """Oracle: every class is first in a tenth of the pictures, and second in as many of the pairs."""
    labels = [train._labels(index, 3) for index in range(2_700)]
    assert {sum(chosen[0] == label for chosen in labels) for label in range(len(CLASSES))} == {270}
    pairs = [chosen for chosen in labels if len(chosen) == 2]
    assert {sum(chosen[1] == label for chosen in pairs) for label in range(len(CLASSES))} == {90}
    assert all(first != second for first, second in pairs)


def test_a_few_steps_lower_the_loss(pictures):
    torch.manual_seed(0)
    net = train.ShapeNet()
    few = train.Pictures(pictures.images[:30], pictures.targets[:30])
    history = train.fit(net, few, epochs=10, batch=10, peak=4e-3)
    assert history[-1] < history[0] - 0.1
    assert not net.training


def test_the_same_seed_trains_the_same_network(pictures):
    few = train.Pictures(pictures.images[:16], pictures.targets[:16])
    states = []
    for _ in range(2):
        torch.manual_seed(0)
        net = train.ShapeNet()
        train.fit(net, few, epochs=2, batch=8)
        states.append(net.state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_spread_is_one_for_a_constant_map_and_smallest_for_a_single_position():
    """Closed form on 4 x 4: 1, and 1/4; the mean of both for the two as channels, at any scale."""
    features = torch.zeros(1, 2, 4, 4)
    features[0, 0] = 50
    features[0, 1, 2, 3] = 700
    assert train.spread(features).item() == pytest.approx((1 + 0.25) / 2, abs=1e-4)


def test_folding_keeps_what_the_network_computes(net):
    """Oracle: the network with its normalisations, in float64."""
    x = torch.randn(2, 3, SIZE, SIZE, dtype=torch.float64)
    double = copy.deepcopy(net).double()
    folded = train.folded(double)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded(x), double(x), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore:.*LeafSpec.*:FutureWarning")  # torch's own exporter
def test_the_written_file_computes_what_the_network_does(net, tmp_path):
    """Oracle: the network's own forward pass, at a batch the exporter did not see."""
    path = tmp_path / "model.onnx"
    train.export(net, path)
    x = np.random.default_rng(0).normal(size=(3, 3, SIZE, SIZE)).astype(np.float32)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        want = net(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(session.run(None, {"image": x})[0], want, atol=1e-4 * np.abs(want).max())
    assert tuple(json.loads(session.get_modelmeta().custom_metadata_map["labels"])) == CLASSES
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_a_place_without_a_folder_is_refused_before_any_work(tmp_path):
    with pytest.raises(OutputError, match="no folder") as caught:
        train.main([str(tmp_path / "nowhere" / "model.onnx")])
    assert "\n" not in str(caught.value)
