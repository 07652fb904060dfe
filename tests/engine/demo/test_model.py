"""The embedded model: it knows its classes on pictures it never saw, and its file is what the rest relies on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from camrt.demo import CLASSES, HELD_OUT, MODEL, SIZE, draw

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

FIRST = 2 * HELD_OUT  # not the seeds that the training script reports its accuracy on


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Read the file."""
    return onnx.load(MODEL)


@pytest.fixture(scope="module")
def metadata(model) -> dict[str, str]:
    """Return the file's metadata."""
    return {entry.key: entry.value for entry in model.metadata_props}


def logits_of(scenes, preprocess) -> np.ndarray:
    """Run the model on scenes as its own metadata says, (N, C)."""
    images = np.stack([scene.image for scene in scenes]).transpose(0, 3, 1, 2)
    mean, std = (np.reshape(preprocess[key], (1, 3, 1, 1)) for key in ("mean", "std"))
    x = ((images * preprocess["scale"] - mean) / std).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
    parts = np.array_split(x, max(1, len(x) // 50))
    return np.concatenate([session.run(["logits"], {"image": part})[0] for part in parts])


def test_held_out_pictures_of_one_object_are_classified_right(metadata):
    labels = np.arange(500) % len(CLASSES)
    scenes = [draw(FIRST + index, [label]) for index, label in enumerate(labels)]
    found = logits_of(scenes, json.loads(metadata["preprocess"])).argmax(1)
    assert (found == labels).mean() >= 0.97


def test_both_objects_of_held_out_pictures_rank_on_top(metadata):
    """Each of the 90 ordered pairs twice."""
    n_classes = len(CLASSES)
    pairs = [(a, (a + away) % n_classes) for a in range(n_classes) for away in range(1, n_classes)] * 2
    scenes = [draw(FIRST + 1000 + index, pair) for index, pair in enumerate(pairs)]
    top = logits_of(scenes, json.loads(metadata["preprocess"])).argsort(1)[:, -2:]
    hits = [set(found) == set(pair) for found, pair in zip(top.tolist(), pairs, strict=True)]
    assert np.mean(hits) >= 0.8


def test_the_file_is_small_valid_and_self_contained(model):
    assert MODEL.stat().st_size <= 2_000_000
    onnx.checker.check_model(model, full_check=True)
    assert not any(entry.external_data for entry in model.graph.initializer)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]


def test_input_and_output_have_a_symbolic_batch_and_their_names(model):
    def shape(value: onnx.ValueInfoProto) -> list[str | int]:
        return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]

    assert [(value.name, shape(value)) for value in model.graph.input] == [("image", ["batch", 3, SIZE, SIZE])]
    assert [(value.name, shape(value)) for value in model.graph.output] == [("logits", ["batch", len(CLASSES)])]


def test_metadata_names_the_classes_and_the_preprocessing(metadata):
    assert tuple(json.loads(metadata["labels"])) == CLASSES
    preprocess = json.loads(metadata["preprocess"])
    assert (preprocess["size"], preprocess["layout"], preprocess["color"]) == ([SIZE, SIZE], "nchw", "rgb")


def test_stages_are_tensors_by_name_and_training_leftovers_are_gone(model):
    made = [name for node in model.graph.node for name in node.output]
    assert [name for name in made if name.startswith("stage") and "." not in name] == [f"stage{n}" for n in range(1, 6)]
    kinds = {node.op_type for node in model.graph.node}
    assert {"Conv", "Relu", "Add", "MaxPool", "Gemm"} <= kinds
    assert not {"BatchNormalization", "Dropout", "Identity"} & kinds


def test_the_file_says_nothing_of_the_machine_it_was_made_on():
    content = MODEL.read_bytes()
    assert b".py" not in content
    assert b"stack_trace" not in content
