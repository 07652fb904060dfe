"""The embedded model as a bundle, and pictures of what it knows: what every stack serves here."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

import camrt
from camrt.demo import HELD_OUT, MODEL, draw

pytest.importorskip("onnxruntime")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Export the embedded model."""
    pytest.importorskip("onnx_ir")
    from camrt.export import export

    folder = tmp_path_factory.mktemp("served") / "bundle"
    raw = camrt.load(MODEL)
    export(MODEL, folder, layers=["stage5", "stage4"], labels=raw.labels, preprocess=raw.preprocess.to_dict())
    return folder


@pytest.fixture(scope="session")
def explainer(bundle: Path) -> camrt.Explainer:
    """Open the bundle in this process: the oracle of every stack."""
    return camrt.load(bundle)


@pytest.fixture(scope="session")
def pictures() -> list[bytes]:
    """Return encoded pictures of two objects each."""
    found = []
    for seed in range(4):
        file = io.BytesIO()
        Image.fromarray(draw(HELD_OUT + seed, (seed, seed + 5)).image).save(file, "PNG")
        found.append(file.getvalue())
    return found
