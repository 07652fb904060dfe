"""
Explanations on KServe: a custom model with both verbs, ``:predict`` and ``:explain``, and the second protocol.

Where KServe's controller runs, ``python -m camrt.embedding.kserve --bundle /mnt/models --model_name demo`` is the
container's command, with KServe's own flags if you like; anywhere else it is a server too. So is a script of one's own::

    from camrt.embedding.kserve import main

    main()

Any client asks; KServe's own does it so::

    import asyncio, base64
    from kserve import InferenceRESTClient, RESTConfig

    picture = base64.b64encode(open("cat.png", "rb").read()).decode()
    request = {"instances": [{"image": {"b64": picture}, "target": 3}], "parameters": {"method": "layercam"}}
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    answer = asyncio.run(client.explain("http://127.0.0.1:8080", model_name="demo", data=request))
    print(answer["explanations"][0]["labels"])

V1 reads and writes what `camrt.server` does. In V2 the heatmap is an output tensor, ``cam``; ``image`` is prepared, or
BYTES: base64 text over REST, where KServe lets no other bytes through, and the encoded picture itself over gRPC.
KServe does not batch; the desk does, across the requests that are there at the same time.

Needs ``camrt[cpu,serve]`` or ``camrt[gpu,serve]``, and ``kserve``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..errors import CamrtError
from ..server.documents import read_base64
from ..server.faults import status_of, text_of
from ..server.infer import metadata
from ..server.instances import read_instances, write_explanations, write_predictions
from .desk import TENSORS, Desk, stack, tensors_of

__all__ = ["Explanations", "main"]

_INSTALL = "pip install kserve"
_GRPC = ("bool_param", "int64_param", "string_param")  # where a parameter's value is, over gRPC

kserve = stack("kserve", _INSTALL)
Model: Any = kserve.Model
errors = stack("kserve.errors", _INSTALL)


class Explanations(Model):  # type: ignore[misc]
    """
    A bundle as KServe's model server has models.

    Parameters
    ----------
    name : str
        The model's name.
    bundle : str or Path
        A bundle folder.
    **settings : object
        As `camrt.embedding.desk.Desk` takes them.
    """

    def __init__(self, name: str, bundle: str | Path, **settings: Any) -> None:
        super().__init__(name)
        self._bundle, self._settings = bundle, settings

    def load(self) -> bool:
        """
        Open the bundle.

        Returns
        -------
        bool
            That it is ready.
        """
        self._desk = Desk(self._bundle, self._settings, name=self.name)
        self.ready = True
        return self.ready

    def stop(self) -> None:
        """End all threads."""
        self.ready = False
        self._desk.close()

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """
        Score images (V1), or explain them as tensors (V2).

        Parameters
        ----------
        payload : dict or InferRequest
            V1's document, or V2's request.
        headers, response_headers : mapping, optional
            Not read, not written.

        Returns
        -------
        dict or InferResponse
            ``predictions``, or the outputs that are asked for.

        Raises
        ------
        InvalidInput, NotImplementedError, ModelNotReady, InferenceError
            As KServe answers with 400, 501, 503 and 500.
        """
        try:
            if isinstance(payload, kserve.InferRequest):
                return await self._infer(payload)
            return write_predictions(await self._desk.wait(self._read(payload, explain=False)))
        except CamrtError as error:
            raise _translated(error, self.name) from error

    async def explain(self, payload: Any, headers: Any = None) -> dict[str, Any]:
        """
        Explain images (V1).

        Parameters
        ----------
        payload : dict
            V1's document.
        headers : mapping, optional
            Not read.

        Returns
        -------
        dict
            ``predictions`` and ``explanations``.

        Raises
        ------
        InvalidInput, NotImplementedError, ModelNotReady, InferenceError
            As KServe answers with 400, 501, 503 and 500.
        """
        try:
            return write_explanations(await self._desk.wait(self._read(payload, explain=True)))
        except CamrtError as error:
            raise _translated(error, self.name) from error

    def get_input_types(self) -> list[dict[str, Any]]:
        """
        Say what V2 takes.

        Returns
        -------
        list of dict
            Name, data type and shape of each input; -1 for sizes that are open.
        """
        found: list[dict[str, Any]] = metadata(self._desk.served, ["1"])["inputs"]
        return found

    def get_output_types(self) -> list[dict[str, Any]]:
        """
        Say what V2 gives.

        Returns
        -------
        list of dict
            As `get_input_types`, of the outputs.
        """
        return [output for output in metadata(self._desk.served, ["1"])["outputs"] if output["name"] in TENSORS]

    def _read(self, document: Any, *, explain: bool) -> Any:
        """Read a document of V1."""
        return read_instances(document, self._desk.served, self._desk.settings, explain=explain)

    async def _infer(self, request: Any) -> Any:
        """Answer a request of V2."""
        inputs = {one.name: one for one in request.inputs}
        if "image" not in inputs:
            raise errors.InvalidInput(f"inputs are 'image' and, if you like, 'target'; got {', '.join(inputs)}")
        wanted = [output.name for output in request.request_outputs or ()] or list(TENSORS)
        parameters = {name: _plain(value) for name, value in (request.parameters or {}).items()}
        if "timeout" in parameters:
            parameters["timeout"] = float(parameters["timeout"]) / 1e6  # microseconds
        target = inputs["target"].as_numpy() if "target" in inputs else parameters.get("target")
        images = inputs["image"].as_numpy()
        if inputs["image"].datatype == "BYTES":
            images = [one if isinstance(one, bytes) else read_base64(one, "a picture") for one in images.ravel()]
        ask = self._desk.read(images, target, parameters, explain=wanted != ["logits"])
        tensors = tensors_of(await self._desk.wait(ask))
        outputs = []
        for name in wanted:
            if name not in tensors:
                raise errors.InvalidInput(f"outputs are {', '.join(TENSORS)}; got {name!r:.60}")
            output = kserve.InferOutput(name, list(tensors[name].shape), TENSORS[name][0])
            output.set_data_from_numpy(tensors[name], binary_data=True)
            outputs.append(output)
        return kserve.InferResponse(
            response_id=request.id,
            model_name=self.name,
            infer_outputs=outputs,
            use_binary_outputs=request.use_binary_outputs,
            requested_outputs=request.request_outputs,
        )


def main() -> None:
    """Serve the bundle that the command line names, ``--bundle``, beside KServe's own flags, until told to stop."""
    parser = argparse.ArgumentParser(
        parents=[stack("kserve.model_server", _INSTALL).parser], conflict_handler="resolve"
    )
    parser.add_argument("--bundle", required=True, help="A bundle folder.")
    told, _ = parser.parse_known_args()
    model = Explanations(told.model_name, told.bundle)
    model.load()
    kserve.ModelServer().start([model])


def _plain(value: Any) -> Any:
    """Return a parameter's value; gRPC has each in a field of its kind."""
    for field in _GRPC:
        if hasattr(value, "HasField") and value.HasField(field):
            return getattr(value, field)
    return value


def _translated(error: CamrtError, name: str) -> Exception:
    """Return the error of KServe's that is answered with the nearest status."""
    status, text = status_of(error), text_of(error)
    if status in (429, 503):
        return errors.ModelNotReady(name, text)  # type: ignore[no-any-return]
    if status == 501:
        return NotImplementedError(text)
    return errors.InvalidInput(text) if status < 500 else errors.InferenceError(text)  # type: ignore[no-any-return]


if __name__ == "__main__":
    main()
