"""
Explanations on LitServe: one file that starts, batches and spreads over the GPUs of one machine.

A server, which prints nothing but LitServe's own log::

    import litserve
    from camrt.embedding.litserve import Explanations

    if __name__ == "__main__":
        server = litserve.LitServer(Explanations("bundle"), max_payload_size=64 * 2**20)
        server.run(host="127.0.0.1", port=8000, generate_client_file=False)

A client, in another process::

    import base64, json, urllib.request

    picture = base64.b64encode(open("cat.png", "rb").read()).decode()
    body = {"instances": [{"image": {"b64": picture}, "target": 3}], "parameters": {"method": "layercam"}}
    request = urllib.request.Request("http://127.0.0.1:8000/explain", json.dumps(body).encode())
    request.add_header("Content-Type", "application/json")
    answer = json.load(urllib.request.urlopen(request))
    print(answer["explanations"][0]["labels"])

Calls that arrive together share runs, and chunks of masked forwards where they cannot. A worker takes the next ones when
it has answered these, so give dear methods a path and workers of their own: ``LitServer([Explanations("bundle",
{"max_work": 500}), Explanations("bundle", api_path="/dear")])``.

LitServe rather than BentoML: its hooks are these five, and it needs 22 small packages and no torch. Needs
``camrt[cpu,serve]`` or ``camrt[gpu,serve]``, and ``litserve``.
"""
# Annotations are read by LitServe when a server is built, so they are not deferred here.

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import CamrtError
from ..server.asks import Ask
from ..server.documents import write_json
from ..server.faults import headers_of, status_of, text_of
from ..server.instances import read_instances, write_explanations
from ..server.tickets import Answer
from .desk import Desk, stack

__all__ = ["Explanations"]

_INSTALL = "pip install litserve"

LitAPI: Any = stack("litserve", _INSTALL).LitAPI
Response = stack("fastapi.responses", _INSTALL).Response


class Explanations(LitAPI):  # type: ignore[misc]
    """
    What each worker does: it opens the bundle once and explains.

    Parameters
    ----------
    bundle : str or Path
        A bundle folder.
    settings : mapping, optional
        As `camrt.embedding.desk.Desk` takes them; where they name no providers, the device that LitServe gives the worker.
    max_batch_size, batch_timeout, api_path : optional
        LitServe's own: calls that are taken together at most, seconds that one waits for company, and the path.
    """

    def __init__(
        self,
        bundle: str | Path,
        settings: Mapping[str, Any] | None = None,
        *,
        max_batch_size: int = 32,
        batch_timeout: float = 0.002,
        api_path: str = "/explain",
    ) -> None:
        super().__init__(max_batch_size=max_batch_size, batch_timeout=batch_timeout, api_path=api_path)
        self._bundle, self._settings = bundle, dict(settings or {})

    def setup(self, device: str) -> None:
        """
        Open the bundle in a worker.

        Parameters
        ----------
        device : str
            ``"cpu"`` or ``"cuda:1"``.
        """
        kind, _, number = device.partition(":")
        own = [("CUDAExecutionProvider", {"device_id": int(number or 0)})] if kind == "cuda" else None
        self._desk = Desk(self._bundle, self._settings, providers=None if "providers" in self._settings else own)

    def decode_request(self, request: dict[str, Any]) -> Ask | CamrtError:
        """
        Read a call.

        Parameters
        ----------
        request : dict
            ``instances`` and ``parameters`` as KServe's V1 protocol and `camrt.server` have them.

        Returns
        -------
        Ask or CamrtError
            The call, or what is wrong with it: raised here, it would fail every call of the batch.
        """
        try:
            return read_instances(request, self._desk.served, self._desk.settings)
        except CamrtError as error:
            return error

    def batch(self, inputs: Sequence[Ask | CamrtError]) -> list[Ask | CamrtError]:
        """
        Take calls together.

        Parameters
        ----------
        inputs : sequence of (Ask or CamrtError)
            Of `decode_request`.

        Returns
        -------
        list of (Ask or CamrtError)
            The same.
        """
        return list(inputs)

    def predict(self, x: list[Ask | CamrtError]) -> list[Answer | BaseException]:
        """
        Answer calls.

        Parameters
        ----------
        x : list of (Ask or CamrtError)
            Of `batch`.

        Returns
        -------
        list of (Answer or BaseException)
            One a call.
        """
        return self._desk.answer(x)

    def unbatch(self, output: list[Answer | BaseException]) -> list[Answer | BaseException]:
        """
        Part the answers.

        Parameters
        ----------
        output : list of (Answer or BaseException)
            Of `predict`.

        Returns
        -------
        list of (Answer or BaseException)
            The same.
        """
        return output

    def encode_response(self, output: Answer | BaseException) -> Any:
        """
        Write an answer.

        Parameters
        ----------
        output : Answer or BaseException
            Of `unbatch`.

        Returns
        -------
        fastapi.responses.Response
            ``predictions`` and ``explanations`` as the V1 protocol has them, or ``error`` with its status: an error that
            is raised here would fail every call of the batch too.
        """
        status, headers = 200, {}
        try:
            if isinstance(output, BaseException):
                raise output
            content = write_explanations(output)
        except Exception as error:  # noqa: BLE001  as every status of the table
            content, status, headers = {"error": text_of(error)}, status_of(error), headers_of(error)
        return Response(write_json(content), status, headers, "application/json")
