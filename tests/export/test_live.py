"""A model in memory: described as a bundle describes it, its programs built once, from any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from camrt.errors import LayerError, ModelError
from camrt.export import open_model
from camrt.export.live import manifest_of
from camrt.export.load import load
from tests.export import integers
from tests.export.onnx_text import CONV, HEAD, tiny, tokens


def test_a_manifest_says_what_the_model_is() -> None:
    data = tiny(f"{CONV} {HEAD} z = Softmax(y)", y="float[N,5] z")
    manifest = open_model(data).manifest
    model = {"name": "model", "sha256": load(data).sha256, "producer": "hand", "opset": 18, "precision": "float32"}
    assert manifest.model.items() >= model.items()
    assert manifest.input == {"name": "x", "shape": ["N", 3, 8, 8], "dtype": "float32", "held": {}}
    assert (manifest.output, manifest.head, manifest.classes, manifest.batch) == ("z", "softmax", 5, None)
    assert [layer.name for layer in manifest.layers] == ["c", "a"]
    assert (manifest.default_layer.name, manifest.linear_layers) == ("a", ("a",))
    assert (manifest.labels, manifest.preprocess, manifest.verification) == ((), None, {})


@pytest.mark.parametrize(("kind", "dtype"), [("uint8", "uint8"), ("float16", "float16"), ("float", "float32")])
def test_the_images_element_type_is_one_numpy_knows(kind: str, dtype: str) -> None:
    body = f"f32 = Cast<to=1>(x) {CONV.replace('(x,', '(f32,')} {HEAD}"
    found = open_model(tiny(body, x=f"{kind}[N,3,8,8] x")).manifest.input["dtype"]
    assert np.dtype(found) == np.dtype(dtype)


def test_a_model_is_named_after_its_file(tmp_path: Path) -> None:
    path = tmp_path / "my net.v2.onnx"
    path.write_bytes(tiny())
    assert open_model(str(path)).manifest.model["name"] == "my net.v2"


def test_the_default_layer_may_be_chosen() -> None:
    manifest = open_model(tiny(), layer="stem").manifest
    assert manifest.default_layer.name == "c"
    assert "chosen by the caller" in manifest.default_layer.reason
    assert [layer.default for layer in manifest.layers] == [True, False]
    with pytest.raises(LayerError, match="no layer 'sten'"):
        open_model(tiny(), layer="sten")


def test_labels_must_be_as_many_as_classes() -> None:
    classifier = load(tiny())
    assert manifest_of(classifier, name="m", labels=list("abcde")).labels == tuple("abcde")
    with pytest.raises(ModelError, match="5 labels were wanted, one a class; 4 were given"):
        manifest_of(classifier, name="m", labels=list("abcd"))


def test_programs_built_in_parallel_are_those_built_one_after_the_other() -> None:
    data, kinds = tokens(heads=2), ["gradient", "seeded_gradient", "features", "tail", "tail_gradient"]
    serial, parallel = open_model(data), open_model(data)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda kind: parallel.program(kind, ["n1"]), kinds))
    assert [p.model for p in found] == [serial.program(kind, ["n1"]).model for kind in kinds]


def test_a_layer_may_be_asked_for_by_any_of_its_names() -> None:
    live = open_model(tiny())
    assert live.program("gradient", ["act"]).layers == ("a",)
    assert live.resolve("torchcam-auto").name == "a"
    with pytest.raises(LayerError, match="near names"):
        live.program("gradient", ["acts"])


def test_a_model_that_is_not_quantised_has_no_twin() -> None:
    with pytest.raises(ModelError, match="not quantised"):
        open_model(tiny()).twin()


def test_the_twin_alone_offers_what_any_model_does() -> None:
    """Its gradient program's logits are its forward's, and the model it was made of is unchanged."""
    data = integers.quantised(f"{integers.STEM} r = Identity(q) {integers.HEAD}", {})
    given = open_model(data)
    before = given.program("forward").model
    twin = given.twin()
    x = np.random.default_rng(0).normal(size=(2, 3, 8, 8)).astype(np.float32)
    layer = (twin.manifest.default_layer.name,)
    assert layer == (given.manifest.default_layer.name,)
    found = [
        onnxruntime.InferenceSession(twin.program(kind, layers).model).run(["logits"], feeds)[0]
        for kind, layers, feeds in (
            ("forward", (), {"x": x}),
            ("gradient", layer, {"x": x, "target": np.array([0, 1])}),
        )
    ]
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    assert open_model(data).program("forward").model == before == given.program("forward").model
