"""The plain protocol over HTTP: a picture in, JSON, PNG or npy out."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

import camrt
from camrt.server.faults import BusyError
from camrt.server.routes_plain import _only
from tests.engine.server.checking import Client
from tests.engine.server.conftest import NAME


def test_json_says_everything(client: Client, explainer: camrt.Explainer, photo: bytes) -> None:
    want = explainer.explain(photo, method="gradcam", target=[0, "prob:4"])
    answer = client.post("/explain?target=0&target=prob:4", content=photo, headers={"x-request-id": "mine-7"})
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"] == "mine-7"
    told = answer.json()
    assert (told["id"], told["model"], told["version"], told["method"]) == ("mine-7", NAME, "1", "gradcam")
    assert told["variant"] == want.variant and told["layers"] == list(want.layers) and told["size"] == [128, 128]
    for t, target in enumerate(told["targets"]):
        np.testing.assert_allclose(target["heatmap"], want.heatmaps[0, t], atol=1e-6)
        assert target["value"] == pytest.approx(want.values[0, t], abs=1e-6)
        assert target["probability"] == pytest.approx(want.probabilities[0, t], abs=1e-6)
    assert [(t["class"], t["label"]) for t in told["targets"]] == [(0, "striped disc"), (4, "p(striped triangle)")]
    shares = np.exp(want.logits[0]) / np.exp(want.logits[0]).sum()
    assert [row["class"] for row in told["top"]] == np.argsort(-shares)[:5].tolist()
    assert [row["probability"] for row in told["top"]] == pytest.approx(np.sort(shares)[::-1][:5].tolist(), abs=1e-6)
    assert set(told["timing"]) == {"queue_ms", "decode_ms", "run_ms", "total_ms", "batch"}
    assert told["timing"]["total_ms"] >= told["timing"]["run_ms"] > 0 and told["picture"] is None


def test_base64_and_the_picture(client: Client, explainer: camrt.Explainer, photo: bytes) -> None:
    told = client.post("/explain?encoding=base64&picture=true", content=photo).json()
    want = explainer.explain(photo)
    heat = np.frombuffer(base64.b64decode(told["targets"][0]["heatmap"]), "<f4").reshape(told["size"])
    np.testing.assert_allclose(heat, want.heatmaps[0, 0], atol=1e-6)
    kind, _, data = told["picture"].partition(",")
    assert kind == "data:image/png;base64"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))), want.pictures[0])


def test_png_is_the_engines_overlay(client: Client, explainer: camrt.Explainer, photo: bytes) -> None:
    want = explainer.explain(photo, target=4)
    answer = client.post(
        "/explain?target=4&colormap=viridis&opacity=0.3", content=photo, headers={"accept": "image/png"}
    )
    assert answer.headers["content-type"] == "image/png"
    drawn = np.asarray(Image.open(io.BytesIO(answer.content)))
    np.testing.assert_array_equal(drawn, np.asarray(want.overlay(colormap="viridis", alpha=0.3)))
    bare = client.post("/explain?target=4&colorbar=false", content=photo, headers={"accept": "image/png"})
    assert Image.open(io.BytesIO(bare.content)).size == (128, 128)


def test_npy_is_the_heatmaps(client: Client, explainer: camrt.Explainer, photo: bytes) -> None:
    answer = client.post("/explain?target=4&target=0", content=photo, headers={"accept": "application/x-npy"})
    assert answer.headers["content-type"] == "application/x-npy"
    heat = np.load(io.BytesIO(answer.content))
    np.testing.assert_allclose(heat, explainer.explain(photo, target=[4, 0]).heatmaps[0], atol=1e-6)


def test_a_prepared_input_is_an_npy(client: Client, explainer: camrt.Explainer, photo: bytes) -> None:
    x = camrt.image.prepare(photo, explainer.preprocess).x
    want = explainer.explain(photo).heatmaps[0, 0]
    for array in (x, x[0], x.astype(np.float64)):
        file = io.BytesIO()
        np.save(file, array)
        told = client.post("/explain", content=file.getvalue()).json()
        np.testing.assert_allclose(told["targets"][0]["heatmap"], want, atol=1e-6)


@pytest.mark.parametrize(
    "query",
    [
        "method=scorecam",
        "method=polycam",
        "method=layercam&layer=stage3&layer=stage4&fuse=max",
        "method=smoothgradcampp&n=3",
        "tta=true",
        "pipeline=torchcam",
        "method=reciprocam",
    ],
)
def test_every_wish_reaches_the_engine(client: Client, explainer: camrt.Explainer, photo: bytes, query: str) -> None:
    given = dict(part.split("=") for part in query.split("&"))
    layers = [part.split("=")[1] for part in query.split("&") if part.startswith("layer=")]
    options = {"n": given["n"]} if "n" in given else None
    want = explainer.explain(
        photo, method=given.get("method", "gradcam"), layer=layers or None, options=options, tta="tta" in given,
        fuse=given.get("fuse"), pipeline=given.get("pipeline", "camrt"),
    )  # fmt: skip
    told = client.post(f"/explain?{query}", content=photo).json()
    np.testing.assert_allclose(told["targets"][0]["heatmap"], want.heatmaps[0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("method=nothing", 400),
        ("variant=nothing", 400),
        ("target=99", 400),
        ("target=a+griffin", 400),
        ("layer=nothing", 404),
        ("nothing=1", 400),
        ("method=gradcam&method=layercam", 400),
        ("timeout=-1", 400),
        ("timeout=nan", 400),
        ("timeout=1e9", 400),
        ("opacity=2", 400),
        ("colormap=hot", 400),
        ("encoding=hex", 400),
        ("picture=perhaps", 400),
        ("model=nothing", 404),
        ("model=camrt-demo&version=7", 404),
        ("method=opticam&iters=100000", 400),
        ("method=rise&n=1000000", 400),
        ("max_forwards=3", 400),
        ("&".join(["target=1"] * 33), 413),
    ],
)
def test_a_wish_that_cannot_be_is_refused(client: Client, photo: bytes, query: str, status: int) -> None:
    assert client.post(f"/explain?{query}", content=photo).status_code == status


@pytest.mark.parametrize("body", [b"", b"no picture", b"\x89PNG\r\n\x1a\n" + b"0" * 50, b"\x93NUMPY\x01\x00\xff\xff"])
def test_a_body_that_is_no_picture_is_refused(client: Client, body: bytes) -> None:
    assert client.post("/explain", content=body).status_code == 400


def test_no_picture_is_no_picture_however_short_its_time(client: Client) -> None:
    """What can be told by the first bytes is told before the deadline can pass."""
    assert client.post("/explain?timeout=1e-7", content=b"no picture").status_code == 400
    assert client.post("/explain?timeout=1e-7", content=b"GIF89a").status_code == 415


def test_an_answer_nobody_accepts_is_refused_before_it_is_made(client: Client, photo: bytes) -> None:
    answer = client.post("/explain", content=photo, headers={"accept": "text/csv"})
    assert answer.status_code == 406 and "application/json" in answer.json()["error"]


def test_the_deadline_is_told(client: Client, photo: bytes) -> None:
    answer = client.post("/explain?method=opticam&iters=200&timeout=0.001", content=photo)
    assert answer.status_code == 504


def test_sagemaker_has_its_own_words(client: Client, explainer: camrt.Explainer, photo: bytes) -> None:
    assert client.get("/ping").status_code == 200
    told = client.post("/invocations?target=4", content=photo, headers={"content-type": "image/png"}).json()
    np.testing.assert_allclose(
        told["targets"][0]["heatmap"], explainer.explain(photo, target=4).heatmaps[0, 0], atol=1e-6
    )


def test_models_are_listed_with_the_one_that_answers_by_itself(client: Client) -> None:
    (row,) = client.get("/models").json()["models"]
    assert row == {"name": NAME, "version": "1", "versions": ["1"], "ready": True, "default": True}


def test_where_several_are_served_one_has_to_be_named() -> None:
    assert _only(["a"]) == "a"
    with pytest.raises(camrt.errors.InputError, match="say which model"):
        _only(["a", "b"])


def test_a_model_says_what_it_can_do(client: Client, explainer: camrt.Explainer, photo: bytes) -> None:
    said = client.get(f"/models/{NAME}?version=1").json()
    assert (said["name"], said["version"], said["size"], said["classes"]) == (NAME, "1", [128, 128], 10)
    assert said["labels"] == list(explainer.labels)
    assert client.get(f"/models/{NAME}?version=2").status_code == 404
    assert client.get("/models/nothing").status_code == 404


def test_a_full_queue_refuses(client_of: Callable[..., Client], photo: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    client = client_of()

    def full() -> None:
        raise BusyError("the queue is full", 2.2)

    monkeypatch.setattr(client.app.state.scheduler, "check_room", full)  # type: ignore[attr-defined]
    for path in ("/explain", f"/v2/models/{NAME}/infer", f"/v1/models/{NAME}:explain", "/explain?model=nothing"):
        answer = client.post(path, content=photo)
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
