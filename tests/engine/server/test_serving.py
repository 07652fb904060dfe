"""The process: where it listens, what it says where it cannot, and that stopping loses nothing."""

from __future__ import annotations

import concurrent.futures
import http.client
import io
import json
import logging
import signal
import socket
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import prometheus_client
import pytest
import structlog
from PIL import Image

from camrt.demo import HELD_OUT, draw
from camrt.errors import InputError
from camrt.server.serving import listen, serve, url_of
from camrt.server.settings import Settings
from tests.engine.server.running import Live, inside, outside
from tests.engine.server.stub import stub


@pytest.fixture
def own_log() -> Iterator[None]:
    """Undo what `serve` changes in the process."""
    root = logging.getLogger()
    kept = root.handlers[:], root.level, warnings.showwarning
    yield
    logging.captureWarnings(False)
    root.handlers[:], root.level = kept[0], kept[1]
    for name in ("camrt", "uvicorn"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    structlog.reset_defaults()
    prometheus_client.enable_created_metrics()


def encoded() -> bytes:
    """Return one of the demo's pictures as a PNG."""
    stream = io.BytesIO()
    Image.fromarray(draw(HELD_OUT, [0]).image).save(stream, "PNG")
    return stream.getvalue()


def close(sockets: list[socket.socket]) -> None:
    """Close sockets."""
    for opened in sockets:
        opened.close()


# listening ------------------------------------------------------------------------------------------------------------


def test_a_name_with_two_addresses_has_one_port(monkeypatch: pytest.MonkeyPatch) -> None:
    both = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "127.0.0.2")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: both)
    sockets = listen(Settings(host="both", port=0))
    first, second = (opened.getsockname() for opened in sockets)
    assert (first[0], second[0]) == ("127.0.0.1", "127.0.0.2") and first[1] == second[1] > 0
    assert url_of(sockets[0]) == f"http://127.0.0.1:{first[1]}"
    close(sockets)


def test_connections_are_held_before_the_loop_runs() -> None:
    sockets = listen(Settings(port=0))
    with socket.create_connection(sockets[0].getsockname()[:2], timeout=10):
        pass
    close(sockets)


def test_a_port_that_is_taken_is_one_line() -> None:
    sockets = listen(Settings(port=0))
    port = sockets[0].getsockname()[1]
    with pytest.raises(InputError, match=rf"^cannot listen at 127.0.0.1 port {port}: .*in use; choose another --port$"):
        listen(Settings(port=port))
    close(sockets)


def test_an_address_of_another_machine_is_one_line() -> None:
    with pytest.raises(InputError, match=r"^cannot listen at 192\.0\.2\.1 port 0: "):
        listen(Settings(host="192.0.2.1", port=0, insecure=True))


def test_ipv6_is_written_in_brackets() -> None:
    try:
        sockets = listen(Settings(host="::1", port=0))
    except InputError:
        pytest.skip("this machine has no IPv6")
    assert url_of(sockets[0]) == f"http://[::1]:{sockets[0].getsockname()[1]}"
    close(sockets)


def test_a_unix_socket_left_behind_is_taken_over_and_a_used_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    first = listen(Settings(host=f"unix:{path}"))
    assert url_of(first[0]) == f"unix:{path}"
    with pytest.raises(InputError, match=r"cannot listen at .*in use"):
        listen(Settings(host=f"unix:{path}"))
    close(first)  # as a killed process leaves it
    close(listen(Settings(host=f"unix:{path}")))
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="cannot listen at"):
        listen(Settings(host=f"unix:{tmp_path / 'file'}"))
    assert (tmp_path / "file").read_text() == "mine"


def test_a_unix_socket_is_served(tmp_path: Path) -> None:
    with stub(host=f"unix:{tmp_path / 's'}"), socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as opened:
        opened.settimeout(60)
        opened.connect(str(tmp_path / "s"))
        opened.sendall(b"GET /quick HTTP/1.0\r\n\r\n")
        answer = b""
        while data := opened.recv(65536):
            answer += data
    assert answer.endswith(b"quick")


# stopping -------------------------------------------------------------------------------------------------------------


def test_answers_under_way_are_given_and_nothing_new_is_taken() -> None:
    with stub() as live, concurrent.futures.ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(live.ask, "GET", "/slow") for _ in range(8)]
        for _ in asked:
            assert live.begun.acquire(timeout=60)
        live.server.stop()
        assert live.app.state.draining
        while True:  # the listener closes within a tick
            try:
                live.ask("GET", "/quick")
            except (ConnectionError, http.client.BadStatusLine):
                break
        live.go()
        for one in asked:
            status, headers, body = one.result(60)
            assert (status, body, headers["connection"]) == (200, b"slow", "close")
        live.thread.join(60)
        assert live.ended.is_set() and not live.closed.is_set()


def test_until_the_delay_is_over_requests_are_answered_and_probes_say_no() -> None:
    with stub(drain_delay=600) as live:
        kept = live.connect()
        kept.request("GET", "/quick")
        assert kept.getresponse().read() == b"quick"
        live.server.stop()
        assert live.ask("GET", "/v2/health/ready")[0] == 503
        kept.request("GET", "/quick")
        answer = kept.getresponse()
        assert answer.read() == b"quick" and answer.getheader("connection") == "close"  # it goes to another server next
        assert live.ask("GET", "/quick")[0] == 200
        kept.close()
        live.server.should_exit = True
        live.thread.join(60)
        assert live.ended.is_set()


def test_a_request_on_its_way_to_a_kept_connection_is_answered() -> None:
    with stub() as live:
        kept, fresh = live.connect(), live.connect()
        kept.request("GET", "/quick")
        kept.getresponse().read()
        fresh.connect()
        closing = threading.Event()
        before = live.server._nothing_idle

        def watched() -> bool:
            closing.set()
            return before()

        live.server._nothing_idle = watched  # type: ignore[method-assign]
        live.server.stop()
        assert closing.wait(60)  # nobody new is taken
        for connection in (kept, fresh):
            connection.request("GET", "/quick")
            assert connection.getresponse().read() == b"quick"
            connection.close()


def test_what_is_not_done_in_time_is_told_so() -> None:
    with stub(graceful_timeout=0.6) as live, concurrent.futures.ThreadPoolExecutor(1) as pool:
        asked = pool.submit(live.ask, "GET", "/slow")
        assert live.begun.acquire(timeout=60)
        live.server.stop()
        assert asked.result(60)[2] == b"closed"  # by the scheduler
        live.thread.join(60)
        assert live.ended.is_set()


def test_a_body_that_never_comes_ends_with_an_answer_too() -> None:
    with inside(Settings(port=0, graceful_timeout=0.3, body_timeout=3600)) as live:
        host, port = live.host.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as waiting:
            waiting.sendall(b"POST /explain HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n")
            assert b"100 Continue" in waiting.recv(1000)
            live.server.stop()
            answer = b""
            while data := waiting.recv(65536):
                answer += data
    assert answer.startswith(b"HTTP/1.1 503") and answer.endswith(b'{"error":"the server is stopping"}')


# the whole process ----------------------------------------------------------------------------------------------------


def test_models_that_cannot_be_are_said_and_end_it(tmp_path: Path, own_log: None) -> None:
    said: list[str] = []
    with pytest.raises(InputError, match="model repository is not a folder"):
        serve(Settings(port=0, repository=tmp_path / "none"), said.append)
    assert said[0].startswith("camrt serves at http://127.0.0.1:")


def test_a_signal_stops_a_process_without_a_loss() -> None:
    """Eight clients ask as fast as they can, on connections they keep, while the process is told to stop."""
    picture, codes, key = encoded(), [], "a-key-that-is-nowhere-said"
    headers = {"authorization": f"Bearer {key}"}
    with (
        outside(graceful_timeout="60", infer_keys=key, metrics_port="0") as live,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):

        def ask(method: str) -> None:
            connection = live.connect()
            while True:
                try:
                    connection.connect() if connection.sock is None else None
                except ConnectionRefusedError:
                    return  # the one way to be turned away; whatever else happens fails the test
                connection.request("POST", f"/explain?method={method}", picture, headers)
                answer = connection.getresponse()
                answer.read()
                codes.append(answer.status)
                if answer.getheader("connection") == "close":
                    connection.close()

        asking = [pool.submit(ask, ["gradcam", "scorecam"][i % 2]) for i in range(8)]
        while len(codes) < 16:
            threading.Event().wait(0.01)
        assert live.ask("GET", "/metrics")[0] == 404
        (port,) = [line["port"] for line in map(json.loads, live.lines) if line["event"] == "metrics"]
        samples = Live(f"http://127.0.0.1:{port}").gauges()
        assert samples['camrt_model_ready{model="camrt-demo",version="1"}'] == 1
        assert any(name.startswith("camrt_requests_total{") and 'method="gradcam"' in name for name in samples)
        live.process.send_signal(signal.SIGTERM)
        for one in asking:
            one.result(60)
        assert set(codes) <= {200, 429}
        assert live.finish() == 0  # and not by the signal
        lines = [json.loads(line) for line in live.lines]
        assert "stopped" in [line["event"] for line in lines]
        assert sorted(codes) == sorted(line["code"] for line in lines if line.get("route") == "/explain")
        told = next(line for line in lines if line.get("method") == "gradcam")
        assert {"request_id", "route", "model", "batch", "queue_ms", "run_ms", "code"} <= set(told)
        assert key not in "".join(live.lines) and "PNG" not in "".join(live.lines)


def test_a_second_signal_is_obeyed_at_once() -> None:
    with outside(graceful_timeout="3600", body_timeout="3600") as live:
        host, port = live.host.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as waiting:
            waiting.sendall(b"POST /explain HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 9\r\n\r\n")
            assert b"100 Continue" in waiting.recv(1000)  # its body is waited for, and does not come
            live.process.send_signal(signal.SIGTERM)
            while not any('"stopping"' in line for line in live.lines):
                threading.Event().wait(0.01)
            live.process.send_signal(signal.SIGTERM)
            assert live.finish() == 128 + signal.SIGTERM
