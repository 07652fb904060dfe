"""Principal components without an eigenvalue solver: squaring against LAPACK, near ties and empty input included."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest

from camrt.export.maps import MAPS
from camrt.export.programs import EXPLAINED
from camrt.export.vjp.emit import Emit
from camrt.methods import METHODS, raw_map

Array = np.ndarray[Any, Any]
COMPONENTS = ("eigencam", "eigengradcam", "kpcacam")


def run(method: str, acts: Array, grads: Array | None = None) -> tuple[Array, Array]:
    """Return a method's raw map by ONNX Runtime, and by NumPy."""
    grads = np.ones_like(acts) if grads is None else grads
    kind = ir.TensorType(ir.DataType.from_numpy(acts.dtype))
    a, g = (ir.Value(name=n, shape=ir.Shape(["N", *acts.shape[1:]]), type=kind) for n in "ag")
    graph = ir.Graph([a, g], [], nodes=[], opset_imports={"": 18}, name="component")
    drawn = MAPS[method].function(Emit(graph, "c"), *({"acts": a, "grads": g}[n] for n in MAPS[method].needs))
    assert isinstance(drawn, ir.Value)
    drawn.shape = ir.Shape(["N", *acts.shape[2:]])
    graph.outputs.append(drawn)
    session = ort.InferenceSession(ir.to_proto(ir.Model(graph, ir_version=9)).SerializeToString())
    row = METHODS[method]
    _, options = row.variants[0], {name: option.default for name, option in row.options.items()}
    want = raw_map(row, {"acts": acts, "grads": grads}, variant=row.variants[0], options=options)
    return session.run(None, {"a": acts, "g": grads})[0], np.asarray(want.array)


def with_values(values: list[float], z: int, k: int, rng: np.random.Generator) -> Array:
    """Return one tensor (1, K, 1, Z) of known singular values, its channels centred."""
    left = np.linalg.qr(rng.normal(size=(z, z)) - np.eye(z)[:, :1])[0]
    left = np.linalg.qr(np.hstack([np.ones((z, 1)), left]))[0][:, 1 : len(values) + 1]
    right = np.linalg.qr(rng.normal(size=(k, k)))[0][:, : len(values)]
    found: Array = ((left * values) @ right.T).T.reshape(1, k, 1, z)
    return found


@pytest.mark.parametrize("method", COMPONENTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (2, 40, 3, 4), (2, 7, 1, 1), (2, 3, 1, 2)])
def test_squaring_finds_what_lapack_finds(
    method: str, dtype: type, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    acts, grads = rng.normal(size=shape).astype(dtype), rng.normal(size=shape).astype(dtype)
    found, want = run(method, acts, grads)
    if method == "kpcacam" and shape[2:] == (1, 2):  # two centred cells are opposite: neither is the larger
        found, want = abs(found), abs(want)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, want, atol=(1e-6 if dtype is np.float32 else 1e-12) * max(np.abs(want).max(), 1))


@pytest.mark.parametrize("method", ["eigencam", "eigengradcam"])
@pytest.mark.parametrize(("z", "k"), [(30, 8), (8, 30)])
def test_values_much_nearer_than_a_tie_are_still_told_apart(
    method: str, z: int, k: int, rng: np.random.Generator
) -> None:
    acts = with_values([3.0, 3.0 * (1 - 1e-4), 1.0], z, k, rng)
    found, want = run(method, acts)
    np.testing.assert_allclose(found, want, atol=1e-8)


@pytest.mark.parametrize("method", COMPONENTS)
def test_nothing_gives_nothing_and_not_nan(method: str) -> None:
    acts = np.zeros((2, 5, 3, 4), np.float32)
    found, want = run(method, acts)
    np.testing.assert_array_equal(found, want)
    assert not found.any()


def test_channels_that_are_constant_leave_rounding_alone_when_centred() -> None:
    acts = np.full((1, 5, 3, 4), 0.1, np.float32) * np.arange(1, 6, dtype=np.float32)[:, None, None]
    found, _ = run("eigengradcam", acts)
    assert not found.any()
    found, want = run("eigencam", acts)  # uncentred, they are one component
    np.testing.assert_allclose(found, want, rtol=1e-6)
    assert (found > 0).all()


def test_negative_eigenvalues_of_a_kernel_matrix_do_not_take_the_lead() -> None:
    cells = np.array([1.8, 0.0, 0.1, -1.5, -0.2, -0.2])  # tanh saturates: the centred matrix is indefinite
    kernel = np.tanh(np.outer(cells, cells) + 1)
    centring = np.eye(6) - 1 / 6
    values = np.linalg.eigvalsh(centring @ kernel @ centring)
    assert values[0] < -0.3 * values[-1]
    found, want = run("kpcacam", cells.reshape(1, 1, 2, 3))
    np.testing.assert_allclose(found, want, atol=1e-10)


def test_importing_programs_enters_the_components() -> None:
    assert {f"explained_{name}" for name in COMPONENTS} <= set(EXPLAINED)
