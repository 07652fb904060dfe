"""Which bundles may be served: every way to reach outside one is built here, and refused."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from google.protobuf.message import DecodeError
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, SparseTensorProto, TensorProto, helper, numpy_helper

from camrt import load
from camrt.errors import BundleError, CamrtError, InputError, ModelError
from camrt.export.bundle import MANIFEST, WEIGHTS
from camrt.server import trust
from camrt.server.faults import UnreadyError
from camrt.server.trust import MESSAGES, check_bundle, check_program, without_paths
from tests import tiny
from tests.engine.server.models import PATHS, PLACES, lay, model_with, outside, rewrite, seal, write_bundle


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a bundle that is copied, never changed."""
    return write_bundle(tmp_path_factory.mktemp("made") / "tiny" / "1")


@pytest.fixture
def bundle(made: Path, tmp_path: Path) -> Path:
    """Return a bundle in a repository, to be tampered with."""
    folder = tmp_path / "repo" / "tiny" / "1"
    shutil.copytree(made, folder)
    return folder


def refused(folder: Path, match: str) -> None:
    """Check that a bundle is refused with one line that holds no path."""
    root = folder.parents[1]
    with pytest.raises((BundleError, ModelError), match=match) as caught:
        check_bundle(folder, root)
    text = str(caught.value)
    assert "\n" not in text and str(root) not in text and len(text) < 400


def test_what_the_exporter_writes_is_served(bundle: Path) -> None:
    explainer = load(check_bundle(bundle, bundle.parents[1]))
    np.testing.assert_array_equal(explainer.logits(tiny.images()), load(bundle).logits(tiny.images()))


def test_every_kind_of_program_passes(tmp_path: Path) -> None:
    from camrt.export.programs import ON_REQUEST

    also = [kind for kind in ON_REQUEST if "attention" not in kind and kind != "map_legrad"]
    folder = write_bundle(tmp_path / "repo" / "tiny" / "1", also=also)
    assert {program.kind for program in check_bundle(folder, tmp_path / "repo").programs} >= set(also)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("place", PLACES)
def test_the_matrix_of_weights_outside(bundle: Path, place: str, path: str) -> None:
    location = lay(bundle, path)
    data = model_with(place, outside(location)).SerializeToString()
    reason = "sparse" if "sparse" in place else "constant" if place == "constant" else "in another file"
    with pytest.raises(ModelError, match=reason):
        check_program(data, weights=16)
    with pytest.raises(ModelError, match=reason.replace("in another file", "outside the model")):
        check_program(data)  # a model handed over as bytes has no folder at all
    (bundle / "forward-0.onnx").write_bytes(data)
    seal(bundle)
    refused(bundle, "w.bin|sub|" + reason)
    for extra in ("w.bin", "sub"):
        (bundle / extra).unlink(missing_ok=True)
    refused(bundle, reason)


@pytest.mark.parametrize("place", PLACES)
def test_the_weights_file_serves_initializers_alone(place: str) -> None:
    data = model_with(place, outside(WEIGHTS)).SerializeToString()
    if place == "initializer":
        check_program(data, weights=16)
        with pytest.raises(ModelError, match="outside the model"):
            check_program(data)
    else:
        with pytest.raises(ModelError, match=r"sparse|constant"):
            check_program(data, weights=16)


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        ("0", "17"), ("16", "1"), ("0", str(10**15)), (str(10**15), "1"), ("-16", "16"), ("0", "-1"), ("0x0", "16"),
        ("", "16"), (None, "16"), ("0", None), (" 0", "16"), ("1e1", "1"), ("0", "9" * 5000),
    ],
)  # fmt: skip
def test_lengths_that_do_not_lie_in_the_weights_file(offset: str | None, length: str | None) -> None:
    tensor = outside(WEIGHTS, offset, length)
    with pytest.raises(ModelError, match=r"beyond the end|in the way the exporter does"):
        check_program(model_with("initializer", tensor).SerializeToString(), weights=16)


def _twice(tensor: TensorProto) -> None:
    tensor.external_data.add(key="location", value="elsewhere.bin")


def _other_key(tensor: TensorProto) -> None:
    tensor.external_data.add(key="basepath", value="elsewhere")


def _unsaid(tensor: TensorProto) -> None:
    tensor.ClearField("data_location")


def _nowhere(tensor: TensorProto) -> None:
    del tensor.external_data[:]


def _in_memory(tensor: TensorProto) -> None:
    tensor.external_data[0].value = "*/_ORT_MEM_ADDR_/*"


@pytest.mark.parametrize("change", [_twice, _other_key, _unsaid, _nowhere, _in_memory])
def test_other_ways_to_say_where_a_weight_lies(change: Callable[[TensorProto], None]) -> None:
    tensor = outside(WEIGHTS)
    change(tensor)
    with pytest.raises(ModelError, match="tensor 'w'"):
        check_program(model_with("initializer", tensor).SerializeToString(), weights=16)


def test_a_field_written_twice_does_not_hide_what_came_first() -> None:
    tensor = outside("elsewhere.bin")
    hidden = tensor.SerializeToString() + TensorProto(data_location=TensorProto.DEFAULT).SerializeToString()
    model = model_with("initializer", TensorProto(name="gone"))
    data = model.SerializeToString().replace(TensorProto(name="gone").SerializeToString(), b"")
    del model.graph.initializer[:]
    graph = model.graph.SerializeToString() + b"\x2a" + bytes([len(hidden)]) + hidden
    model.ClearField("graph")
    data = model.SerializeToString() + b"\x3a" + _varint(len(graph)) + graph
    assert ModelProto.FromString(data).graph.initializer[0].external_data[0].value == "elsewhere.bin"
    with pytest.raises(ModelError, match="tensor 'w'"):
        check_program(data, weights=16)


def _varint(value: int) -> bytes:
    """Write a number as protobuf does."""
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def _body(node: NodeProto) -> GraphProto:
    """Return a body of one node."""
    return helper.make_graph([node], "body", [], [helper.make_tensor_value_info("w", TensorProto.FLOAT, [4])])


def _nested(model: ModelProto, node: NodeProto) -> None:
    """Put a node into the branch of an If."""
    test = helper.make_node("If", ["c"], ["w"], then_branch=_body(node), else_branch=_body(node))
    model.graph.node.insert(0, test)


def _in_function(model: ModelProto, node: NodeProto) -> None:
    """Put a node into a local function of ONNX's own domain."""
    model.functions.append(helper.make_function("", "Ours", [], ["w"], [node], [helper.make_opsetid("", 17)]))


def _at_the_top(model: ModelProto, node: NodeProto) -> None:
    """Put a node into the graph."""
    model.graph.node.insert(0, node)


def _attribute(name: str, **fields: Any) -> NodeProto:
    """Return a Constant with one attribute."""
    return NodeProto(op_type="Constant", output=["w"], attribute=[AttributeProto(name=name, **fields)])


NODES = {
    "constant": (_attribute("value", type=4, t=outside(WEIGHTS)), "constant that lies outside"),
    "constants": (_attribute("values", type=9, tensors=[outside(WEIGHTS)]), "constant that lies outside"),
    "sparse": (_attribute("sparse_value", type=11, sparse_tensor=SparseTensorProto()), "sparse"),
    "sparses": (_attribute("sparse_values", type=12, sparse_tensors=[SparseTensorProto()]), "sparse"),
    "other domain": (helper.make_node("Inverse", ["x"], ["w"], domain="com.example"), "domain 'com.example'"),
    "internal layout": (helper.make_node("Conv", ["x"], ["w"], domain="com.microsoft.nchwc"), "com.microsoft.nchwc"),
    "python": (helper.make_node("PyOp", ["x"], ["w"], domain="ai.onnx.contrib"), "ai.onnx.contrib"),
    "compiled": (helper.make_node("EPContext", ["x"], ["w"], domain="com.microsoft"), "compiled code"),
}


@pytest.mark.parametrize("put", [_at_the_top, _nested, _in_function])
@pytest.mark.parametrize("name", NODES)
def test_what_a_node_may_not_be_is_refused_wherever_it_stands(
    name: str, put: Callable[[ModelProto, NodeProto], None]
) -> None:
    node, reason = NODES[name]
    model = model_with("initializer", numpy_helper.from_array(np.zeros(4, "f4"), "w"))
    check_program(model.SerializeToString())
    put(model, node)
    with pytest.raises(ModelError, match=reason):
        check_program(model.SerializeToString(), weights=16)


def test_functions_of_other_libraries_are_refused() -> None:
    model = model_with("initializer", numpy_helper.from_array(np.zeros(4, "f4"), "w"))
    node = helper.make_node("Relu", ["x"], ["w"])
    model.functions.append(helper.make_function("pkg.other", "F", ["x"], ["w"], [node], [helper.make_opsetid("", 17)]))
    with pytest.raises(ModelError, match=r"domain 'pkg\.other'"):
        check_program(model.SerializeToString())


@pytest.mark.parametrize("key", ["ort_config", "ORT_CONFIG"])
def test_settings_of_the_runtime_in_a_model_are_refused(key: str) -> None:
    model = model_with("initializer", numpy_helper.from_array(np.zeros(4, "f4"), "w"))
    model.metadata_props.add(key="author", value="somebody")
    check_program(model.SerializeToString())
    model.metadata_props.add(key=key, value='{"session_options": {"log_severity_level": 0}}')
    with pytest.raises(ModelError, match="would set the runtime"):
        check_program(model.SerializeToString())


def test_training_and_fields_of_the_future_are_refused() -> None:
    model = model_with("initializer", numpy_helper.from_array(np.zeros(4, "f4"), "w"))
    trained = ModelProto()
    trained.CopyFrom(model)
    trained.training_info.add()
    for data in (trained.SerializeToString(), model.SerializeToString() + b"\xa0\x06\x01"):
        with pytest.raises(ModelError, match="not known here"):
            check_program(data)


def test_the_table_of_messages_is_onnxs_own() -> None:
    protos: dict[str, Any] = {
        "model": ModelProto, "graph": GraphProto, "node": NodeProto, "attribute": AttributeProto, "tensor": TensorProto,
    }  # fmt: skip
    inner = {"TensorProto": ("tensor", "weight"), "SparseTensorProto": ("sparse",), "GraphProto": ("graph",),
             "NodeProto": ("node",), "AttributeProto": ("attribute",), "FunctionProto": ("function",)}  # fmt: skip
    for kind, proto in protos.items():
        known = {entry.number: entry for entry in proto.DESCRIPTOR.fields}
        assert MESSAGES[kind].keys() <= known.keys()
        for number, entry in known.items():
            holds = entry.message_type.name if entry.message_type else ""
            if holds in inner and number in MESSAGES[kind]:  # where a tensor may be, the walk goes on
                assert MESSAGES[kind][number] in inner[holds], (kind, number)


# files ------------------------------------------------------------------------------------------------------------


def test_an_altered_file_is_refused(bundle: Path) -> None:
    data = bytearray((bundle / WEIGHTS).read_bytes())
    data[0] ^= 1
    (bundle / WEIGHTS).write_bytes(data)
    refused(bundle, r"'weights\.bin' in the bundle 'tiny/1' was altered")


def test_an_altered_manifest_is_refused(bundle: Path) -> None:
    text = (bundle / MANIFEST).read_text("utf-8")
    (bundle / MANIFEST).write_text(text.replace('"classes": 5', '"classes": 4'), "utf-8")
    refused(bundle, "was altered")


@pytest.mark.parametrize("name", [WEIGHTS, "forward-0.onnx", MANIFEST])
def test_links_are_refused(bundle: Path, name: str) -> None:
    real = bundle.parents[2] / "real"
    (bundle / name).rename(real)
    (bundle / name).symlink_to(real)
    refused(bundle, "not a regular file")
    (bundle / name).unlink()
    (bundle / name).hardlink_to(real)
    refused(bundle, "hard link")


def test_pipes_folders_and_unlisted_files_are_refused(bundle: Path) -> None:
    (bundle / "notes.txt").write_text("hello")
    refused(bundle, "'notes.txt' is in the bundle and not in its manifest")
    (bundle / "notes.txt").unlink()
    os.mkfifo(bundle / "pipe")
    refused(bundle, "'pipe' is not a regular file")
    (bundle / "pipe").unlink()
    (bundle / "more").mkdir()
    refused(bundle, "'more' is not a regular file")


def test_links_on_the_way_to_a_bundle_are_refused(bundle: Path, tmp_path: Path) -> None:
    root, away = bundle.parents[1], tmp_path / "away"
    (root / "tiny").rename(away)
    (root / "tiny").symlink_to(away)
    with pytest.raises(BundleError, match="'tiny' is not a folder of its own"):
        check_bundle(root / "tiny" / "1", root)
    (root / "tiny").unlink()
    (root / "tiny").mkdir()
    (root / "tiny" / "1").symlink_to(away / "1")
    with pytest.raises(BundleError, match="'1' is not a folder of its own"):
        check_bundle(root / "tiny" / "1", root)
    (tmp_path / "linked").symlink_to(away)
    assert (tmp_path / "linked" / "1" / MANIFEST).is_file()
    with pytest.raises(BundleError, match="'linked' is not a folder of its own"):
        check_bundle(tmp_path / "linked" / "1", tmp_path / "linked")


def test_a_bundle_outside_the_repository_is_refused(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for folder in (bundle, tmp_path / "other" / ".." / "repo" / "tiny" / "1"):
        with pytest.raises(BundleError, match="outside the repository"):
            check_bundle(folder, tmp_path / "other")


@pytest.mark.parametrize("name", [WEIGHTS, "forward-0.onnx"])
def test_three_gigabytes_are_refused_unread(bundle: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with (bundle / name).open("r+b") as file:
        file.truncate(3 * 10**9)  # a hole: nothing is written
    monkeypatch.setattr(trust, "read", lambda folder: pytest.fail("a file was hashed before its size was looked at"))
    refused(bundle, "has more than 2147483647 bytes")


def test_a_program_of_a_gigabyte_is_not_read_into_memory(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trust, "MAX_PROGRAM", 1000)
    refused(bundle, "weights belong into")


def test_a_program_by_another_name_is_refused(bundle: Path) -> None:
    (bundle / "forward-0.onnx").rename(bundle / "forward.ort")  # ONNX Runtime's own format by that ending

    def rename(data: dict[str, Any]) -> None:
        data["files"]["forward.ort"] = data["files"].pop("forward-0.onnx")
        data["programs"][0]["file"] = "forward.ort"

    seal(bundle, rename)
    refused(bundle, r"'forward\.ort' is no name of a program")


def test_a_bundle_whose_program_reaches_out_is_refused(bundle: Path) -> None:
    def move(model: ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.data_location == TensorProto.EXTERNAL)
        tensor.external_data[0].value = "../../secret.bin"

    rewrite(bundle, move)
    refused(bundle, r"'forward-0\.onnx': tensor .* lies in another file")


def test_files_that_change_while_they_are_read_are_refused(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = trust.check_program

    def meddle(data: bytes, *, weights: int | None = None) -> None:
        kept(data, weights=weights)
        os.utime(bundle / WEIGHTS, ns=(1, 1))

    monkeypatch.setattr(trust, "check_program", meddle)
    refused(bundle, "change while they are read")


def test_a_program_is_not_opened_after_its_files_were_replaced(bundle: Path, made: Path) -> None:
    explainer = load(check_bundle(bundle, bundle.parents[1]))
    expected = explainer.logits(tiny.images())
    bundle.rename(bundle.with_name("old"))
    shutil.copytree(made, bundle)
    np.testing.assert_array_equal(explainer.logits(tiny.images()), expected)  # open already
    with pytest.raises(UnreadyError, match="must be loaded again"):
        explainer.explain(tiny.images())  # would read the new file


# forged manifests, and noise --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("classes", "5"), ("classes", 0), ("classes", True), ("batch", 10**9), ("batch", "1"), ("labels", ["a"]),
        ("labels", [1, 2, 3, 4, 5]), ("input", {}), ("input", {"shape": ["N", 3, "H", 10]}), ("row_bytes", -1),
        ("preprocess", "imagenet"), ("model", []), ("output", None), ("linear_layers", [1]), ("layers", 5),
        ("layers", [{}]), ("files", []), ("programs", {}), ("programs", [{"file": 1}]), ("schema", 99),
    ],
)  # fmt: skip
def test_fields_of_a_manifest_that_are_of_another_type(bundle: Path, field: str, value: Any) -> None:
    seal(bundle, lambda data: data.update({field: value}))
    refused(bundle, ".")


@pytest.mark.parametrize(
    "text", ["", "[", "{}", "[" * 100_000, '{"a":' * 100_000, "\x00", "null", "1" * 5000, '"\\ud800"']
)
def test_manifests_that_are_no_manifests(bundle: Path, text: str) -> None:
    (bundle / MANIFEST).write_text(text, "utf-8")
    refused(bundle, ".")


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return a model with some bytes changed, left out, put in or cut off, or with a word in place of another."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        place = rng.randrange(len(changed) or 1)
        kind = rng.randrange(6)
        if kind == 0:
            changed[place : place + 1] = rng.randbytes(1)
        elif kind == 1:
            del changed[place : place + rng.randrange(1, 40)]
        elif kind == 2:
            changed[place:place] = rng.randbytes(rng.randrange(1, 12))
        elif kind == 3:
            del changed[place + 1 :]
        elif kind == 4:  # of the same length, so that the message stays whole
            old, new = rng.choice([(b"weights.bin", b"../../a.bin"), (b"offset", b"length"), (b"Conv", b"Gemm")])
            changed = bytearray(bytes(changed).replace(old, new, rng.choice((1, -1))))
        else:  # a part of it once more, as another message's
            piece = changed[place : place + rng.randrange(1, 200)]
            changed[rng.randrange(len(changed) or 1) : 0] = piece
    return bytes(changed)


def messages(message: Any) -> Iterator[Any]:
    """Yield a message and all within it, as protobuf itself reads them."""
    yield message
    for entry, value in message.ListFields():
        if entry.message_type is not None:
            for inner in value if entry.is_repeated else [value]:
                yield from messages(inner)


def check_by_protobuf(model: ModelProto, weights: int) -> None:
    """Assert what `check_program` promises, by another way of reading."""
    for message in messages(model):
        kind = message.DESCRIPTOR.name
        assert kind not in ("SparseTensorProto", "TrainingInfoProto")
        if kind in ("NodeProto", "FunctionProto"):
            assert message.domain in ("", "ai.onnx", "com.microsoft")
        if kind == "TensorProto" and (message.external_data or message.data_location):
            places = {entry.key: entry.value for entry in message.external_data}
            assert places.keys() == {"location", "offset", "length"} and places["location"] == WEIGHTS
            assert 0 <= int(places["offset"]) <= int(places["offset"]) + int(places["length"]) <= weights


def test_what_passes_of_mutated_programs_is_harmless_to_protobuf_too(made: Path) -> None:
    rng = random.Random(0)
    whole = [path.read_bytes() for path in sorted(made.glob("*.onnx"))]
    size = (made / WEIGHTS).stat().st_size
    refusals = compared = 0
    for _ in range(3000):
        data = mutated(rng.choice(whole), rng)
        try:
            check_program(data, weights=size)
        except ModelError as error:
            assert "\n" not in str(error)
            refusals += 1
            continue
        try:
            model = ModelProto.FromString(data)
        except DecodeError:
            continue  # nothing else reads it either
        check_by_protobuf(model, size)
        compared += 1
    assert refusals > 1000 and compared > 100


def _nodes(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield every place in a manifest, as what holds it and its key."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield value, key
        yield from _nodes(inner)


def test_manifests_with_anything_anywhere_are_refused_or_pass(bundle: Path) -> None:
    rng = random.Random(0)
    whole = (bundle / MANIFEST).read_text("utf-8")
    junk = [
        None,
        True,
        0,
        -1,
        10**30,
        0.5,
        float("nan"),
        "",
        "..",
        "/etc/passwd",
        "\x00",
        "\ud800",
        [],
        [[]],
        {},
        {"a": 1},
    ]

    def spoil(data: dict[str, Any]) -> None:
        for _ in range(rng.choice((1, 1, 3))):
            holder, key = rng.choice(list(_nodes(data)))
            holder[key] = rng.choice(junk)

    refusals = 0
    for _ in range(150):
        (bundle / MANIFEST).write_text(whole, "utf-8")
        seal(bundle, spoil)
        try:
            check_bundle(bundle, bundle.parents[1])
        except (BundleError, ModelError) as error:
            assert "\n" not in str(error) and str(bundle) not in str(error)
            refusals += 1
    assert refusals > 30


def test_noise_is_refused() -> None:
    rng = random.Random(1)
    for size in (0, 1, 2, 7, 100, 4096):
        for _ in range(200):
            with pytest.raises(ModelError):
                check_program(rng.randbytes(size))


def test_nesting_and_numbers_of_fields_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = GraphProto(node=[NodeProto(op_type="Relu")])
    for _ in range(20):
        graph = GraphProto(node=[NodeProto(op_type="If", attribute=[AttributeProto(name="b", type=5, g=graph)])])
    check_program(ModelProto(graph=graph).SerializeToString())
    deep = b""
    for _ in range(5000):  # what protobuf itself would not parse
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            deep = tag + _varint(len(deep)) + deep
    with pytest.raises(ModelError, match="deep"):
        check_program(b"\x3a" + _varint(len(deep)) + deep)
    monkeypatch.setattr(trust, "MAX_FIELDS", 50)
    with pytest.raises(ModelError, match="more than 50 fields"):
        check_program(ModelProto(graph=graph).SerializeToString())


def test_paths_do_not_stay_in_messages() -> None:
    said = without_paths(
        "cannot open '/srv/models/a b/1/forward-0.onnx': no such file\n(/etc/passwd), resnet50/1 and 1/2"
    )
    assert "/srv" not in said and "/etc" not in said and "\n" not in said
    assert "resnet50/1 and 1/2" in said and "forward-0.onnx" in said


def test_errors_are_the_callers() -> None:
    assert issubclass(BundleError, InputError) and issubclass(UnreadyError, CamrtError)
