"""
The model folder for Triton; the oracle is the explainer in this process.

Where a Triton server is installed (nvidia-pytriton brings one), it serves the folder to Triton's own client. Everywhere
else the same model runs against a stand-in for the module that Triton's Python backend gives to models, written after
that module's documentation; the configuration is read with Triton's own schema where its client is there.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import types
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import camrt
from camrt.errors import InputError, MissingExtraError, OutputError
from tests.engine.embedding.examples import examples_of, free_port, healthy, installed, run, until

pytest.importorskip("pydantic_settings")

from camrt.embedding.desk import TENSORS
from camrt.embedding.triton import Model, write_model_folder

SERVER = installed("pytriton", "tritonclient", "geventhttpclient")
needs_client = pytest.mark.skipif(not installed("tritonclient", "grpc", "google.protobuf"), reason="needs tritonclient")
needs_server = pytest.mark.skipif(not SERVER, reason="needs a Triton server: nvidia-pytriton and tritonclient[http]")


class Tensor:
    """A named array."""

    def __init__(self, name: str, array: np.ndarray) -> None:
        self._name, self._array = name, array

    @classmethod
    def from_dlpack(cls, name: str, array: Any) -> Tensor:
        """Take an array by its own protocol, which refuses what may not be written to."""
        return cls(name, np.from_dlpack(array))

    def name(self) -> str:
        """Return its name."""
        return self._name

    def as_numpy(self) -> np.ndarray:
        """Return its array."""
        return self._array

    def __dlpack__(self, **options: Any) -> Any:
        """Return its array as numpy's protocol has it; there is none of objects."""
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return that it lies in the main memory."""
        return (1, 0)


class TritonError:
    """What went wrong: a text and a code."""

    UNKNOWN, INTERNAL, NOT_FOUND, INVALID_ARG, UNAVAILABLE, UNSUPPORTED, ALREADY_EXISTS, CANCELLED = range(8)

    def __init__(self, message: str, code: int = INTERNAL) -> None:
        self._message, self._code = message, code

    def message(self) -> str:
        """Return the text."""
        return self._message

    def code(self) -> int:
        """Return the code."""
        return self._code


class InferenceResponse:
    """Tensors, or an error."""

    def __init__(self, output_tensors: list[Tensor], error: TritonError | None = None) -> None:
        assert type(output_tensors) is list
        self._tensors, self._error = output_tensors, error

    def output_tensors(self) -> list[Tensor]:
        """Return the tensors."""
        return self._tensors

    def has_error(self) -> bool:
        """Tell whether there is an error."""
        return self._error is not None

    def error(self) -> TritonError | None:
        """Return the error."""
        return self._error


class InferenceRequest:
    """What a client asks; parameters come as JSON."""

    def __init__(
        self, parameters: dict[str, Any] | None = None, outputs: Any = tuple(TENSORS), gone: bool = False, **inputs: Any
    ) -> None:
        self._inputs = [Tensor(name, np.asarray(array)) for name, array in inputs.items()]
        self._parameters, self._outputs, self._gone = parameters, list(outputs), gone

    def inputs(self) -> list[Tensor]:
        """Return the inputs."""
        return self._inputs

    def parameters(self) -> str:
        """Return the parameters."""
        return json.dumps(self._parameters) if self._parameters else ""

    def requested_output_names(self) -> list[str]:
        """Return what is asked for: every output where the client names none."""
        return self._outputs

    def is_cancelled(self) -> bool:
        """Tell whether the client has left."""
        return self._gone


def get_input_tensor_by_name(request: InferenceRequest, name: str) -> Tensor | None:
    """Return an input, None where it is missing."""
    return next((tensor for tensor in request.inputs() if tensor.name() == name), None)


@pytest.fixture(scope="module")
def folder(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder as the example does, and one that takes encoded pictures; return the repository."""
    root = tmp_path_factory.mktemp("triton")
    (root / "bundle").symlink_to(bundle)
    assert run(examples_of("triton")[0], root) == "models/demo\n"
    write_model_folder(bundle, root / "models", name="pictures", encoded=True, settings={"threads": 1})
    return root / "models"


def opened(folder: Path, name: str) -> Model:
    """Import a model as Triton does, and initialise it."""
    spec = importlib.util.spec_from_file_location("model", folder / name / "1" / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kind = "TYPE_STRING" if name == "pictures" else "TYPE_FP32"
    config = {"input": [{"name": "image", "data_type": kind}], "parameters": {"settings": {"string_value": "{}"}}}
    model: Model = module.TritonPythonModel()
    model.initialize(
        {
            "model_config": json.dumps(config),
            "model_instance_kind": "CPU",
            "model_instance_device_id": "0",
            "model_name": name,
            "model_version": "1",
            "model_repository": str(folder / name),
        }
    )
    return model


@pytest.fixture(scope="module")
def models(folder: Path) -> Iterator[dict[str, Model]]:
    """Open both models against the stand-in."""
    patch = pytest.MonkeyPatch()
    utils = types.ModuleType("triton_python_backend_utils")
    for item in (Tensor, TritonError, InferenceResponse, InferenceRequest, get_input_tensor_by_name):
        setattr(utils, item.__name__, item)
    patch.setitem(sys.modules, "triton_python_backend_utils", utils)
    found = {name: opened(folder, name) for name in ("demo", "pictures")}
    yield found
    for model in found.values():
        model.finalize()
    patch.undo()


def test_requests_that_come_together_get_their_own_answers(
    models: dict[str, Model], explainer: camrt.Explainer
) -> None:
    x = np.random.default_rng(0).normal(size=(6, 3, 128, 128)).astype("f4")
    gone, missing, wrong, layer = models["demo"].execute(
        [
            InferenceRequest(image=x[:1], gone=True),
            InferenceRequest({"method": "camera"}, image=x[:1]),
            InferenceRequest(image=x[:1], target=[[10]]),
            InferenceRequest({"layer": "nowhere"}, image=x[:1]),
        ]
    )
    codes = [response.error().code() for response in (gone, missing, wrong, layer)]
    assert codes == [TritonError.CANCELLED, TritonError.INVALID_ARG, TritonError.INVALID_ARG, TritonError.NOT_FOUND]
    assert "camera" in missing.error().message()

    plain, two, labelled, scores, bad = models["demo"].execute(
        [
            InferenceRequest(image=x[:2]),
            InferenceRequest({"method": "scorecam"}, image=x[2:4], target=np.array([[1, -1], [2, 3]])),
            InferenceRequest({"target": "prob:striped disc"}, outputs=["cam", "target"], image=x[4:5]),
            InferenceRequest(outputs=["logits"], image=x),
            InferenceRequest(image=np.full((1, 3, 128, 128), np.nan, "f4")),
        ]
    )
    assert bad.has_error()
    for response, wanted in (
        (plain, explainer.explain(x[:2])),
        (two, explainer.explain(x[2:4], target=[[1, None], [2, 3]], method="scorecam")),
        (labelled, explainer.explain(x[4:5], target="prob:striped disc")),
    ):
        assert not response.has_error()
        tensors = {tensor.name(): tensor.as_numpy() for tensor in response.output_tensors()}
        np.testing.assert_allclose(tensors["cam"], wanted.heatmaps, atol=1e-5)
        np.testing.assert_array_equal(tensors["target"], wanted.targets)
    assert [tensor.name() for tensor in plain.output_tensors()] == list(TENSORS)
    assert [tensor.name() for tensor in labelled.output_tensors()] == ["cam", "target"]
    [logits] = scores.output_tensors()
    np.testing.assert_allclose(logits.as_numpy(), explainer.logits(x), atol=1e-5)


def test_pictures_come_encoded(models: dict[str, Model], explainer: camrt.Explainer, pictures: list[bytes]) -> None:
    good, broken = models["pictures"].execute(
        [
            InferenceRequest(image=np.array([[picture] for picture in pictures], object)),
            InferenceRequest(image=np.array([[b"no picture"]], object)),
        ]
    )
    cam = next(tensor for tensor in good.output_tensors() if tensor.name() == "cam")
    np.testing.assert_allclose(cam.as_numpy(), explainer.explain(pictures).heatmaps, atol=1e-5)
    assert broken.error().code() == TritonError.INVALID_ARG


@needs_client
def test_the_configuration_is_one(bundle: Path, tmp_path: Path) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

    settings = {"ceilings": {"n": 8}, "providers": 'cuda"'}
    written = write_model_folder(
        bundle, tmp_path, name="model", batch=8, delay=0.002, instances=2, gpus=[0, 3], settings=settings
    )
    config = text_format.Parse((written / "config.pbtxt").read_text(), ModelConfig())
    assert (config.name, config.backend, config.max_batch_size) == ("model", "python", 8)
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert not config.model_transaction_policy.decoupled
    [group] = config.instance_group
    assert (group.count, group.kind, list(group.gpus)) == (2, ModelInstanceGroup.KIND_GPU, [0, 3])
    assert [(one.name, one.optional) for one in config.input] == [("image", False), ("target", True)]
    assert list(config.input[0].dims) == [3, 128, 128]
    assert {one.name: list(one.dims) for one in config.output} == {
        "cam": [-1, 128, 128],
        "logits": [10],
        "target": [-1],
        "value": [-1],
        "degenerate": [-1],
    }
    assert json.loads(config.parameters["settings"].string_value) == settings


def test_nothing_is_written_over(bundle: Path, tmp_path: Path) -> None:
    write_model_folder(bundle, tmp_path, name="model")
    with pytest.raises(OutputError, match="there already"):
        write_model_folder(bundle, tmp_path, name="model")
    for name in ("", "..", "a/b"):
        with pytest.raises(InputError, match="name"):
            write_model_folder(bundle, tmp_path, name=name)
    with pytest.raises(InputError, match="1 or more"):
        write_model_folder(bundle, tmp_path, name="other", batch=0)
    assert not (tmp_path / "other").exists()


def test_a_model_runs_in_triton_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton_python_backend_utils", None)
    with pytest.raises(MissingExtraError, match="part of Triton's Python backend"):
        Model().initialize({})


@pytest.fixture(scope="module")
def port(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Start the Triton server that nvidia-pytriton brings on the folder; return its port."""
    root = tmp_path_factory.mktemp("server")
    site = Path(sysconfig.get_path("purelib"))
    triton = site / "pytriton" / "tritonserver"
    shutil.copytree(triton / "backends" / "python", root / "backends" / "python")
    stub = triton / "python_backend_stubs" / "{}.{}".format(*sys.version_info) / "triton_python_backend_stub"
    shutil.copy(stub, root / "backends" / "python")
    binary = shutil.copy(triton / "bin" / "tritonserver", root)
    for path in (binary, root / "backends" / "python" / stub.name):
        os.chmod(path, 0o755)
    port = free_port()
    options = {
        "model-repository": folder,
        "model-control-mode": "explicit",
        "load-model": "demo",  # this server, 2.51, reads BYTES with numpy 1 alone
        "backend-directory": root / "backends",
        "http-address": "127.0.0.1",
        "http-port": port,
        "allow-grpc": "false",
        "allow-metrics": "false",
    }
    libraries = os.pathsep.join([str(site / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")])
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])  # its python3 says whose packages
    environment = {"LD_LIBRARY_PATH": libraries, "PATH": path, "OMP_NUM_THREADS": "1"}
    log = root / "log"
    with log.open("w") as file:
        server = subprocess.Popen(
            [binary, *(f"--{name}={value}" for name, value in options.items())],
            env={**os.environ, **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        until(lambda: server.poll() is not None or healthy(f"http://127.0.0.1:{port}/v2/health/ready"))
        assert server.poll() is None, log.read_text()
        yield port
    finally:
        server.terminate()
        server.wait()


@needs_server
def test_a_real_server_answers_the_example(port: int, tmp_path: Path) -> None:
    code = examples_of("triton")[1].replace("8000", str(port))
    assert run(code, tmp_path) == "(2, 1, 128, 128)\n"


@needs_server
@pytest.mark.filterwarnings("ignore")  # the client's own
def test_a_real_server_gives_the_same_heatmaps(port: int, explainer: camrt.Explainer, pictures: list[bytes]) -> None:
    from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
    from tritonclient.utils import InferenceServerException

    def inputs(**arrays: np.ndarray) -> list[Any]:
        kinds = {"f": "FP32", "i": "INT64", "O": "BYTES"}
        made = []
        for name, array in arrays.items():
            made.append(InferInput(name, list(array.shape), kinds[array.dtype.kind]))
            made[-1].set_data_from_numpy(array)
        return made

    def ask(name: str, given: list[Any], **kwargs: Any) -> Any:
        with InferenceServerClient(f"127.0.0.1:{port}") as client:
            return client.infer(name, given, **kwargs)

    x = np.random.default_rng(1).normal(size=(5, 3, 128, 128)).astype("f4")
    asked = [
        (inputs(image=x), {}, explainer.explain(x)),
        (
            inputs(image=x[:2], target=np.array([[1, 2], [3, -1]])),
            {"method": "layercam"},
            explainer.explain(x[:2], target=[[1, 2], [3, None]], method="layercam"),
        ),
        (
            inputs(image=x[2:3]),
            {"method": "smoothgradcampp", "n": 3, "target": "prob:striped disc"},
            explainer.explain(x[2:3], target="prob:striped disc", method="smoothgradcampp", options={"n": 3}),
        ),
    ] * 4
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda one: ask("demo", one[0], parameters=one[1] or None), asked))
    for answer, (_, _, wanted) in zip(answers, asked, strict=True):
        np.testing.assert_allclose(answer.as_numpy("cam"), wanted.heatmaps, atol=1e-5)
        np.testing.assert_allclose(answer.as_numpy("logits"), wanted.logits, atol=1e-5)
        np.testing.assert_array_equal(answer.as_numpy("target"), wanted.targets)
        np.testing.assert_array_equal(answer.as_numpy("degenerate"), wanted.degenerate)
    single = ask("demo", inputs(image=x[:1]))
    np.testing.assert_allclose(single.as_numpy("cam"), explainer.explain(x[:1]).heatmaps, atol=1e-6)
    scores = ask("demo", inputs(image=x), outputs=[InferRequestedOutput("logits")])
    np.testing.assert_allclose(scores.as_numpy("logits"), explainer.logits(x), atol=1e-5)
    assert scores.as_numpy("cam") is None
    for parameters, text in (({"method": "camera"}, "camera"), ({"layer": "nowhere"}, "nowhere")):
        with pytest.raises(InferenceServerException, match=text):
            ask("demo", inputs(image=x), parameters=parameters)
