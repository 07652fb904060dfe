"""Explanations on disk: what was written is read back and compared."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from camrt.errors import MethodError, OutputError
from camrt.explanation import Explanation
from camrt.saving import SCHEMA, save_all
from tests.engine.test_explanation import make


def manifest(folder: Path) -> dict[str, Any]:
    """Read a folder's manifest, strictly: JSON has no NaN."""

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    read: dict[str, Any] = json.loads((folder / "manifest.json").read_text(encoding="utf-8"), parse_constant=refuse)
    return read


def test_arrays_and_overlays_are_written_and_come_back(tmp_path: Path) -> None:
    result = make()
    written = result.save(tmp_path / "out")
    assert sorted(path.name for path in written) == [
        "cat_gradcam.npy",
        "cat_gradcam_p_dog.png",
        "cat_gradcam_raw.npy",
        "cat_gradcam_tabby.png",
        "dog_gradcam.npy",
        "dog_gradcam_dog.png",
        "dog_gradcam_raw.npy",
        "dog_gradcam_vector.png",
        "manifest.json",
    ]
    assert sorted((tmp_path / "out").iterdir()) == sorted(written) and written[-1].name == "manifest.json"
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "cat_gradcam.npy"), result.heatmaps[0])
    np.testing.assert_array_equal(np.load(tmp_path / "out" / "dog_gradcam_raw.npy"), result.raw[1])
    with Image.open(tmp_path / "out" / "cat_gradcam_tabby.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(result.overlay(0, 0)))


def test_the_manifest_says_how_each_map_was_made_and_where_it_is(tmp_path: Path) -> None:
    make().save(tmp_path)
    read = manifest(tmp_path)
    assert read["schema"] == SCHEMA
    (entry,) = read["explanations"]
    assert entry["method"] == "gradcam" and entry["options"] == {"n": 10} and entry["layers"] == ["features.18"]
    assert entry["provenance"] == {"model": {"sha256": "ab"}}
    cat, dog = entry["images"]
    assert (cat["name"], cat["predicted"], cat["heatmaps"], cat["raw"]) == (
        "cat",
        1,
        "cat_gradcam.npy",
        "cat_gradcam_raw.npy",
    )
    assert cat["targets"][0] == {
        "class": 0,
        "label": "tabby, tabby cat",
        "value": 0.0,
        "probability": 0.25,
        "degenerate": False,
        "flags": {"unstable": True},
        "overlay": "cat_gradcam_tabby.png",
    }
    assert cat["targets"][1]["degenerate"] is True
    assert dog["targets"][0]["class"] == -1 and dog["targets"][0]["probability"] is None is dog["targets"][0]["value"]
    files = [image[kind] for image in entry["images"] for kind in ("heatmaps", "raw")]
    files += [target["overlay"] for image in entry["images"] for target in image["targets"]]
    assert len(set(files)) == 8 and all((tmp_path / name).is_file() for name in files)


def test_signed_planes_are_written_where_the_method_gives_them(tmp_path: Path) -> None:
    planes = np.random.default_rng(0).normal(size=(2, 2, 3, *make().heatmaps.shape[2:])).astype(np.float32)
    replace(make(), raw_input=planes).save(tmp_path, overlays=False)
    for image, entry in enumerate(manifest(tmp_path)["explanations"][0]["images"]):
        np.testing.assert_array_equal(np.load(tmp_path / entry["raw_input"]), planes[image])
    make().save(tmp_path / "without", overlays=False)
    assert "raw_input" not in manifest(tmp_path / "without")["explanations"][0]["images"][0]


def test_overlays_can_be_left_out(tmp_path: Path) -> None:
    make().save(tmp_path, overlays=False)
    assert {path.suffix for path in tmp_path.iterdir()} == {".npy", ".json"}
    assert "overlay" not in manifest(tmp_path)["explanations"][0]["images"][0]["targets"][0]


def test_overlays_take_the_colormap(tmp_path: Path) -> None:
    result = make()
    result.save(tmp_path, colormap="viridis")
    with Image.open(tmp_path / "cat_gradcam_tabby.png") as image:
        np.testing.assert_array_equal(np.asarray(image), np.asarray(result.overlay(colormap="viridis")))
    with pytest.raises(MethodError, match="no colormap"):
        result.save(tmp_path, colormap="hot")


def test_equal_names_and_targets_do_not_overwrite_one_another(tmp_path: Path) -> None:
    result = make(names=["a", "A"], labels=[("crane", "crane"), ("Crane", "raw")])
    written = result.save(tmp_path)
    assert len({path.name.casefold() for path in written}) == len(written) == 9
    images = manifest(tmp_path)["explanations"][0]["images"]
    for i, image in enumerate(images):
        np.testing.assert_array_equal(np.load(tmp_path / image["heatmaps"]), result.heatmaps[i])
        np.testing.assert_array_equal(np.load(tmp_path / image["raw"]), result.raw[i])


HOSTILE = ["../../etc/passwd", "a/b\\c", ".hidden", "", "con:*?<>|", "\x00\n", "é" * 200, "🐈", "manifest", "-rf"]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_stay_in_the_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "inner"
    result = make(names=[name, name], labels=[(name, name), (name, name)])
    written = result.save(folder)
    assert len(written) == len(list(folder.iterdir())) == 9 and list(tmp_path.iterdir()) == [folder]
    for path in written:
        assert path.parent == folder and len(path.name.encode()) < 200
        assert not set(path.name) & set('/\\:*?"<>|\x00\n') and path.name[0] not in ".-"
    assert manifest(folder)["explanations"][0]["images"][0]["name"] == name


def test_a_label_that_no_encoding_takes_is_written(tmp_path: Path) -> None:
    make(labels=[("\ud800", "a"), ("b", "c")]).save(tmp_path)
    assert manifest(tmp_path)["explanations"][0]["images"][0]["targets"][0]["label"] == "?"


def test_many_explanations_share_a_folder_and_a_manifest(tmp_path: Path) -> None:
    first, second = make(), replace(make(), method="hirescam")

    def stream() -> Any:
        yield first
        yield replace(first, names=["cat", "bird"])
        yield second

    written = save_all(stream(), tmp_path, overlays=False)
    assert len(set(written)) == 13
    entries = manifest(tmp_path)["explanations"]
    assert [entry["method"] for entry in entries] == ["gradcam", "gradcam", "hirescam"]
    assert entries[1]["images"][0]["heatmaps"] == "cat_gradcam_2.npy"


def test_provenance_of_any_kind_becomes_json(tmp_path: Path) -> None:
    values = {
        "path": Path("a"),
        "array": np.arange(3),
        "scalar": np.float32(0.5),
        "nan": float("nan"),
        "set": {1},
        2: None,
    }
    replace(make(), provenance=values).save(tmp_path, overlays=False)
    assert manifest(tmp_path)["explanations"][0]["provenance"] == {
        "path": "a",
        "array": [0, 1, 2],
        "scalar": 0.5,
        "nan": None,
        "set": [1],
        "2": None,
    }


def test_a_place_that_cannot_be_written_leaves_no_manifest(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write"):
        make().save(tmp_path / "file")
    (tmp_path / "dog_gradcam.npy").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        make().save(tmp_path)
    assert not (tmp_path / "manifest.json").exists() and not list(tmp_path.glob("*.part"))


def test_saving_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    result: Explanation = make()
    first = {path.name: path.read_bytes() for path in result.save(tmp_path / "a")}
    assert {path.name: path.read_bytes() for path in result.save(tmp_path / "b")} == first
