"""The manifest survives JSON, and a damaged one is an error that says what is wrong."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from camrt.errors import BundleError
from camrt.export.live import open_model
from camrt.export.manifest import Manifest
from tests import tiny


def manifest() -> Manifest:
    """Return a tiny model's manifest with every kind of field filled."""
    found = open_model(tiny.gap()).manifest
    return replace(
        found, labels=("a", "b", "c", "d", "e"), preprocess={"name": "half"}, verification={"parity": {"max_abs": 0.0}}
    )


def test_a_manifest_survives_json() -> None:
    before = manifest()
    assert Manifest.from_dict(json.loads(json.dumps(before.to_dict()))) == before


def test_the_default_layer_is_the_one_marked() -> None:
    assert manifest().default_layer.name == "a2"
    assert [layer.name for layer in manifest().layers if layer.default] == ["a2"]


@pytest.mark.parametrize("field", ["layers", "classes", "labels", "linear_layers", "input"])
def test_a_missing_field_is_named(field: str) -> None:
    data = manifest().to_dict()
    del data[field]
    with pytest.raises(BundleError, match=field):
        Manifest.from_dict(data)


def test_no_default_or_two_are_refused() -> None:
    for flag in (False, True):
        data = manifest().to_dict()
        for layer in data["layers"]:
            layer["default"] = flag
        with pytest.raises(BundleError, match="default layer"):
            Manifest.from_dict(data)
