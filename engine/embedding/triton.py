"""
Explanations on Triton: a model folder for its Python backend, for servers that already run it.

Write the folder, where camrt is installed::

    from camrt.embedding.triton import write_model_folder

    print(write_model_folder("bundle", "models", name="demo"))

Serve it with ``tritonserver --model-repository models`` where the ``python3`` that is found first, of the version of the
backend's stub, has ``camrt[cpu,serve]`` or ``camrt[gpu,serve]``; ``PYTHONPATH`` is not read. Then any client of the Open
Inference Protocol explains::

    import numpy as np
    from tritonclient.http import InferenceServerClient, InferInput

    client = InferenceServerClient("127.0.0.1:8000")
    image = InferInput("image", [2, 3, 128, 128], "FP32")  # prepared in the model's layout
    image.set_data_from_numpy(np.random.default_rng(0).normal(size=(2, 3, 128, 128)).astype(np.float32))
    target = InferInput("target", [2, 1], "INT64")
    target.set_data_from_numpy(np.array([[3], [-1]]))  # -1 for the predicted class
    answer = client.infer("demo", [image, target], parameters={"method": "layercam"})
    print(answer.as_numpy("cam").shape)

Triton's dynamic batcher hands over requests together; those that can share a run do, whatever their parameters.
An instance takes the next ones when it has answered these: give dear methods a model folder, or instances, of their own.

Tried with the server of nvidia-pytriton 0.7 (Triton 2.51) on a CPU. Encoded pictures need Triton 2.52 (24.11) or newer,
whose backend reads BYTES with numpy 2, and are untested on a real one; so are GPUs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CamrtError, CancelledError, InputError, OutputError
from ..opening import load
from ..server.asks import Ask
from ..server.faults import status_of, text_of
from ..server.tickets import Answer
from .desk import TENSORS, Desk, stack, tensors_of

__all__ = ["Model", "write_model_folder"]

_INSTALL = "it is part of Triton's Python backend, which imports this model"
_TYPES = {"float32": "FP32", "float16": "FP16", "float64": "FP64", "uint8": "UINT8"}
_CODES = {404: "NOT_FOUND", 429: "UNAVAILABLE", 499: "CANCELLED", 501: "UNSUPPORTED", 503: "UNAVAILABLE"}
_MODEL = '''"""A model of Triton's Python backend; the bundle beside this file explains."""

from pathlib import Path

from camrt.embedding.triton import Model


class TritonPythonModel(Model):
    """What Triton looks for."""

    bundle = Path(__file__).parent / "bundle"
'''


def write_model_folder(
    bundle: str | Path,
    folder: str | Path,
    *,
    name: str,
    encoded: bool = False,
    batch: int = 32,
    delay: float = 0.0,
    instances: int = 1,
    gpus: Sequence[int] = (),
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """
    Write ``<folder>/<name>`` with ``config.pbtxt``, ``1/model.py`` and a copy of the bundle.

    Parameters
    ----------
    bundle : str or Path
        A bundle folder.
    folder : str or Path
        Triton's model repository; made if it is missing.
    name : str
        The model's name.
    encoded : bool, default False
        Whether ``image`` is an encoded picture (BYTES, shape (N, 1)), in place of an input that is prepared in the
        model's layout.
    batch : int, default 32
        Images that Triton hands over together at most.
    delay : float, default 0
        Seconds that a request waits for company.
    instances : int, default 1
        How many processes hold the model, on each GPU or on the CPU.
    gpus : sequence of int, optional
        The GPUs it runs on; the CPU where there are none.
    settings : mapping, optional
        As `camrt.embedding.desk.Desk` takes them.

    Returns
    -------
    Path
        What was written.

    Raises
    ------
    InputError
        If the name is no name of a folder, or a number is out of range.
    OutputError
        If the folder is there already.
    BundleError
        If the bundle is incomplete or altered.
    """
    target = Path(folder, name)
    if Path(name).name != name or name in ("", ".", ".."):
        raise InputError(f"a model's name is that of a folder; got {name!r}")
    if batch < 1 or instances < 1 or not delay >= 0:
        raise InputError("batch and instances must be 1 or more, delay 0 or more")
    explainer = load(bundle)
    if target.exists():
        raise OutputError(f"{str(target)!r} is there already; remove it or choose another name")
    preprocess = explainer.preprocess
    sizes = dict(zip("HW", preprocess.size, strict=True)) | {"C": explainer.manifest.classes}
    image = ("STRING", [1]) if encoded else (_TYPES[preprocess.dtype], list(preprocess.shape))
    placed = f"kind: KIND_GPU gpus: {list(gpus)}" if gpus else "kind: KIND_CPU"
    config = [
        f"name: {json.dumps(name)}",
        'backend: "python"',
        f"max_batch_size: {batch}",
        f'input [ {{ name: "image" data_type: TYPE_{image[0]} dims: {image[1]} }} ]',
        'input [ { name: "target" data_type: TYPE_INT64 dims: [-1] optional: true allow_ragged_batch: true } ]',
        *(
            f'output [ {{ name: "{output}" data_type: TYPE_{kind} dims: {[sizes.get(axis, -1) for axis in axes]} }} ]'
            for output, (kind, axes) in TENSORS.items()
        ),
        f"instance_group [ {{ count: {instances} {placed} }} ]",
        f"dynamic_batching {{ max_queue_delay_microseconds: {round(delay * 1e6)} }}",
        f'parameters {{ key: "settings" value {{ string_value: {json.dumps(json.dumps(dict(settings or {})))} }} }}',
    ]
    shutil.copytree(bundle, target / "1" / "bundle")
    (target / "1" / "model.py").write_text(_MODEL, "utf-8")
    (target / "config.pbtxt").write_text("\n".join(config) + "\n", "utf-8")
    return target


class Model:
    """
    What Triton's Python backend calls; the class in ``model.py`` inherits it and says where the bundle is.

    Arrays of numbers travel by DLPack, for backends before Triton 2.52 misread those of numpy 2.
    """

    bundle: Path

    def initialize(self, args: Mapping[str, str]) -> None:
        """
        Open the bundle.

        Parameters
        ----------
        args : mapping of str to str
            Triton's: ``model_config`` as JSON, ``model_instance_kind``, ``model_instance_device_id`` and others.
        """
        self._utils = stack("triton_python_backend_utils", _INSTALL)
        config = json.loads(args["model_config"])
        settings = json.loads(config.get("parameters", {}).get("settings", {}).get("string_value", "{}"))
        self._is_encoded = any(one["name"] == "image" and one["data_type"] == "TYPE_STRING" for one in config["input"])
        gpu = [("CUDAExecutionProvider", {"device_id": int(args["model_instance_device_id"])})]
        self._desk = Desk(
            self.bundle,
            settings,
            name=args["model_name"],
            providers=gpu if args["model_instance_kind"] == "GPU" and "providers" not in settings else None,
        )

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """
        Answer requests.

        Parameters
        ----------
        requests : sequence of InferenceRequest
            Triton's. Inputs ``image`` and ``target``; parameters as `camrt.embedding.desk.Desk.read` takes them.

        Returns
        -------
        list of InferenceResponse
            One a request: the outputs that it asks for, or what is wrong with it.
        """
        answers = self._desk.answer([self._read(request) for request in requests])
        return [self._written(request, answer) for request, answer in zip(requests, answers, strict=True)]

    def finalize(self) -> None:
        """End all threads."""
        self._desk.close()

    def _read(self, request: Any) -> Ask | CamrtError:
        """Read a request."""
        if request.is_cancelled():
            return CancelledError("the request was cancelled by its client")
        image = self._utils.get_input_tensor_by_name(request, "image")
        target = self._utils.get_input_tensor_by_name(request, "target")
        parameters = json.loads(request.parameters() or "{}")
        try:
            return self._desk.read(
                image.as_numpy().ravel().tolist() if self._is_encoded else np.from_dlpack(image),
                parameters.get("target") if target is None else np.from_dlpack(target),
                parameters,
                explain=set(request.requested_output_names()) != {"logits"},
            )
        except CamrtError as error:
            return error

    def _written(self, request: Any, answer: Answer | BaseException) -> Any:
        """Write a response."""
        if isinstance(answer, BaseException):
            status = status_of(answer)
            code = _CODES.get(status, "INVALID_ARG" if status < 500 else "INTERNAL")
            error = self._utils.TritonError(text_of(answer), getattr(self._utils.TritonError, code))
            return self._utils.InferenceResponse(output_tensors=[], error=error)
        wanted = request.requested_output_names()
        found = {
            name: np.require(array, requirements=["C", "W"])
            for name, array in tensors_of(answer).items()
            if name in wanted
        }
        tensors = [self._utils.Tensor.from_dlpack(name, array) for name, array in found.items()]
        return self._utils.InferenceResponse(output_tensors=tensors)
