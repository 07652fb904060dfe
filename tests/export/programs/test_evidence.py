"""Evidence inside the graph: activations and gradients as the programs of their own give them, and what it saves."""

from __future__ import annotations

import numpy as np
import pytest

from camrt.errors import MethodError
from camrt.export.live import open_model
from camrt.export.load import load
from camrt.export.maps import MAPS
from camrt.export.programs import build
from camrt.export.programs.draft import Draft
from camrt.export.programs.evidence import evidence, is_nonnegative
from camrt.export.programs.seeds import target_seed
from tests.export.judge import run_program
from tests.export.onnx_text import HEAD, tiny, tokens
from tests.export.programs.models import MODELS, TARGET, behind, finished, picture


def gathered(name: str, layers: list[str], method: str) -> list[dict[str, np.ndarray]]:
    """Return what a method's evidence amounts to on every layer."""
    live = open_model(MODELS[name])
    draft = Draft(live.classifier, [live.resolve(layer) for layer in layers])
    draft.begin_at_image()
    for index, known in enumerate(evidence(draft, MAPS[method], target_seed(draft))):
        assert known["size"] == (8, 8)
        draft.outputs |= {f"acts.{index}": known["acts"], f"grads.{index}": known["grads"]}
    found = run_program(finished(draft), x=picture(live), target=TARGET)
    return [{what: found[f"{what}.{index}"] for what in ("acts", "grads")} for index in range(len(layers))]


@pytest.mark.parametrize(
    ("name", "layers"), [("plain", ["c", "a"]), ("plain", ["a"]), ("heads", ["n1"]), ("channels_last", ["a"])]
)
def test_it_is_what_the_gradient_program_gives(name: str, layers: list[str]) -> None:
    live = open_model(MODELS[name])
    want = run_program(live.program("gradient", layers), x=picture(live), target=TARGET)
    for index, known in enumerate(gathered(name, layers, "gradcam")):
        grads = np.broadcast_to(known["grads"], known["acts"].shape)
        np.testing.assert_array_equal(known["acts"], want[f"activations.{index}"])
        np.testing.assert_array_equal(grads, want[f"gradients.{index}"])


def test_before_a_global_average_the_gradient_is_one_number_a_channel() -> None:
    shapes = {layer: gathered("plain", [layer], "gradcam")[0]["grads"].shape for layer in ("c", "a")}
    assert shapes == {"c": (3, 4, 8, 8), "a": (3, 4, 1, 1)}


def test_in_the_whole_graph_multipliers_are_those_behind_the_layer() -> None:
    """Times activations they are the contributions that the program behind the layer gives."""
    live = open_model(MODELS["residual"])
    (known,) = gathered("residual", ["b"], "liftcam")
    feeds = {**behind(live, "b"), "seed": np.eye(5, dtype=np.float32)[TARGET]}
    want = run_program(live.program("lift", ["b"]), **feeds)["contributions.0"]
    np.testing.assert_allclose(known["grads"] * known["acts"], want, atol=1e-5 * np.abs(want).max())


@pytest.mark.parametrize(
    ("body", "known"),
    [
        ("k = Relu(c)", True),
        ("k = Sigmoid(c)", True),
        ("k = Softplus(c)", True),
        ("k = HardSigmoid(c)", True),
        ("k = Clip(c, zero)", True),
        ("k = Clip(c, minus)", False),
        ("k = Clip(c, , zero)", False),
        ("k = LeakyRelu(c)", False),
        ("k = Abs(c)", False),
    ],
)
def test_which_operators_are_known_never_to_give_a_negative_number(body: str, known: bool) -> None:
    text = f"c = Conv<pads=[1, 1, 1, 1]>(x, w1, b1) {body} {HEAD.replace('(a)', '(k)')}"
    classifier = load(tiny(text, weights={"zero": np.float32(0), "minus": np.float32(-1)}))
    assert is_nonnegative(next(v for n in classifier.model.graph for v in n.outputs if v.name == "k")) is known
    assert not is_nonnegative(classifier.x)


def test_two_blocks_of_attention_are_wanted_where_the_model_has_one() -> None:
    live = open_model(tokens(1))
    for kind in ("map_legrad", "explained_legrad"):
        with pytest.raises(MethodError, match=r"1 block with attention .* option blocks=-1"):
            build(live.classifier, kind, [live.resolve("n0")])


def test_a_method_of_the_full_gradient_gets_it_once_for_all_layers() -> None:
    live = open_model(MODELS["plain"])
    draft = Draft(live.classifier, [live.resolve("c"), live.resolve("a")])
    draft.begin_at_image()
    first, second = evidence(draft, MAPS["fullgrad"], target_seed(draft))
    assert len(first["full"]) == 2  # the image, and the convolution's bias
    assert "full" not in second
