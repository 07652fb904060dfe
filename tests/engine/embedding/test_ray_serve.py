"""
Ray Serve with two replicas on this machine; the oracle is the explainer in this process.

The stack is needed for all but the last test, which says what the user is told without it.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import re
import runpy
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.errors import InputError, MethodError, MissingExtraError, TargetError
from tests.engine.embedding.examples import PATIENCE, examples_of, free_port, installed, post, until

INSTALLED = installed("ray", "starlette", "uvicorn", "aiohttp", "pydantic_settings")
NAME = f"camrt-{os.getpid()}"  # of the application, which the titles of its processes hold
needs_stack = pytest.mark.skipif(not INSTALLED, reason="needs ray[serve]")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Start Ray on this machine; return the URL of the application."""
    import ray
    from ray import serve

    port = free_port()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, configure_logging=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    yield f"http://127.0.0.1:{port}/explain"
    serve.shutdown()
    ray.shutdown()


@pytest.fixture(scope="module")
def handle(cluster: str, bundle: Path) -> Any:
    """Serve the bundle, which lies in the object store, by two replicas."""
    from ray import serve

    from camrt.embedding.ray_serve import app, put_bundle

    dear = {"ceilings": {"iters": 100_000}, "max_timeout": 3600, "max_work": 1e6, "queue_work": 1e7}
    args = {"bundle": put_bundle(bundle), "replicas": "2", "threads": "1", "cpus": "0.5", **dear}
    return serve.run(app(args), name=NAME, route_prefix="/explain")


def replicas() -> set[int]:
    """Return the process ids of the application's replicas."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if entry.read_bytes().startswith(f"ray::ServeReplica:{NAME}:".encode()):
                found.add(int(entry.parent.name))
        except OSError:  # it has just ended
            continue
    return found


@needs_stack
def test_a_handle_takes_pictures_and_arrays(handle: Any, explainer: camrt.Explainer, pictures: list[bytes]) -> None:
    prepared = np.random.default_rng(0).normal(size=(3, 3, 128, 128)).astype("f4")
    for images, target, method in ((pictures, None, "gradcam"), (prepared, [1, 2, -1], "scorecam")):
        found = handle.explain.remote(images, target=target, method=method).result()
        rows = None if target is None else [[None if one == -1 else one] for one in target]
        wanted = explainer.explain(images, target=rows, method=method)
        np.testing.assert_allclose(found.heatmaps, wanted.heatmaps, atol=1e-5)
        np.testing.assert_allclose(found.logits, wanted.logits, atol=1e-5)
        np.testing.assert_array_equal(found.targets, wanted.targets)
        assert found.labels == wanted.labels and found.method == method


@needs_stack
def test_calls_that_share_runs_get_their_own_answers(
    handle: Any, explainer: camrt.Explainer, pictures: list[bytes]
) -> None:
    asked = [(place % 4, place % 10, ("gradcam", "layercam", "ablationcam")[place % 3]) for place in range(48)]
    calls = [handle.explain.remote(pictures[one], target=target, method=method) for one, target, method in asked]
    for call, (one, target, method) in zip(calls, asked, strict=True):
        wanted = explainer.explain(pictures[one], target=target, method=method)
        np.testing.assert_allclose(call.result().heatmaps, wanted.heatmaps, atol=1e-5)


@needs_stack
@pytest.mark.usefixtures("handle")
def test_http_takes_a_picture(cluster: str, explainer: camrt.Explainer, pictures: list[bytes]) -> None:
    wanted = explainer.explain(pictures[0], target=[3, "prob:1"], method="layercam")
    url = cluster + "?method=layercam&target=3&target=prob:1"
    status, body, kind = post(url, pictures[0], Accept="application/json")
    document = json.loads(body)
    assert (status, kind) == (200, "application/json")
    np.testing.assert_allclose(document["predictions"], wanted.logits, atol=1e-5)
    [explanation] = document["explanations"]
    assert explanation["targets"] == [3, 1] and explanation["labels"] == list(wanted.labels[0])
    np.testing.assert_allclose(explanation["heatmaps"], wanted.heatmaps[0], atol=1e-6)
    status, body, kind = post(url, pictures[0], Accept="application/x-npy")
    assert (status, kind) == (200, "application/x-npy")
    np.testing.assert_allclose(np.load(io.BytesIO(body)), wanted.heatmaps[0], atol=1e-6)


@needs_stack
@pytest.mark.usefixtures("handle")
@pytest.mark.parametrize(
    ("query", "body", "code", "text"),
    [
        ("", b"no picture", 400, "not a picture"),
        ("", b"", 400, "empty"),
        ("?method=camera", b"x", 400, "camera"),
        ("?layer=nowhere", b"x", 404, "nowhere"),
        ("?target=10", None, 400, "out of range"),
        ("?timeout=1e-9", None, 504, "longer than"),
    ],
)
def test_http_says_what_is_wrong(
    cluster: str, pictures: list[bytes], query: str, body: bytes | None, code: int, text: str
) -> None:
    status, answer, _ = post(cluster + query, pictures[0] if body is None else body)
    assert status == code
    assert re.search(text, json.loads(answer)["error"])


@needs_stack
def test_an_error_comes_back_as_itself(handle: Any, pictures: list[bytes]) -> None:
    with pytest.raises(MethodError, match="camera"):
        handle.explain.remote(pictures[0], method="camera").result()
    with pytest.raises(TargetError, match="out of range"):
        handle.explain.remote(pictures[0], target=10).result()


@needs_stack
def test_dear_calls_hold_no_light_one_up_and_end_when_nobody_waits(handle: Any, pictures: list[bytes]) -> None:
    """The dear ones would take minutes."""
    dear = [handle.explain.remote(pictures[0], method="opticam", iters=20_000, timeout=3600) for _ in range(4)]
    for _ in range(8):
        assert handle.explain.remote(pictures[1]).result().heatmaps.shape == (1, 1, 128, 128)
    for call in dear:
        with pytest.raises(TimeoutError):
            call.result(timeout_s=0)
        call.cancel()

    def busy() -> int:
        """Return how much time the replicas have spent, in the kernel's ticks."""
        return sum(int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11]) for pid in replicas())

    def idle() -> bool:
        before = busy()
        time.sleep(0.5)
        return busy() - before <= 10  # of the 50 that one thread at work adds

    until(idle)


@needs_stack
def test_a_killed_replica_is_replaced(handle: Any, explainer: camrt.Explainer, pictures: list[bytes]) -> None:
    import ray

    before = replicas()
    assert len(before) == 2
    wanted = explainer.explain(pictures[0]).heatmaps
    os.kill(victim := min(before), signal.SIGKILL)
    until(lambda: len(replicas() - {victim}) == 2)

    def answered() -> bool:
        with ThreadPoolExecutor(8) as pool:
            calls = [handle.explain.remote(pictures[0]) for _ in range(8)]
            try:
                answers = list(pool.map(lambda call: call.result(timeout_s=PATIENCE), calls))
            except ray.exceptions.RayError:  # what the dead one had taken
                return False
        return all(np.allclose(found.heatmaps, wanted, atol=1e-5) for found in answers)

    until(answered)


@needs_stack
@pytest.mark.usefixtures("cluster")
def test_the_example(
    bundle: Path, pictures: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from ray import serve

    monkeypatch.chdir(tmp_path)
    (tmp_path / "bundle").symlink_to(bundle)
    (tmp_path / "cat.png").write_bytes(pictures[0])
    code = examples_of("ray_serve")[0].replace('"bundle": "bundle"', '"bundle": Path("bundle").resolve(), "cpus": 0.5')
    (tmp_path / "example.py").write_text(code)
    runpy.run_path("example.py")
    assert "<Explanation layercam at stage5: 1 x 1 heatmaps of 128 x 128>" in capsys.readouterr().out
    assert (tmp_path / "overlay.png").is_file()
    serve.delete("default")


@needs_stack
def test_an_application_needs_a_bundle() -> None:
    from camrt.embedding.ray_serve import app

    with pytest.raises(InputError, match="want bundle"):
        app({"replicas": 2})


@pytest.mark.skipif(INSTALLED, reason="ray[serve] is installed")
def test_without_the_stack_it_is_named() -> None:
    with pytest.raises(MissingExtraError, match=r"'ray\[serve\]'"):
        importlib.import_module("camrt.embedding.ray_serve")
