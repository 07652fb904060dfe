"""A torch module becomes a file that computes the same, and stays as it was."""

from __future__ import annotations

import builtins
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from camrt.errors import MissingExtraError, ModelError, OutputError
from camrt.export.from_torch import from_torch
from camrt.export.live import open_model
from tests.export.judge import errors, run_program


class Net(nn.Module):
    """A small classifier with everything that evaluation mode changes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scores."""
        return self.head(self.drop(torch.relu(self.norm(self.conv(x))).mean((2, 3))))


@pytest.fixture
def module() -> nn.Module:
    """Return the classifier, partly in training."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net()
    net.train()
    net.norm.eval()
    return net


def picture(n: int = 3) -> Any:
    """Return seeded images."""
    return np.random.default_rng(0).normal(size=(n, 3, 8, 8)).astype(np.float32)


@pytest.mark.parametrize("example", [picture(1), torch.zeros(4, 3, 8, 8), torch.ones(1, 3, 8, 8, requires_grad=True)])
def test_the_file_computes_what_the_module_does_in_evaluation_mode(module: nn.Module, example: Any) -> None:
    live = open_model(from_torch(module, example))
    x, target = picture(), np.array([0, 2, 4])
    found = run_program(live.program("gradient", ["norm"]), x=x, target=target)  # the convolution is folded into it
    exact = module.double().eval()
    acts = exact.norm(exact.conv(torch.tensor(x, dtype=torch.float64))).detach().requires_grad_()
    scores = exact.head(torch.relu(acts).mean((2, 3)))
    scores[torch.arange(3), torch.tensor(target)].sum().backward()
    assert acts.grad is not None
    assert errors(found["gradients.0"], acts.grad.numpy()).max() <= 1e-5
    np.testing.assert_allclose(found["logits"], scores.detach().numpy(), rtol=0, atol=1e-5)
    assert live.manifest.batch is None
    assert (live.manifest.input["name"], live.manifest.output, live.classifier.opset) == ("x", "logits", 18)


def test_training_flags_of_every_submodule_are_as_before(module: nn.Module) -> None:
    before = {name: child.training for name, child in module.named_modules()}
    assert set(before.values()) == {True, False}
    state = {name: value.clone() for name, value in module.state_dict().items()}
    from_torch(module, picture())
    assert {name: child.training for name, child in module.named_modules()} == before
    for name, value in module.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_training_flags_are_as_before_when_the_export_fails(module: nn.Module) -> None:
    class Failing(Net):
        """A module that torch cannot run."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            """Fail."""
            raise RuntimeError("this module\nnever runs")

    failing = Failing().train()
    failing.norm.eval()
    with pytest.raises(ModelError, match="never runs") as caught:
        from_torch(failing, picture())
    assert "\n" not in str(caught.value)
    assert failing.drop.training
    assert not failing.norm.training


def test_the_file_is_written_whole_and_never_over_another(module: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    data = from_torch(module, picture(), path)
    assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OutputError, match="is already there: give another path"):
        from_torch(module, picture(), path)
    with pytest.raises(OutputError, match="cannot be written"):
        from_torch(module, picture(), tmp_path / "none" / "net.onnx")


@pytest.mark.parametrize(
    ("given", "example", "said"),
    [
        ("not a module", picture(), "a torch.nn.Module was wanted, str was given"),
        (nn.Identity(), np.zeros((3, 8, 8), np.float32), r"shape \(N, C, H, W\) was wanted, \(3, 8, 8\) was given"),
        (
            nn.Conv2d(3, 4, 3),
            np.zeros((1, 5, 8, 8), np.float32),
            r"Conv2d does not run on an example of shape \(2, 5, 8, 8\)",
        ),
    ],
)
def test_what_is_no_classifier_is_refused(given: Any, example: Any, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        from_torch(given, example)


def test_a_module_with_several_outputs_is_refused() -> None:
    class Two(Net):
        """A module that returns a tuple."""

        def forward(self, x: torch.Tensor) -> Any:
            """Return the scores twice."""
            scores = super().forward(x)
            return scores, scores * 2

    with pytest.raises(ModelError, match="one tensor of scores was wanted, it returns tuple"):
        from_torch(Two(), picture())


def test_a_missing_exporter_is_named_with_its_extra(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "onnxscript":
            raise ModuleNotFoundError("No module named 'onnxscript'", name="onnxscript")
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "onnxscript", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"onnxscript is needed .*: pip install 'camrt\[torch\]'"):
        from_torch(module, picture())


def test_a_file_that_computes_something_else_is_refused(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("camrt.export.from_torch.run", lambda *_: [np.zeros((2, 5), np.float32)])
    with pytest.raises(ModelError, match="the exported file differs from the module by"):
        from_torch(module, picture())
