"""Reading files: what is not whole, lies about its size or points elsewhere is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from camrt.errors import CamrtError, ModelError
from camrt.export import reading
from camrt.export.load import load
from camrt.export.reading import tensors
from tests.export.onnx_text import CONV, HEAD, tiny


def refusal(source: bytes | str | Path, **options: Any) -> str:
    """Return the one line with which a model is refused."""
    with pytest.raises(ModelError) as caught:
        load(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changed(change: Callable[[onnx.TensorProto], object], **options: Any) -> bytes:
    """Return the tiny classifier with its first weight changed."""
    model = onnx.load_from_string(tiny(**options))
    change(model.graph.initializer[0])
    return model.SerializeToString()


# files that are not whole ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "is empty"),
        (tiny()[:400], "is not an ONNX model (or is cut short)"),
        (tiny()[:-1], "is not an ONNX model (or is cut short)"),
        (np.random.default_rng(0).bytes(1000), "is not an ONNX model"),
        (b"this is a text about models\n" * 10, "is not an ONNX model"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "holds no graph"),
        (tiny().replace(b"Relu", b"Rulu"), "is not a valid ONNX model: No Op registered for Rulu"),
        (tiny().replace(b"act", b"a\xfft"), "which is not UTF-8"),
    ],
    ids=["empty", "cut", "last_byte", "random", "text", "no_graph", "unknown_operator", "name"],
)
def test_what_is_no_whole_model_is_refused(data: bytes, said: str) -> None:
    assert said in refusal(data)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert "is not there" in refusal(tmp_path / "none.onnx")
    assert "is a folder" in refusal(str(tmp_path))
    assert "is not there" in refusal("none\0.onnx")


def test_a_damaged_file_is_refused_or_read_but_never_anything_else() -> None:
    """400 files with up to three bytes changed at random, most of them where the structure is."""
    rng, good = np.random.default_rng(0), tiny()
    structure = 330  # bytes before the weights
    for _ in range(400):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(structure if rng.random() < 0.8 else len(data))] = rng.integers(256)
        try:
            load(bytes(data))
        except CamrtError as error:
            assert "\n" not in str(error)


# files that lie about their size -----------------------------------------------------------------------------------


def _resized(*shape: int) -> Callable[[onnx.TensorProto], object]:
    return lambda tensor: tensor.dims.__setitem__(slice(None), shape)


def _without_data(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.dims[:] = [2**31, 2**31]


def _short_floats(tensor: onnx.TensorProto) -> None:
    tensor.ClearField("raw_data")
    tensor.float_data[:] = [1, 2, 3]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_resized(2**40, 2**40), "is damaged"),
        (_without_data, "is not a valid ONNX model"),
        (_resized(4, 3, 3, 4), "should hold 576 bytes, it holds 432"),
        (_resized(-4, 3, 3, 3), "has a negative dimension"),
        (lambda t: t.__setattr__("raw_data", t.raw_data[:-1]), "should hold 432 bytes, it holds 431"),
        (lambda t: t.__setattr__("raw_data", t.raw_data * 2), "should hold 432 bytes, it holds 864"),
        (lambda t: t.__setattr__("data_type", 99), "unknown element type 99"),
        (_short_floats, "is not a valid ONNX model"),
    ],
    ids=["huge", "huge_without_data", "larger", "negative", "shorter", "longer", "type", "floats"],
)
def test_a_weight_that_holds_other_than_its_shape_says_is_refused(change: Any, said: str) -> None:
    assert said in refusal(changed(change))


def test_a_file_above_the_limit_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(tiny())
    path.chmod(0)
    assert f"has {len(tiny())} bytes, at most 500 are read" in refusal(path, max_bytes=500)


@pytest.mark.parametrize(
    "body",
    [
        f"{CONV} s = Constant<value_ints=[1099511627776]>() z = ConstantOfShape(s) q = ReduceSum<keepdims=0>(z) b = Add(a, q)",
        f"{CONV} g = GlobalAveragePool(a) s = Constant<value_ints=[1, 4, 100000, 100000]>() b = Expand(g, s)",
        f"{CONV} s = Constant<value_ints=[1, 1, 50000, 50000]>() b = Tile(a, s)",
        f"{CONV} s = Constant<value_ints=[0, 0, 90000, 90000, 0, 0, 0, 0]>() b = Pad(a, s)",
    ],
    ids=["ConstantOfShape", "Expand", "Tile", "Pad"],
)
def test_a_small_file_that_asks_for_absurd_memory_is_refused(body: str) -> None:
    data = tiny(f"{body} {HEAD.replace('(a)', '(b)')}")
    assert "elements are allowed" in refusal(data)


# weights beside the file -------------------------------------------------------------------------------------------


def outside(folder: Path, **entries: Any) -> Path:
    """Write the tiny classifier with its first weight said to lie elsewhere; `weights.bin` holds it at byte 64."""
    folder.mkdir(exist_ok=True)

    def move(tensor: onnx.TensorProto) -> None:
        (folder / "weights.bin").write_bytes(b"\0" * 64 + tensor.raw_data)
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))

    path = folder / "model.onnx"
    path.write_bytes(changed(move))
    return path


@pytest.mark.parametrize("length", [{"length": 432}, {}], ids=["length", "to_the_end"])
def test_weights_beside_the_file_are_read(tmp_path: Path, length: dict[str, int]) -> None:
    inside = load(tiny())
    beside = load(outside(tmp_path, location="weights.bin", offset=64, **length))
    for name, value in inside.model.graph.initializers.items():
        other = beside.model.graph.initializers[name].const_value
        assert value.const_value is not None
        assert other is not None
        np.testing.assert_array_equal(value.const_value.numpy(), other.numpy())
    assert beside.sha256 != inside.sha256
    assert not onnx.load_from_string(beside.given()).graph.initializer[0].external_data


def test_weights_in_a_folder_below_are_read(tmp_path: Path) -> None:
    path = outside(tmp_path, location="deep/weights.bin", offset=64, length=432)
    (tmp_path / "deep").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "deep" / "weights.bin")
    assert load(path).classes == 5


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ({"location": "../secret.bin"}, "points outside the model's folder ('../secret.bin'): refused"),
        ({"location": "deep/../../secret.bin"}, "points outside"),
        ({"location": "..\\secret.bin"}, "points outside"),
        ({"location": "C:\\secret.bin"}, "points outside"),
        ({"location": "/etc/hostname"}, "points outside"),
        ({"location": ""}, "points outside"),
        ({}, "points outside"),
        ({"location": "link.bin"}, "points outside"),
        ({"location": "folder_link/secret.bin"}, "points outside"),
        ({"location": "none.bin"}, "which is not beside the model"),
        ({"location": "."}, "which is not beside the model"),
        ({"location": "weights.bin", "offset": 10**12, "length": 432}, "which is shorter"),
        ({"location": "weights.bin", "offset": 65, "length": 432}, "which is shorter"),
        ({"location": "weights.bin", "offset": -1, "length": 432}, "which is shorter"),
        ({"location": "weights.bin", "offset": 0, "length": -5}, "which is shorter"),
        ({"location": "weights.bin", "offset": "a", "length": 432}, "not a number"),
        ({"location": "weights.bin", "offset": 64, "length": 428}, "should hold 432 bytes, it holds 428"),
        ({"location": "weights.bin"}, "should hold 432 bytes, it holds 496"),
    ],
)
def test_weights_anywhere_else_are_refused(tmp_path: Path, entries: dict[str, Any], said: str) -> None:
    (tmp_path / "secret.bin").write_bytes(b"\1" * 432)
    path = outside(tmp_path / "model", **entries)
    (path.parent / "link.bin").symlink_to(tmp_path / "secret.bin")
    (path.parent / "folder_link").symlink_to(tmp_path, target_is_directory=True)
    assert said in refusal(path)


def test_weights_beside_are_not_looked_for_where_bytes_are_given(tmp_path: Path) -> None:
    data = outside(tmp_path, location="weights.bin", offset=64, length=432).read_bytes()
    assert "give the file's path, not its bytes" in refusal(data)


def test_the_limit_counts_weights_beside_the_file(tmp_path: Path) -> None:
    path = outside(tmp_path, location="weights.bin", offset=64, length=432)
    size = path.stat().st_size
    assert load(path, max_bytes=size + 432).classes == 5
    assert f"has {size + 432} bytes" in refusal(path, max_bytes=size + 431)


def test_every_tensor_is_found_also_inside_branches() -> None:
    """What lies in a branch of If is read from beside the file and checked like any other."""

    def branch(name: str) -> onnx.GraphProto:
        held = onnx.numpy_helper.from_array(np.ones(2, np.float32), name)
        node = onnx.helper.make_node("Constant", [], [f"{name}_out"], value=held)
        out = onnx.helper.make_tensor_value_info(f"{name}_out", onnx.TensorProto.FLOAT, [2])
        return onnx.helper.make_graph([node], name, [], [out])

    model = onnx.load_from_string(tiny())
    model.graph.node.append(
        onnx.helper.make_node("If", ["c"], ["z"], then_branch=branch("yes"), else_branch=branch("no"))
    )
    assert {t.name for t in tensors(model)} == {"w1", "b1", "w2", "b2", "yes", "no"}


def test_a_model_is_checked_without_its_large_weights_and_keeps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_LARGE", 1)
    proto, _ = reading.read(tiny())
    given = onnx.load_from_string(tiny())
    assert [t.SerializeToString() for t in proto.graph.initializer] == [
        t.SerializeToString() for t in given.graph.initializer
    ]
    given.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="is not a valid ONNX model"):
        reading.read(given.SerializeToString())
