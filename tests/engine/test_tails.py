"""Edited activations: the tail against the whole model with the edit written into its graph, and closed forms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from camrt.export.live import open_model
from camrt.export.manifest import Layer
from camrt.precision import PRECISIONS
from camrt.providers import parse_providers
from camrt.session import Sessions
from camrt.tails import AGREES, ALIVE, GAUSSIAN, MOST_ROWS, Heads, Tail, read_head, rows_within
from tests import tiny
from tests.export.token_models import MODELS, SIZE

Array = np.ndarray[Any, Any]
X = tiny.images(3)
TOKENS = np.random.default_rng(3).normal(size=(3, 3, *SIZE)).astype(np.float32)
CASES = {
    "gap": (tiny.gap(), "a2", X),
    "gap early": (tiny.gap(), "a1", X),
    "two layers": (tiny.mlp(), "a2", X),
    "one image a run": (tiny.mlp(batch=1), "a2", X),
    "class token": (MODELS["class token"].build(), "wanted", TOKENS),
    "tokens first": (MODELS["tokens first"].build(), "wanted", TOKENS),
    "tokens first, one image": (MODELS["tokens first"].build(), "wanted", TOKENS[:1]),
    "windows": (MODELS["windows on a sequence"].build(), "wanted", TOKENS),
    "channels last": (MODELS["windows on a grid"].build(), "wanted", TOKENS),
}
EVERY_CASE = pytest.mark.parametrize("case", CASES)


class Counted:
    """A model's tail, counting the rows it is asked for."""

    def __init__(self, data: bytes, layer: str, x: Array) -> None:
        self.live, self.rows = open_model(data), list[int]()
        self.layer: Layer = self.live.resolve(layer)
        self.sessions = Sessions(self.live, parse_providers("cpu"), 1)
        self.named = self.sessions.run("features", (layer,), {"x": x})

    def run(self, kind: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        self.rows.append(len(feeds["activations.0"]))
        return self.sessions.run(kind, (self.layer.name,), feeds)

    def tail(self, rows: int = 16) -> Tail:
        contexts = {name: array for name, array in self.named.items() if name.startswith("context.")}
        first = self.layer.layout == "tokens_first"
        return Tail(self.run, self.named["activations.0"], contexts, self.named["logits"], rows, first)


def opened(case: str) -> Counted:
    return Counted(*CASES[case])


class Whole:
    """The given model, whose layer is ``layer * keep + fill``: every edit of it runs the model from the image."""

    def __init__(self, data: bytes, name: str, x: Array) -> None:
        self.x = x
        self.layer = open_model(data).resolve(name)
        model = onnx.load_from_string(data)
        for node in model.graph.node:
            node.input[:] = ["edited" if each == name else each for each in node.input]
        place = next(i for i, node in enumerate(model.graph.node) if name in node.output) + 1
        model.graph.node.insert(place, helper.make_node("Mul", [name, "keep"], ["kept"]))
        model.graph.node.insert(place + 1, helper.make_node("Add", ["kept", "fill"], ["edited"]))
        rank = len(self.layer.shape)
        for edit in ("keep", "fill"):
            model.graph.input.append(helper.make_tensor_value_info(edit, TensorProto.FLOAT, [None] * rank))
        self.session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

    def run(self, image: int, keep: Array, fill: Array) -> Array:
        """Return the scores of one image; edits are (K, h, w), prefix tokens are left alone."""
        feeds = {self.session.get_inputs()[0].name: self.x[[image]]}
        scores: Array = self.session.run(None, {**feeds, "keep": self._laid(keep, 1), "fill": self._laid(fill, 0)})[0]
        return scores[0]

    def _laid(self, edit: Array, prefix: float) -> Array:
        layer, edit = self.layer, edit.astype(np.float32)
        if layer.layout in ("nchw", "nhwc"):
            return edit[None] if layer.layout == "nchw" else edit.transpose(1, 2, 0)[None]
        rows = edit.reshape(layer.channels, -1).T
        rows = np.concatenate([np.full((layer.prefix, layer.channels), prefix, np.float32), rows])
        return rows[None] if layer.layout == "tokens" else rows[:, None]


def close(got: Array, want: Array) -> None:
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


@EVERY_CASE
def test_a_channel_set_to_a_value_gives_what_the_whole_model_gives(case: str, rng: np.random.Generator) -> None:
    tail, whole = opened(case).tail(), Whole(*CASES[case])
    n, k, h, w = tail.acts.shape
    values = rng.normal(size=(n, k))
    found = tail.ablated_of(values)
    assert found.live.all()
    for image in range(n):
        for channel in range(k):
            keep, fill = np.ones((k, h, w)), np.zeros((k, h, w))
            keep[channel], fill[channel] = 0, values[image, channel]
            close(found.logits[image, channel], whole.run(image, keep, fill))


@EVERY_CASE
@pytest.mark.parametrize("gaussian", [False, True])
def test_a_cell_alone_gives_what_the_whole_model_gives(case: str, gaussian: bool) -> None:
    tail, whole = opened(case).tail(), Whole(*CASES[case])
    n, k, h, w = tail.acts.shape
    found = tail.cells_of(gaussian)
    assert found.logits.shape[:2] == (n, h * w)
    assert found.live.all()
    for image in range(n):
        for y in range(h):
            for x in range(w):
                wide = np.zeros((k, h + 2, w + 2))
                wide[:, y : y + 3, x : x + 3] = GAUSSIAN if gaussian else np.eye(3)[1][:, None] * np.eye(3)[1]
                fill = wide[:, 1:-1, 1:-1] * tail.acts[image, :, y, x][:, None, None]
                close(found.logits[image, y * w + x], whole.run(image, np.zeros((k, h, w)), fill))


@pytest.mark.parametrize("model", ["vit_cifar10_ts_op17", "resnet20_cifar10_dynamo_op18"])
def test_trained_models_edits_give_what_the_whole_models_give(realdata: Path, model: str) -> None:
    data = (realdata / "models" / f"{model}.onnx").read_bytes()
    live = open_model(data)
    name = live.manifest.default_layer.name
    x = np.random.default_rng(0).uniform(-1, 1, (2, 3, 32, 32)).astype(np.float32)
    tail, whole = Counted(data, name, x).tail(), Whole(data, name, x)
    _, k, h, w = tail.acts.shape
    only, cells = np.zeros((2, k), bool), np.zeros((2, h * w), bool)
    only[:, [0, 7, 63]] = cells[:, [0, 10, h * w - 1]] = True
    forms = [tail] if name not in live.manifest.linear_layers else [tail, replace(tail, head=read_head(tail))]
    assert len(forms) == 1 + model.startswith("resnet")
    for form in forms:
        ablated, alone = form.ablated_of(np.zeros((2, k)), only), form.cells_of(False, cells)
        for image, channel in np.argwhere(only):
            keep = np.ones((k, h, w))
            keep[channel] = 0
            close(ablated.logits[image, channel], whole.run(image, keep, np.zeros((k, h, w))))
        for image, cell in np.argwhere(cells):
            keep = np.zeros((k, h * w))
            keep[:, cell] = 1
            close(alone.logits[image, cell], whole.run(image, keep.reshape(k, h, w), np.zeros((k, h, w))))


def test_the_gaussian_sums_to_one_and_is_cut_off_at_borders() -> None:
    assert GAUSSIAN.sum() == 1
    tail = opened("gap").tail()
    blank = replace(tail, acts=np.zeros_like(tail.acts)).cells_of(False).logits
    rise, plain = tail.cells_of(True).logits - blank, tail.cells_of(False).logits - blank
    h, w = tail.acts.shape[2:]
    shares = np.full((h, w), 1.0)
    shares[[0, -1]] *= 0.75
    shares[:, [0, -1]] *= 0.75
    close(rise, plain * shares.reshape(-1)[:, None])


@EVERY_CASE
def test_rows_a_run_change_nothing_but_rounding(case: str, rng: np.random.Generator) -> None:
    model = opened(case)
    values = rng.normal(size=model.tail().acts.shape[:2])
    many = model.tail(1000)
    for rows in (1, 5, 16):
        few = model.tail(rows)
        for one, two in (
            (few.ablated_of(values), many.ablated_of(values)),
            (few.cells_of(True), many.cells_of(True)),
        ):
            np.testing.assert_allclose(one.logits, two.logits, atol=2e-6 * np.abs(many.logits).max())
    assert max(model.rows) <= many.acts.shape[0] * max(many.acts.shape[1], many.acts[0, 0].size)


def test_no_run_is_longer_than_it_may_be() -> None:
    model = opened("two layers")
    for rows in (1, 5, 16):
        model.rows.clear()
        tail = model.tail(rows)
        tail.ablated_of(np.zeros(tail.acts.shape[:2]))
        tail.cells_of(True)
        assert max(model.rows) == rows


@pytest.mark.parametrize("case", ["gap", "two layers"])
def test_only_what_is_asked_for_is_run_and_live(case: str, rng: np.random.Generator) -> None:
    model = opened(case)
    tail = model.tail()
    only = np.zeros(tail.acts.shape[:2], bool)
    only[0, 2] = only[2, [0, 4]] = True
    values = rng.normal(size=only.shape)
    found, everything = tail.ablated_of(values, only), tail.ablated_of(values)
    np.testing.assert_array_equal(found.live, only)
    assert not found.logits[~only].any()
    close(found.logits[only], everything.logits[only])
    assert sum(model.rows[:2]) == 2 + 3  # two images as they are, three channels
    head = read_head(tail) if case == "gap" else None
    closed = replace(tail, head=head).ablated_of(values, only)
    np.testing.assert_array_equal(closed.live, only)
    assert not closed.logits[~only].any()
    cells = np.zeros((len(only), tail.acts[0, 0].size), bool)
    cells[1, [3, 7]] = True
    for found in (tail.cells_of(True, cells), replace(tail, head=head).cells_of(True, cells)):
        np.testing.assert_array_equal(found.live, cells)
        assert not found.logits[~cells].any()
        close(found.logits[cells], tail.cells_of(True).logits[cells])


def test_a_channel_that_has_its_value_everywhere_is_not_run() -> None:
    model = opened("two layers")
    tail = model.tail()
    acts = tail.acts.copy()
    acts[0, 1], acts[1, 3] = 0, 2.5
    values = np.full(acts.shape[:2], 0.0)
    values[1, 3] = 2.5
    found = replace(tail, acts=acts).ablated_of(values)
    dead = (acts == values[:, :, None, None]).all((2, 3))
    assert dead[0, 1]
    assert dead[1, 3]
    assert sum(model.rows) == len(acts) + (~dead).sum()
    assert found.live.all()
    np.testing.assert_array_equal(found.logits[dead], tail.logits[np.nonzero(dead)[0]])


def test_the_change_is_measured_between_two_runs_of_the_tail() -> None:
    model = opened("two layers")
    tail = model.tail()
    values = np.zeros(tail.acts.shape[:2])
    shifted = replace(tail, logits=tail.logits + 7)  # a quantised model's scores are not those of its float twin
    close(shifted.ablated_of(values).logits - 7, tail.ablated_of(values).logits)


def test_evidence_is_left_alone_and_the_same_call_gives_the_same_bits(rng: np.random.Generator) -> None:
    tail = opened("class token").tail()
    kept = [tail.acts.copy(), tail.logits.copy(), *(a.copy() for a in tail.contexts.values())]
    values = rng.normal(size=tail.acts.shape[:2])
    for _ in range(2):
        np.testing.assert_array_equal(tail.ablated_of(values).logits, tail.ablated_of(values).logits)
        np.testing.assert_array_equal(tail.cells_of(True).logits, tail.cells_of(True).logits)
    for before, after in zip(kept, [tail.acts, tail.logits, *tail.contexts.values()], strict=True):
        np.testing.assert_array_equal(before, after)


# closed forms ----------------------------------------------------------------------------------------------------


def test_a_heads_weights_are_read_from_its_tail() -> None:
    head = read_head(opened("gap").tail())
    assert head is not None
    weights = tiny.weights()
    np.testing.assert_allclose(head.weight, weights["head"], atol=1e-6)
    np.testing.assert_allclose(head.bias, weights["bias"], atol=1e-6)


def test_closed_forms_are_what_the_tail_gives_and_run_nothing(rng: np.random.Generator) -> None:
    model = opened("gap")
    assert model.live.manifest.linear_layers == ("a2",)
    tail = model.tail()
    closed = replace(tail, head=read_head(tail))
    values = rng.normal(size=tail.acts.shape[:2])
    model.rows.clear()
    found = [closed.ablated_of(values), closed.cells_of(False), closed.cells_of(True)]
    assert model.rows == []
    for one, two in zip(found, [tail.ablated_of(values), tail.cells_of(False), tail.cells_of(True)], strict=True):
        assert one.logits.dtype == two.logits.dtype == np.float32
        close(one.logits, two.logits)
        np.testing.assert_array_equal(one.live, two.live)


def test_a_head_that_is_not_linear_after_all_is_run_and_said_to_be() -> None:
    tail = opened("two layers").tail()
    with pytest.warns(RuntimeWarning, match="the closed form differs from its run by"):
        assert read_head(tail) is None


def test_a_tail_in_half_precision_may_differ_by_its_rounding() -> None:
    tail = opened("gap").tail()

    def halved(kind: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Round what the last product reads to the ten bits of float16."""
        pooled = feeds["activations.0"].mean(axis=(2, 3)).astype(np.float16).astype(np.float32)
        return {"logits": pooled @ tiny.weights()["head"] + tiny.weights()["bias"]}

    rough = replace(tail, run=halved)
    with pytest.warns(RuntimeWarning):
        assert read_head(rough) is None
    assert read_head(rough, "float16") is not None
    assert set(AGREES) == set(PRECISIONS)


def test_a_head_is_read_once() -> None:
    model, heads = opened("gap"), Heads()
    first = heads.of("a2", model.tail())
    asked = len(model.rows)
    assert heads.of("a2", model.tail()) is first
    assert len(model.rows) == asked


# memory ----------------------------------------------------------------------------------------------------------


def test_rows_follow_from_the_bytes_they_may_take() -> None:
    acts, contexts = np.zeros((2, 8, 4, 4), np.float32), {"context.0": np.zeros((2, 3, 8), np.float32)}
    first = Layer("a", "", "Relu", "", ("N", 8, 4, 4), "nchw", 8, (4, 4))
    layers = [first, replace(first, channels=48), replace(first, channels=64, grid=(2, 2), prefix=1)]
    fed = 4 * (8 * 16 + 3 * 8)
    for count, largest in ((1, 8 * 16), (2, 48 * 16), (3, 48 * 16)):
        row = fed + ALIVE * 4 * largest
        assert rows_within(10 * row, acts, contexts, layers[:count]) == 10
        assert rows_within(10 * row - 1, acts, contexts, layers[:count]) == 9
        assert rows_within(row - 1, acts, contexts, layers[:count]) == 0
    assert rows_within(10**6, acts, contexts, layers[2:]) == min(MOST_ROWS, 10**6 // (fed + ALIVE * 4 * 64 * 5))
    assert rows_within(2**40, acts, contexts, layers) == MOST_ROWS
