"""What a model is said to be able to do is what it does."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import camrt
import camrt.export
from camrt.errors import CamrtError
from camrt.methods import METHODS
from camrt.server.facts import describe
from camrt.server.served import Served
from camrt.server.settings import Settings
from tests import tiny
from tests.engine.server.small import served

SETTINGS = Settings()
CHEAP = {"opticam": {"iters": 2}, "rise": {"n": 8}, "liftcam": {}}


@pytest.fixture(scope="module")
def bundled(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """Return the same network from a bundle that was exported without anything beside."""
    folder = tmp_path_factory.mktemp("facts")
    (folder / "tiny.onnx").write_bytes(tiny.gap())
    camrt.export.export(folder / "tiny.onnx", folder / "bundle")
    return dataclasses.replace(served(), explainer=camrt.load(folder / "bundle", preprocess="half"))


def runs(explainer: camrt.Explainer, method: str) -> bool:
    picture = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
    try:
        explainer.explain(picture, method=method, options=CHEAP.get(method))
    except CamrtError:
        return False
    return True


@pytest.mark.parametrize("method", sorted(METHODS))
def test_methods_are_listed_where_they_run(method: str, bundled: Served) -> None:
    for one in (served(), bundled):
        listed = {row["id"] for row in describe(one, SETTINGS)["methods"]}
        assert (method in listed) == runs(one.explainer, method), one


def test_every_layer_that_is_listed_can_be_explained(bundled: Served) -> None:
    for one in (served(), bundled):
        rows = describe(one, SETTINGS)["layers"]
        assert sum(row["default"] for row in rows) == 1
        for row in rows:
            acts = one.explainer.activations(np.zeros((1, 3, 12, 10), np.float32), layer=row["name"])
            assert acts[row["name"]].shape == (1, row["channels"], *row["grid"])


def test_options_come_with_their_ranges_and_the_servers_ceilings() -> None:
    said = {row["id"]: row for row in describe(served(), SETTINGS)["methods"]}
    assert said["gradcam"]["default"] and sum(row["default"] for row in said.values()) == 1
    gamma, row = said["layercam"]["options"]["gamma"], METHODS["layercam"].fusion_options["gamma"]
    assert (gamma["kind"], gamma["default"], gamma["low"], gamma["high"]) == ("number", row.default, row.low, row.high)
    assert said["opticam"]["options"]["iters"]["high"] == 200
    assert said["rise"]["options"]["n"]["high"] == 8000
    assert said["scorecam"]["work"] > said["gradcam"]["work"] > 1


def test_ceilings_are_those_of_each_server() -> None:
    low = Settings(ceilings={"iters": 7})
    fresh = dataclasses.replace(served(), explainer=served().explainer.preprocessing())
    said = {row["id"]: row for row in describe(fresh, low)["methods"]}
    assert said["opticam"]["options"]["iters"]["high"] == 7


def test_it_is_worked_out_once() -> None:
    assert describe(served(), SETTINGS)["methods"] is describe(served(), SETTINGS)["methods"]


def test_a_folder_is_named_nowhere(bundled: Served) -> None:
    assert str(Path(tiny.__file__).parent) not in repr(describe(bundled, SETTINGS))
