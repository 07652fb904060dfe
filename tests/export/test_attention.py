"""
Blocks of attention are found whichever way they are written, and their maps are LeGrad's.

The oracle is the paper's definition in torch, float64: small transformers with their attention written out, the score of
each block from the mean of its tokens, and autograd.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from camrt.errors import LayerError
from camrt.export.attention import find_blocks
from camrt.export.live import Live, open_model
from camrt.export.vjp.emit import dims
from tests import tiny
from tests.export.architectures import exported
from tests.export.judge import run_program
from tests.export.onnx_text import tokens
from tests.export.token_models import MODELS as SKETCHES

SIZE, GRID, WIDTH, HEADS, CLASSES = (8, 12), (4, 6), 8, 2, 5
Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Form:
    """How a transformer is written."""

    prefix: int = 1
    pre_norm: bool = True
    read: str = "first"  # what the head reads: the first token, the mean of all or of the patches, or the first two
    is_flat: bool = False  # attention (N*heads, T, T) over tokens (T, N, D)
    depth: int = 3
    windows: int = 1
    is_bias_late: bool = False  # the last block adds its last bias to the sum, as an optimiser leaves it


class Transformer(nn.Module):
    """A vision transformer of 2 x 2 patches, its attention given from outside."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        self.form = form
        self.patches = nn.Conv2d(3, WIDTH, 2, stride=2)
        self.first = nn.Parameter(torch.randn(1, form.prefix, WIDTH))
        self.places = nn.Parameter(torch.randn(1, GRID[0] * GRID[1] + form.prefix, WIDTH) / 2)
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(WIDTH),
                    "qkv": nn.Linear(WIDTH, 3 * WIDTH),
                    "out": nn.Linear(WIDTH, WIDTH),
                    "norm2": nn.LayerNorm(WIDTH),
                    "mlp": nn.Sequential(nn.Linear(WIDTH, 3 * WIDTH), nn.GELU(), nn.Linear(3 * WIDTH, WIDTH)),
                }
            )
            for _ in range(form.depth)
        )
        self.norm = nn.LayerNorm(WIDTH)
        self.heads = nn.ModuleList(nn.Linear(WIDTH, CLASSES) for _ in range(2))
        for weight in self.parameters():
            nn.init.normal_(weight, 0.1, 0.5)

    def attended(self, block: Any, x: Tensor, attend: Attend) -> Tensor:
        """Return what a block's attention gives of (N, T, D), or (T, N, D)."""
        n, t, _ = whole = x.shape
        if self.form.is_flat:
            parts = (part.reshape(n, t * HEADS, -1).transpose(0, 1) for part in block["qkv"](x).chunk(3, -1))
            return block["out"](attend(*parts).transpose(0, 1).reshape(n, t, WIDTH))
        if self.form.windows > 1:
            x, n, t = x.reshape(-1, t // self.form.windows, WIDTH), n * self.form.windows, t // self.form.windows
        q, k, v = (part.reshape(n, t, HEADS, -1).transpose(1, 2) for part in block["qkv"](x).chunk(3, -1))
        return block["out"](attend(q, k, v).transpose(1, 2).reshape(whole))

    def begun(self, image: Tensor) -> Tensor:
        """Return the tokens before the first block."""
        x = self.patches(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.first.expand(x.shape[0], -1, -1), x], 1) + self.places
        return x.transpose(0, 1) if self.form.is_flat else x

    def through(self, block: Any, x: Tensor, attend: Attend) -> Tensor:
        """Return the tokens behind a block."""
        if self.form.pre_norm:
            x = x + self.attended(block, block["norm1"](x), attend)
            mlp, normed = block["mlp"], block["norm2"](x)
            if self.form.is_bias_late and block is self.blocks[-1]:
                return x + mlp[1](mlp[0](normed)) @ mlp[2].weight.T + mlp[2].bias
            return x + mlp(normed)
        x = block["norm1"](x + self.attended(block, x, attend))
        return block["norm2"](x + block["mlp"](x))

    def scored(self, pooled: Tensor) -> Tensor:
        """Return the scores of tokens that took the place of the head's own."""
        if self.form.read == "first two":
            return (self.heads[0](self.norm(pooled)) + self.heads[1](self.norm(pooled))) / 2
        return self.heads[0](self.norm(pooled))

    def forward(self, image: Tensor) -> Tensor:
        """Return the scores."""
        x = self.begun(image)
        for block in self.blocks:
            x = self.through(block, x, nn.functional.scaled_dot_product_attention)
        x = self.norm(x.transpose(0, 1) if self.form.is_flat else x)
        if self.form.read == "first two":
            return (self.heads[0](x[:, 0]) + self.heads[1](x[:, 1])) / 2
        pooled = {"first": x[:, 0], "mean": x.mean(1), "patches": x[:, self.form.prefix :].mean(1)}
        return self.heads[0](pooled[self.form.read])

    def legrad(self, image: Tensor, seed: Tensor) -> Tensor:
        """Return the maps (N, blocks, h, w) as the paper defines them."""
        x, maps = self.begun(image), []
        for block in self.blocks:
            kept: list[Tensor] = []

            def attend(q: Tensor, k: Tensor, v: Tensor, kept: list[Tensor] = kept) -> Tensor:
                kept.append(torch.softmax(q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5, -1))
                return kept[0] @ v

            x = self.through(block, x, attend)
            score = (self.scored(x.mean(0 if self.form.is_flat else 1)) * seed).sum()
            (g,) = torch.autograd.grad(score, kept, retain_graph=True)
            keys = g.relu().reshape(len(image), HEADS, *g.shape[-2:]).mean((1, 2))[:, self.form.prefix :]
            maps.append(keys.reshape(len(image), *GRID))
        return torch.stack(maps, 1).detach()


FORMS = {
    "class token": Form(),
    "distilled": Form(prefix=2, read="first two"),
    "registers, mean of patches": Form(prefix=3, read="patches"),
    "mean": Form(prefix=0, read="mean"),
    "norm behind": Form(pre_norm=False),
    "tokens first": Form(is_flat=True),
    "one block": Form(depth=1),
    "bias behind the sum": Form(is_bias_late=True),
}


@cache
def made(name: str) -> tuple[Transformer, Live]:
    """Return a transformer and its programs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Transformer(FORMS[name]).eval()
    exporter, opset = ("dynamo", 18) if name == "class token" else ("torchscript", 17)
    return model, open_model(exported(model, exporter, opset, SIZE))


def tower_of(live: Live, layer: str | None = None) -> Any:
    """Find the blocks of a model on the grid of its default layer, or another."""
    chosen = live.manifest.default_layer if layer is None else live.resolve(layer)
    return find_blocks(live.classifier.model.graph, live.classifier.x, live.classifier.logits, chosen)


@pytest.mark.parametrize("name", FORMS)
def test_the_maps_of_every_block_are_those_of_float64_autograd(name: str, rng: np.random.Generator) -> None:
    model, live = made(name)
    model = copy.deepcopy(model).double()
    x, seed = rng.normal(size=(3, 3, 8, 12)).astype(np.float32), rng.normal(size=(3, CLASSES)).astype(np.float32)
    want = model.legrad(torch.tensor(x).double(), torch.tensor(seed).double()).numpy()
    assert (want.max((2, 3)) > 1.01 * want.min((2, 3))).mean() > 0.7  # a map may be zero, where no change would help
    layer = live.manifest.default_layer
    found = run_program(live.program("attention_all", [layer.name]), x=x, seed=seed)
    np.testing.assert_allclose(found["maps"], want, rtol=0, atol=1e-5 * want.max())
    late = run_program(live.program("attention", [layer.name]), x=x, seed=seed)
    np.testing.assert_allclose(late["maps"], want[:, -2:], rtol=0, atol=1e-5 * want.max())
    scores = model(torch.tensor(x).double()).detach().numpy()
    np.testing.assert_allclose(late["logits"], scores, rtol=0, atol=1e-5 * abs(scores).max())


@pytest.mark.parametrize("name", FORMS)
def test_blocks_are_found_with_their_tokens(name: str) -> None:
    form, (_, live) = FORMS[name], made(name)
    tower = tower_of(live)
    assert (len(tower.blocks), tower.grid, tower.prefix) == (form.depth, GRID, form.prefix)
    assert tower.axis == (0 if form.is_flat else 1)
    length = 24 + form.prefix
    assert {dims(block.attention) for block in tower.blocks} == {
        (f"{HEADS}*N", length, length) if form.is_flat else ("N", HEADS, length, length)
    }


@pytest.mark.parametrize("name", ["class token", "tokens first"])
def test_any_layer_of_the_tokens_grid_says_what_the_grid_is(name: str) -> None:
    _, live = made(name)
    convolution = next(layer.name for layer in live.manifest.layers if layer.op == "Conv")
    assert tower_of(live, convolution) == tower_of(live)


@pytest.mark.parametrize("name", ["class token", "tokens first"])
def test_a_fixed_batch_has_the_same_blocks(name: str) -> None:
    data = onnx.load_from_string(SKETCHES[name].build())
    free = tower_of(open_model(data.SerializeToString()))
    for value in (*data.graph.input, *data.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 2
    fixed = tower_of(open_model(data.SerializeToString()))
    assert (fixed.axis, fixed.grid, fixed.prefix) == (free.axis, free.grid, free.prefix)
    names = [[(block.attention.name, block.output.name) for block in tower.blocks] for tower in (fixed, free)]
    assert names[0] == names[1]


FOUND = (
    "class token, distilled, registers, mean of tokens, sequence pooling, learned query, class attention, tokens first"
)


@pytest.mark.parametrize("name", [*FOUND.split(", "), "class embeddings"])
def test_blocks_of_sketches_are_found(name: str) -> None:
    live, expected = open_model(SKETCHES[name].build()), SKETCHES[name]
    tower = tower_of(live)
    assert (tower.grid, tower.prefix, tower.axis) == (expected.grid, expected.prefix, int(expected.layout == "tokens"))
    assert all(block.output.producer().op_type == "Add" for block in tower.blocks)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (tiny.gap(), "needs attention between all tokens of an image; this model has none"),
        (SKETCHES["mixer"].build(), "this model has none"),
        (SKETCHES["windows on a grid"].build(), "is between 4 tokens; layer 'wanted' has 4x6 cells"),
        (SKETCHES["two scales"].build(), "read more than"),
    ],
)
def test_other_models_are_refused_with_the_reason(model: bytes, said: str) -> None:
    with pytest.raises(LayerError, match=f"legrad .*{said}.*gradcam"):
        tower_of(open_model(model))


def test_attention_within_windows_is_refused() -> None:
    model = Transformer(Form(prefix=0, read="mean", windows=4)).eval()
    live = open_model(exported(model, "torchscript", 17, SIZE))
    with pytest.raises(LayerError, match=r"Softmax.*', 4\*Nx2x6x6, stays within windows"):
        tower_of(live)


def test_the_grid_is_what_the_caller_says() -> None:
    for grid, prefix in (((2, 8), 1), ((3, 5), 2)):
        tower = tower_of(open_model(tokens(), grid=grid, prefix=prefix))
        assert (tower.grid, tower.prefix) == (grid, prefix)


def test_a_model_that_reads_two_blocks_is_refused() -> None:
    class Both(Transformer):
        def forward(self, image: Tensor) -> Tensor:
            x, seen = self.begun(image), []
            for block in self.blocks:
                x = self.through(block, x, nn.functional.scaled_dot_product_attention)
                seen.append(self.heads[0](x.mean(1)))
            return seen[-1] + seen[-2]

    live = open_model(exported(Both(Form()).eval(), "torchscript", 17, SIZE))
    with pytest.raises(LayerError, match="needs a head that reads the last block alone"):
        tower_of(live)
