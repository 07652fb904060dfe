"""
Explanations on Ray Serve: replicas on as many machines as the cluster has, behind one address and one handle.

On one machine, from Python::

    from pathlib import Path
    from ray import serve
    from camrt.embedding.ray_serve import app

    handle = serve.run(app({"bundle": "bundle", "replicas": 2}))
    picture = Path("cat.png").read_bytes()
    explanation = handle.explain.remote(picture, target=3, method="layercam").result()
    explanation.overlay().save("overlay.png")
    print(explanation)

The handle gives whole `camrt.Explanation` objects. HTTP takes a picture as the body, and everything else in the query::

    curl -T cat.png 'http://127.0.0.1:8000/?target=3&method=layercam'
    curl -T cat.png -H 'Accept: application/x-npy' http://127.0.0.1:8000/ -o heatmaps.npy

On a cluster, ``serve deploy`` takes a file with ``import_path: camrt.embedding.ray_serve:app`` and the same words as
``args``; ``gpus: 1`` and ``providers: cuda`` give each replica a GPU. The bundle is a folder that every machine sees under
the same path; where there is none, `put_bundle` puts it into Ray's object store.

Each replica opens the bundle once and hands its calls to the server's scheduler, which batches by work what Serve's own
batching would by number: cheap calls share runs and never wait behind a dear one. A replica that dies is started again
by Serve. A call that is cancelled, or whose client leaves, ends.

Needs ``camrt[cpu,serve]`` or ``camrt[gpu,serve]``, and ``ray[serve]``, on every machine.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import CamrtError, InputError
from ..explanation import Explanation
from ..server.documents import write_json
from ..server.faults import TooLargeError, headers_of, status_of, text_of
from ..server.instances import write_explanations
from .desk import Desk, stack

__all__ = ["Explanations", "app", "put_bundle"]

MAX_CALLS = 128  # at a replica; the scheduler refuses earlier where they are dear
_INSTALL = "pip install 'ray[serve]'"

ray = stack("ray", _INSTALL)
serve = stack("ray.serve", _INSTALL)
Response = stack("starlette.responses", _INSTALL).Response


def app(args: Mapping[str, Any]) -> Any:
    """
    Build the application, for ``serve.run``, ``serve run`` and ``serve deploy``.

    Parameters
    ----------
    args : mapping
        ``bundle``: a folder, or what `put_bundle` returned. ``replicas`` (default 1). ``cpus`` and ``gpus`` that each
        occupies (1 and 0; a share of a GPU is allowed). Any other word is a setting, as `camrt.embedding.desk.Desk`
        takes them. Numbers may be texts.

    Returns
    -------
    ray.serve.Application
        Its ingress is `Explanations`.

    Raises
    ------
    InputError
        If ``bundle`` is missing.
    """
    settings = dict(args)
    bundle = settings.pop("bundle", None)
    if bundle is None:
        raise InputError("want bundle, a folder or what put_bundle returned; got none")
    replicas = int(settings.pop("replicas", 1))
    occupied = {"num_cpus": float(settings.pop("cpus", 1)), "num_gpus": float(settings.pop("gpus", 0))}
    deployed = serve.deployment(
        num_replicas=replicas, ray_actor_options=occupied, max_ongoing_requests=MAX_CALLS, max_queued_requests=MAX_CALLS
    )(Explanations)
    return deployed.bind(bundle, settings)


def put_bundle(folder: str | Path) -> Any:
    """
    Put a bundle into Ray's object store, from where every replica fetches it.

    Parameters
    ----------
    folder : str or Path
        The bundle.

    Returns
    -------
    list of ray.ObjectRef
        One reference, in a list, so that it is handed on and not resolved.

    Notes
    -----
    The object lives as long as the process that puts it, which therefore stays as long as replicas may start.
    """
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        tar.add(folder, arcname=".")
    return [ray.put(packed.getvalue())]


class Explanations:
    """
    What each replica does: it opens the bundle once and explains.

    Parameters
    ----------
    bundle : str, Path or list of ray.ObjectRef
        A folder, or what `put_bundle` returned.
    settings : mapping
        As `camrt.embedding.desk.Desk` takes them.
    """

    def __init__(self, bundle: Any, settings: Mapping[str, Any]) -> None:
        if isinstance(bundle, list):
            self._folder = tempfile.TemporaryDirectory()  # for good: programs are opened when they are first needed
            with tarfile.open(fileobj=io.BytesIO(ray.get(bundle[0]))) as tar:
                tar.extractall(self._folder.name, filter="data")
            bundle = self._folder.name
        self._desk = Desk(bundle, settings)

    async def explain(self, images: Any, *, target: Any = None, **parameters: Any) -> Explanation:
        """
        Explain; called through a handle.

        Parameters
        ----------
        images : bytes, list of bytes or ndarray
            As `camrt.embedding.desk.Desk.read` takes them.
        target : optional
            As there.
        **parameters : object
            As there.

        Returns
        -------
        Explanation
            Of all images.

        Raises
        ------
        CamrtError
            What is wrong with the call; Ray hands it on as itself.
        """
        answer = await self._desk.wait(self._desk.read(images, target, parameters))
        assert answer.explanation is not None  # what `read` asks for
        return answer.explanation

    async def __call__(self, request: Any) -> Any:
        """
        Explain a picture that is the body of an HTTP request.

        Parameters
        ----------
        request : starlette.requests.Request
            One encoded picture; the query holds parameters, ``target`` as often as there are targets.

        Returns
        -------
        starlette.responses.Response
            JSON as KServe's V1 has explanations, or the heatmaps (T, H, W) as ``.npy`` where ``Accept`` says
            ``application/x-npy``; ``{"error": "..."}`` with its status.
        """
        try:
            body, limit = await request.body(), self._desk.settings.max_body
            if len(body) > limit:
                raise TooLargeError(f"a picture of {len(body)} bytes was sent; {limit} are allowed")
            targets = request.query_params.getlist("target")
            ask = self._desk.read(body, [targets] if targets else None, dict(request.query_params))
            answer = await self._desk.wait(ask)
            if request.headers.get("accept") == "application/x-npy" and answer.explanation is not None:
                file = io.BytesIO()
                np.save(file, answer.explanation.heatmaps[0])
                return Response(file.getvalue(), media_type="application/x-npy")
            return Response(write_json(write_explanations(answer)), media_type="application/json")
        except CamrtError as error:
            content = write_json({"error": text_of(error)})
            return Response(content, status_of(error), headers_of(error), "application/json")
