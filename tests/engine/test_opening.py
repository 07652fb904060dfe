"""Opening a model: who decides on labels and preprocessing, and what is refused."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import camrt
from camrt.errors import BundleError, ImageError, MethodError, MissingExtraError, ModelError, TargetError
from camrt.export.bundle import read, write
from camrt.export.write import export
from camrt.opening import KEPT
from tests import tiny
from tests.export.onnx_text import tokens

OWN = {
    "labels": json.dumps(["v", "w", "x", "y", "z"]),
    "preprocess": json.dumps({"preset": "half", "resize": "squash"}),
}


def with_metadata(**entries: str) -> bytes:
    """Return a tiny model whose file carries metadata."""
    model = onnx.load_from_string(tiny.gap())
    onnx.helper.set_model_props(model, entries)
    return bytes(model.SerializeToString())


def test_the_caller_comes_before_the_file_and_the_file_before_a_guess() -> None:
    guessed = camrt.load(tiny.gap())
    assert guessed.labels == ()
    assert guessed.preprocess.name == "imagenet"
    own = camrt.load(with_metadata(**OWN))
    assert own.labels == ("v", "w", "x", "y", "z")
    assert (own.preprocess.mean, own.preprocess.resize) == ((0.5, 0.5, 0.5), "squash")
    told = camrt.load(with_metadata(**OWN), labels=list("abcde"), preprocess="unit")
    assert told.labels == tuple("abcde")
    assert told.preprocess.name == "unit"


def test_a_bundle_keeps_labels_and_preprocessing(tmp_path: Path) -> None:
    preprocess = camrt.load(tiny.gap(), preprocess="half").preprocess
    export(tiny.gap(), tmp_path / "b", labels=list("abcde"), preprocess=preprocess.to_dict())
    kept = camrt.load(tmp_path / "b")
    assert kept.labels == tuple("abcde")
    assert kept.preprocess == preprocess
    assert kept.preprocess_reason == KEPT
    assert camrt.load(tmp_path / "b", preprocess="unit").preprocess.name == "unit"


def test_a_bundle_of_another_version_is_refused(tmp_path: Path) -> None:
    export(tiny.gap(), tmp_path / "b")
    given = read(tmp_path / "b")
    programs = [replace(p, model=Path(str(p.model)).read_bytes()) for p in given.programs]
    weights = (tmp_path / "b" / "weights.bin").read_bytes()
    write(tmp_path / "old", given.manifest, programs, weights, "0.0.0")
    with pytest.raises(BundleError, match=r"was made by camrt 0\.0\.0, this is .*: export it again"):
        camrt.load(tmp_path / "old")


def test_a_bundle_of_another_model_is_refused_where_the_model_is_named(tmp_path: Path) -> None:
    """Of a model with weights beside it, both files count."""
    one, other, apart = (tmp_path / f"{name}.onnx" for name in ("one", "other", "apart"))
    one.write_bytes(tiny.gap())
    other.write_bytes(tiny.gap(seed=1))
    onnx.save(onnx.load(one), apart, save_as_external_data=True, location="weights.bin", size_threshold=0)
    for path in (one, apart):
        export(path, tmp_path / path.stem)
        assert camrt.load(tmp_path / path.stem, model=path).manifest.model["name"] == path.stem
        with pytest.raises(BundleError, match="was made of another model"):
            camrt.load(tmp_path / path.stem, model=other)
    with pytest.raises(BundleError, match="a raw model was given"):
        camrt.load(one, model=one)
    with pytest.raises(ModelError, match="cannot be read"):
        camrt.load(tmp_path / "one", model=tmp_path / "none.onnx")
    (tmp_path / "weights.bin").write_bytes(bytes(reversed((tmp_path / "weights.bin").read_bytes())))
    with pytest.raises(BundleError, match="was made of another model"):
        camrt.load(tmp_path / "apart", model=apart)


def test_what_was_settled_at_export_cannot_be_chosen_again(tmp_path: Path) -> None:
    export(tiny.gap(), tmp_path / "b")
    assert camrt.load(tmp_path / "b", output="scores").manifest.output == "scores"
    with pytest.raises(BundleError, match=r"output, size can be chosen for a raw model only; .* output 'scores'"):
        camrt.load(tmp_path / "b", output="a2", size=tiny.SIZE)


def test_how_tokens_lie_can_be_said_for_a_raw_model_and_is_kept_in_its_bundle(tmp_path: Path) -> None:
    x = tiny.images(2)[..., :8, :8]
    square = camrt.load(tokens()).explain(x, target=2).raw
    wide = camrt.load(tokens(), grid=(2, 8), prefix=1)
    raw = wide.explain(x, target=2).raw
    assert (square.shape, raw.shape) == ((2, 1, 4, 4), (2, 1, 2, 8))
    np.testing.assert_allclose(raw.reshape(2, 16), square.reshape(2, 16), rtol=1e-5, atol=1e-7)  # row by row
    export(tokens(), tmp_path / "b", grid=(2, 8))
    np.testing.assert_allclose(camrt.load(tmp_path / "b").explain(x, target=2).raw, raw, rtol=1e-5, atol=1e-7)
    with pytest.raises(BundleError, match="grid, prefix can be chosen for a raw model only"):
        camrt.load(tmp_path / "b", grid=(2, 8), prefix=1)


def test_a_size_that_the_model_leaves_open_is_that_of_the_preprocessing() -> None:
    model = onnx.load_from_string(tiny.gap())
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.Clear()
    data, x = bytes(model.SerializeToString()), tiny.images(2)
    want = camrt.load(tiny.gap()).explain(x, target=2)
    given = camrt.load(data, preprocess={"size": tiny.SIZE})
    for opened in (given, camrt.load(data, preprocess=given.preprocess), camrt.load(data, size=tiny.SIZE)):
        assert opened.preprocess.size == tiny.SIZE
        np.testing.assert_array_equal(opened.explain(x, target=2).raw, want.raw)
    with pytest.raises(ModelError, match="leaves its size open"):
        camrt.load(data, preprocess="imagenet")


def test_labels_must_be_one_a_class_and_foreign_metadata_is_left_alone() -> None:
    with pytest.raises(TargetError, match="5 labels"):
        camrt.load(tiny.gap(), labels=["a", "b"])
    assert camrt.load(with_metadata(labels=json.dumps(["only", "two"]))).labels == ()


def test_a_partial_preprocess_is_completed_from_the_model_and_a_wrong_one_refused() -> None:
    opened = camrt.load(tiny.gap(), preprocess={"preset": "caffe", "resize": "squash"})
    assert (opened.preprocess.size, opened.preprocess.color) == (tiny.SIZE, "bgr")
    with pytest.raises(ImageError, match="imagenet"):
        camrt.load(tiny.gap(), preprocess="kodachrome")
    with pytest.raises(ImageError):
        camrt.load(tiny.gap(), preprocess={"preset": "half", "size": (5, 5)})


def test_a_precision_that_there_is_not_is_refused_and_never_approximated() -> None:
    with pytest.raises(MethodError, match="float32"):
        camrt.load(tiny.gap(), precision="float8")


def test_what_is_no_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="not a bundle"):
        camrt.load(tmp_path)
    with pytest.raises(ModelError, match="not there"):
        camrt.load(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match="ONNX"):
        camrt.load(b"\x00\x01\x02")


def test_a_raw_model_without_the_exporter_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    real = builtins.__import__

    def refuse(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.split(".")[0] in ("onnx", "onnx_ir"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name.split(".")[0])
        return real(name, *args, **kwargs)

    for name in [
        n
        for n in sys.modules
        if n.startswith(("camrt.export.", "onnx")) and n != "onnxruntime" and not n.startswith("onnxruntime.")
    ]:
        if name not in ("camrt.export.bundle", "camrt.export.names"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(sys.modules["camrt.export"], "live", raising=False)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"camrt\[export\]"):
        camrt.load(b"model")


def test_the_models_own_file_is_never_changed(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny.gap())
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    camrt.load(path, preprocess="half").explain(np.zeros((1, 3, *tiny.SIZE), "f4"))
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert list(tmp_path.iterdir()) == [path]
