"""Export: a file becomes a bundle that computes the same, holds each weight once, and is whole or not there."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from camrt.errors import InputError, LayerError, MissingRuleError, ModelError, OutputError
from camrt.export import export, open_model
from camrt.export.bundle import read
from camrt.export.programs import KINDS
from tests.export.judge import run_program
from tests.export.onnx_text import CONV, HEAD, TINY, classifier, tiny, tokens

WIDE = {"w1": (64, 3, 3, 3), "b1": (64,), "w3": (64, 64, 3, 3), "w2": (64, 5), "b2": (5,)}
BODY = f"{CONV} [second] d = Conv<pads=[1, 1, 1, 1]>(a, w3) [last] e = Relu(d) {HEAD.replace('(a)', '(e)')}"
X = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
SEED = np.eye(5, dtype=np.float32)[[1, 4]]


def wide() -> bytes:
    """Return a classifier whose weights are large enough to be shared between programs."""
    return classifier(BODY, WIDE).SerializeToString()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Return a model file."""
    path = tmp_path / "wide.onnx"
    path.write_bytes(wide())
    return path


@pytest.mark.parametrize("data", [wide(), tokens(heads=2)], ids=["wide", "tokens"])
def test_programs_of_a_bundle_compute_what_those_in_memory_do(tmp_path: Path, data: bytes) -> None:
    bundle, live = export(data, tmp_path / "bundle"), open_model(data)
    layer = live.manifest.default_layer.name
    for program in bundle.programs:
        assert program.layers == (() if program.kind in ("forward", "input_gradient") else (layer,))
        features = run_program(live.program("features", [layer]), x=X)
        feeds: dict[str, Any] = {name: value for name, value in features.items() if name in program.inputs}
        feeds |= {"x": X, "seed": SEED, "target": np.array([-1, 2])}
        fed = {name.replace(".", "__"): value for name, value in feeds.items() if name in program.inputs}
        want = run_program(live.program(program.kind, program.layers), **fed)
        got = run_program(program, **fed)
        assert list(got) == list(want)
        for name, array in want.items():
            np.testing.assert_array_equal(got[name], array, err_msg=f"{name} of {program.kind}")
    assert [program.kind for program in bundle.programs] == list(KINDS)


def test_the_users_file_is_only_read(model: Path, tmp_path: Path) -> None:
    before = (hashlib.sha256(model.read_bytes()).hexdigest(), model.stat().st_mtime_ns)
    bundle = export(model, tmp_path / "bundle")
    assert (hashlib.sha256(model.read_bytes()).hexdigest(), model.stat().st_mtime_ns) == before
    model = {"name": "wide", "sha256": before[0], "producer": "hand", "opset": 18, "precision": "float32"}
    assert bundle.manifest.model.items() >= model.items()
    assert {p.name for p in tmp_path.iterdir()} == {"wide.onnx", "bundle"}


def _in_numbers(data: bytes) -> bytes:
    """Return a model with its weights written as repeated numbers, as older exporters do."""
    given = onnx.load_from_string(data)
    for tensor in given.graph.initializer:
        array = onnx.numpy_helper.to_array(tensor)
        tensor.ClearField("raw_data")
        tensor.float_data.extend(array.ravel().tolist())
    return given.SerializeToString()


@pytest.mark.parametrize("data", [wide(), _in_numbers(wide())], ids=["bytes", "numbers"])
def test_every_weight_is_stored_once(tmp_path: Path, data: bytes) -> None:
    bundle = export(data, tmp_path / "bundle", layers=["e", "a"])
    assert len(bundle.programs) == 2 + 2 * (len(KINDS) - 2) + 3  # two layers; both together for three kinds
    forward = 4 * sum(int(np.prod(shape)) for shape in WIDE.values())
    backward = (
        4 * 64 * 64 * 9
    )  # the second convolution's kernel turned round, for its gradient; that of the image on top
    stored = (bundle.folder / "weights.bin").stat().st_size
    assert forward - 4 * (64 + 5 + 5 * 64) <= stored <= forward + 2 * backward + 16 * 4096
    for program in bundle.programs:
        assert isinstance(program.model, Path)
        assert program.model.stat().st_size < 12_000
    places = set()
    for program in bundle.programs:
        for tensor in onnx.load(program.model, load_external_data=False).graph.initializer:
            entry = {e.key: e.value for e in tensor.external_data}
            if entry:
                assert entry["location"] == "weights.bin"
                assert int(entry["offset"]) % 4096 == 0  # a page, so that it can be mapped
                places.add((entry["offset"], entry["length"]))
    assert len({offset for offset, _ in places}) == len(places)


def test_the_first_layer_given_is_the_default_and_all_have_programs(model: Path, tmp_path: Path) -> None:
    bundle = export(model, tmp_path / "bundle", layers=["act", "e", "a"])  # a node's name, and twice the same layer
    assert bundle.manifest.default_layer.name == "a"
    groups = [p.layers for p in bundle.programs if p.kind == "gradient"]
    assert groups == [("a",), ("e",), ("a", "e")]
    assert [p.layers for p in bundle.programs if p.kind == "tail"] == [("a",), ("e",)]
    assert set(bundle.manifest.verification["gradient"]) == {"a", "e"}


def test_labels_preprocessing_and_figures_are_kept(model: Path, tmp_path: Path) -> None:
    labels = ["a", "b", "c", "d", "e"]
    bundle = export(model, tmp_path / "bundle", labels=labels, preprocess={"name": "raw", "size": (8, 8)})
    assert bundle.manifest.labels == tuple(labels)
    assert bundle.manifest.preprocess == {"name": "raw", "size": [8, 8]}
    figures = read(bundle.folder).manifest.verification
    assert figures["parity"]["max_rel"] <= 1e-5
    assert figures["gradient"]["e"]["rel_error"] <= 1e-2


def test_kinds_may_be_chosen(model: Path, tmp_path: Path) -> None:
    bundle = export(model, tmp_path / "bundle", kinds=["features", "forward"])
    assert [p.kind for p in bundle.programs] == ["features", "forward"]
    assert "gradient" not in bundle.manifest.verification
    with pytest.raises(InputError, match=r"programs to export are forward, .*; nonsense came"):
        export(model, tmp_path / "other", kinds=["nonsense"])


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"layers": ["sten"]}, LayerError, "no layer 'sten'"),
        ({"labels": ["one"]}, ModelError, "5 labels were wanted, one a class; 1 were given"),
        ({"output": "z"}, ModelError, "no output 'z'"),
        ({"size": (9, 9)}, ModelError, "does not fit"),
    ],
)
def test_a_mistake_leaves_nothing_behind(
    model: Path, tmp_path: Path, options: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        export(model, tmp_path / "bundle", **options)
    assert [p.name for p in tmp_path.iterdir()] == ["wide.onnx"]


def test_a_model_that_cannot_be_differentiated_leaves_nothing_behind(tmp_path: Path) -> None:
    data = tiny(
        f"{CONV} d = Det(a) e = Reshape(d, to) {HEAD.replace('(a)', '(e)')}", weights={"to": np.array([-1, 4, 1, 1])}
    )
    with pytest.raises(MissingRuleError, match="operator Det"):
        export(data, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())
    kept = export(data, tmp_path / "bundle", kinds=["forward", "features", "tail"])
    assert [p.kind for p in kept.programs] == ["forward", "features", "tail"]


def test_a_place_that_is_taken_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "bundle").mkdir()
    with pytest.raises(OutputError, match="is already there"):
        export(b"not even a model", tmp_path / "bundle")


def test_a_bundle_is_replaced_where_that_is_asked_for(model: Path, tmp_path: Path) -> None:
    first = export(model, tmp_path / "bundle")
    with pytest.raises(OutputError, match="overwrite=True"):
        export(model, tmp_path / "bundle")
    second = export(tiny(), tmp_path / "bundle", overwrite=True)
    assert second.manifest.model["sha256"] != first.manifest.model["sha256"]


def test_a_full_disk_leaves_nothing_behind(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        export(model, tmp_path / "bundle")
    assert [p.name for p in tmp_path.iterdir()] == ["wide.onnx"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_refused(model: Path, tmp_path: Path) -> None:
    place = tmp_path / "closed"
    place.mkdir(mode=0o555)
    with pytest.raises(OutputError, match="cannot be written: Permission denied"):
        export(model, place / "bundle")


def test_a_folder_that_cannot_be_written_is_refused(model: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        export(model, "/proc/bundle")


def test_a_model_with_one_batch_size_is_exported_at_it(tmp_path: Path) -> None:
    body = f"{CONV} p = GlobalAveragePool(a) f = Reshape(p, to) y = Gemm(f, w2, b2)"
    data = classifier(
        body, {**TINY, "to": np.array([1, -1])}, x="float[1,3,8,8] x", y="float[1,5] y"
    ).SerializeToString()
    bundle = export(data, tmp_path / "bundle")
    assert bundle.manifest.batch == 1
    found = run_program(bundle.program("gradient", ["a"]), x=X[:1], target=np.array([3]))
    assert found["gradients.0"].shape == (1, 4, 8, 8)
