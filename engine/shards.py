"""
The output folder of one evaluation: rows of a data set in shards that appear whole or not at all.

Rows of a range of pictures go in, shard by shard and from any number of processes; one table comes out. ::

    out/spec.json                                           what is evaluated, written first
    out/rows/shard=00012/method=gradcam/rows.parquet        hive layout: any Parquet reader sees shard and method
    out/rows/shard=00012/_shard.json                        the sizes of those files, and the pictures that were broken
    out/.parts/shard=00012.<random>/                        a shard being written
    out/.claims/shard-00012.lock                            who computes what, see `camrt.workers`

A shard is published by one ``rename(2)`` of its folder, so a reader, a killed writer and a second writer of the same shard
never leave a part of one: the first complete shard stands, and what it makes superfluous under ``.parts`` is removed. No
lock is needed for that. Files hold nothing of the time, the host or the process, so that an evaluation which was
interrupted equals, row for row, one that was not.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from .errors import InputError, OutputError
from .parquet import arrow, encoded, is_whole, read, schema_of, seal

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["SCHEMA", "Part", "Problem", "Rows", "Run"]

SCHEMA = "camrt.evaluation/1"  # raised when a file changes its meaning
SPEC, MANIFEST, ROWS, PARTS, CLAIMS = "spec.json", "_shard.json", "rows", ".parts", ".claims"

Rows: TypeAlias = Mapping[str, Mapping[str, Any]]  # method -> column -> values, one a picture
Problem: TypeAlias = Mapping[str, Any]  # at least "index"; "method" where it concerns one alone
_File: TypeAlias = tuple[int, str, Path]  # shard, method, where
Part: TypeAlias = tuple[int, int]  # this one of so many, from 0


@dataclass(frozen=True)
class Run:
    """
    An evaluation's folder, open; make it with `open` or `load`.

    It holds no file open and no lock, and pickles, so that workers on other machines can write to the same folder.

    Attributes
    ----------
    folder : pathlib.Path
        Where it is, absolute.
    spec : mapping
        What is evaluated, as it stands in ``spec.json``.
    total : int
        Pictures of the data set.
    shard_size : int
        Pictures of a shard; the last one may have fewer.
    """

    folder: Path
    spec: Mapping[str, Any]
    total: int
    shard_size: int

    @classmethod
    def open(cls, folder: str | os.PathLike[str], spec: Mapping[str, Any], total: int, shard_size: int) -> Run:
        """
        Begin an evaluation, or go on with one.

        Parameters
        ----------
        folder : str or path-like
            A folder of such an evaluation, an empty one, or one that does not exist yet.
        spec : mapping
            Everything that the rows depend on, as JSON can hold it. Resuming needs an equal one.
        total, shard_size : int
            Pictures in all, and of a shard; at least 1.

        Returns
        -------
        Run
            The folder, with every shard that is there checked to be complete.

        Raises
        ------
        OutputError
            If the folder holds another evaluation or something else, cannot be written, or a shard is damaged.
        InputError
            If there is no picture, or a shard of none.

        Notes
        -----
        Cost: one look at the size of each file there is.
        """
        if total < 1 or shard_size < 1:
            raise InputError(
                f"an evaluation has a picture and a shard one at least; got {total} pictures, {shard_size} a shard: "
                "give a data set that is not empty and a shard size of 1 or more"
            )
        place = Path(os.path.abspath(folder))
        content = {"schema": SCHEMA, "total": total, "shard_size": shard_size, "spec": dict(spec)}
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        _create(place, text.encode())
        run = cls._read_spec(place)
        told = _differences({**run.spec, "total": run.total, "shard_size": run.shard_size}, {**spec, **_sizes(content)})
        if told:
            raise OutputError(
                f"the folder {str(place)!r} holds another evaluation: {told}; give another folder, "
                f"or the settings that its {SPEC} names"
            )
        run._files(run.done())
        run._sweep(run.done())
        if run.missing():
            run._try_to_write()
        return run

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Run:
        """
        Open the folder of an evaluation as it is, to read it.

        Parameters
        ----------
        folder : str or path-like
            Where it is.

        Returns
        -------
        Run
            The folder, with every shard that is there checked to be complete.

        Raises
        ------
        OutputError
            If there is none, or it is damaged.
        """
        run = cls._read_spec(Path(os.path.abspath(folder)))
        run._files(run.done())
        return run

    @classmethod
    def _read_spec(cls, folder: Path) -> Run:
        """Read what a folder says it evaluates."""
        try:
            content = json.loads((folder / SPEC).read_bytes())
            if content["schema"] != SCHEMA:
                raise ValueError(f"its schema is {content['schema']!r}, not {SCHEMA!r}")
            return cls(folder, dict(content["spec"]), int(content["total"]), int(content["shard_size"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise OutputError(
                f"{str(folder)!r} is no folder of an evaluation: {_reason(error)} ({SPEC}); give one that `evaluate` wrote"
            ) from error

    @cached_property
    def ranges(self) -> tuple[range, ...]:
        """The pictures of each shard."""
        return tuple(
            range(start, min(start + self.shard_size, self.total)) for start in range(0, self.total, self.shard_size)
        )

    def is_done(self, shard: int) -> bool:
        """
        Tell whether a shard is complete.

        Parameters
        ----------
        shard : int
            Its number.

        Returns
        -------
        bool
            True once anybody has published it.
        """
        return self._place(shard).is_dir()

    def done(self) -> list[int]:
        """
        List the shards that are complete.

        Returns
        -------
        list of int
            Their numbers, ascending.
        """
        names = self._names()
        return [shard for shard in range(len(self.ranges)) if self._place(shard).name in names]

    def missing(self, part: Part | None = None) -> list[int]:
        """
        List the shards that are not complete.

        Parameters
        ----------
        part : (int, int), optional
            Of ``(i, n)``, only every n-th shard from the i-th on, ``0 <= i < n``: a share that needs no lock.

        Returns
        -------
        list of int
            Their numbers, ascending.

        Raises
        ------
        InputError
            If there is no such part.
        """
        first, step = part or (0, 1)
        if not 0 <= first < step:
            raise InputError(f"a part is (i, n) with 0 <= i < n, for example (0, 4); got ({first}, {step})")
        names = self._names()
        return [shard for shard in range(first, len(self.ranges), step) if self._place(shard).name not in names]

    def pictures_done(self) -> int:
        """
        Count the pictures of complete shards, whoever computed them.

        Returns
        -------
        int
            At most `total`.
        """
        return sum(len(self.ranges[shard]) for shard in self.done())

    def write(self, shard: int, rows: Rows, problems: Sequence[Problem] = ()) -> bool:
        """
        Publish a shard.

        Parameters
        ----------
        shard : int
            Its number.
        rows : mapping of str to mapping of str to array
            For each method, columns: a column ``index``, and arrays (N,) of numbers or text, curves (N, P), or lists. A
            value that is missing is masked (`numpy.ma`) or None. Floats are stored as float64, curves as lists of float32.
        problems : sequence of mapping
            Pictures without rows: ``index`` and whatever explains it, with ``method`` where other methods have the row.

        Returns
        -------
        bool
            Whether these rows stand; False where the shard was there already, which is left as it is.

        Raises
        ------
        OutputError
            If it cannot be written, for example because the disk is full; other shards are untouched and nothing of this
            one is left.
        NumericError
            If a number is NaN or infinite.
        InputError
            If a picture of the shard has neither row nor problem, or columns do not fit one another.
        """
        place = self._place(shard)
        if place.is_dir():
            return False
        broken = sorted((dict(problem) for problem in problems), key=lambda p: (p["index"], str(p.get("method", ""))))
        files = {}
        for method, columns in rows.items():
            indices, data = encoded(method, columns)
            _check_pictures(self.ranges[shard], method, indices, broken)
            if indices:
                files[method] = data
        if not files:
            _check_pictures(self.ranges[shard], "the shard", [], broken)
        manifest = {"files": {method: seal(files[method]) for method in sorted(files)}, "problems": broken}
        part = self.folder / PARTS / f"{place.name}.{secrets.token_hex(8)}"
        try:
            part.mkdir(parents=True)
            for method, data in files.items():
                (part / _method_folder(method)).mkdir()
                (part / _method_folder(method) / "rows.parquet").write_bytes(data)
            (part / MANIFEST).write_bytes((json.dumps(manifest, indent=1, allow_nan=False) + "\n").encode())
            place.parent.mkdir(exist_ok=True)
            os.rename(part, place)
        except OSError as error:
            if place.is_dir():  # somebody else published it meanwhile
                return False
            raise OutputError(
                f"cannot write shard {shard} in {str(self.folder)!r}: {_reason(error)}; the shards before it are complete: "
                "make room or let the folder be written, and run the same again"
            ) from error
        finally:
            shutil.rmtree(part, ignore_errors=True)
        self._sweep([shard])
        return True

    @property
    def methods(self) -> list[str]:
        """The methods that have rows, in alphabetical order."""
        return sorted({method for _shard, method, _path in self._files(self.done())})

    def schema(self, method: str | None = None) -> pa.Schema:
        """
        Return the columns there are.

        Parameters
        ----------
        method : str, optional
            Only those of this method.

        Returns
        -------
        pyarrow.Schema
            Names and types, without ``method`` and ``shard``, which the folders' names hold.
        """
        return self._schema(self._files(self.done(), method))

    def table(
        self,
        columns: Iterable[str] | None = None,
        method: str | None = None,
        shards: Collection[int] | None = None,
    ) -> pa.Table:
        """
        Read the rows.

        Parameters
        ----------
        columns : iterable of str, optional
            Those wanted besides ``index`` and ``method``; all where None.
        method : str, optional
            Only this method's.
        shards : collection of int, optional
            Only these shards'; all complete ones where None.

        Returns
        -------
        pyarrow.Table
            ``index``, ``method`` and the columns, sorted by index, then method. A column that a method lacks is null there.

        Raises
        ------
        InputError
            If a column does not exist.
        OutputError
            If a file is damaged: the message names it. Checksums of every page are verified.
        """
        pa = arrow()
        files = self._files(self.done() if shards is None else shards, method)
        if not files:
            return pa.table({"index": pa.array([], pa.int64()), "method": pa.array([], pa.string())})
        known = self._schema(files).names
        wanted = [name for name in (known if columns is None else columns) if name not in ("index", "method")]
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise InputError(f"the rows have no column {unknown[0]!r}; choose from {', '.join(known)}")
        order = list(dict.fromkeys(["index", *wanted]))
        parts = []
        for file in files:
            part = self._read(file, order)
            parts.append(part.append_column("method", pa.repeat(file[1], len(part))))
        table = pa.concat_tables(parts, promote_options="permissive").select(["index", "method", *order[1:]])
        return table.sort_by([("index", "ascending"), ("method", "ascending")]).combine_chunks()

    def problems(self) -> list[dict[str, Any]]:
        """
        List what went wrong with single pictures.

        Returns
        -------
        list of dict
            As they were given to `write`, by index.
        """
        return [problem for shard in self.done() for problem in self._manifest(shard)["problems"]]

    def claim_file(self, shard: int) -> Path:
        """
        Name the file that is locked while a shard is computed.

        Parameters
        ----------
        shard : int
            Its number.

        Returns
        -------
        pathlib.Path
            The file; it need not exist.
        """
        return self.folder / CLAIMS / f"shard-{shard:05d}.lock"

    def _place(self, shard: int) -> Path:
        """Return the folder of a complete shard."""
        return self.folder / ROWS / f"shard={shard:05d}"

    def _names(self) -> set[str]:
        """Return the names of the complete shards' folders."""
        try:
            return set(os.listdir(self.folder / ROWS))
        except FileNotFoundError:
            return set()

    def _manifest(self, shard: int) -> dict[str, Any]:
        """Read what a shard says it holds."""
        path = self._place(shard) / MANIFEST
        try:
            manifest: dict[str, Any] = json.loads(path.read_bytes())
            return {"files": dict(manifest["files"]), "problems": list(manifest["problems"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise self._damaged((shard, "", path), error) from error

    def _files(self, shards: Iterable[int], only: str | None = None) -> list[_File]:
        """Return shard, method and path of every file, or of one method's; each is as it was written."""
        found = []
        for shard in sorted(shards):
            for method, facts in self._manifest(shard)["files"].items():
                if only not in (None, method):
                    continue
                file = (shard, method, self._place(shard) / _method_folder(method) / "rows.parquet")
                try:
                    if not is_whole(file[2], facts):
                        raise ValueError("it is not what was written, or not all of it")
                except (OSError, ValueError, KeyError, TypeError) as error:
                    raise self._damaged(file, error) from error
                found.append(file)
        return found

    def _damaged(self, file: _File, error: Exception) -> OutputError:
        """Say which file is damaged, and what to delete."""
        return OutputError(
            f"{str(file[2])!r} is damaged: {_reason(error)}; delete the folder {str(self._place(file[0]))!r} and run the "
            "same again: it alone is computed once more"
        )

    def _schema(self, files: Sequence[_File]) -> pa.Schema:
        """Return the columns of all methods together, from one file of each; its others have the same ones."""
        schemas = []
        for file in {file[1]: file for file in reversed(files)}.values():
            try:
                schemas.append(schema_of(file[2]))
            except (OSError, ValueError) as error:
                raise self._damaged(file, error) from error
        return arrow().unify_schemas(schemas, promote_options="permissive")

    def _read(self, file: _File, columns: Sequence[str]) -> pa.Table:
        """Read one file."""
        try:
            return read(file[2], columns)
        except (OSError, ValueError) as error:  # pyarrow's ArrowInvalid is a ValueError
            raise self._damaged(file, error) from error

    def _sweep(self, shards: Iterable[int]) -> None:
        """Remove what was left behind of complete shards; who still writes one of them finds it complete."""
        complete = {self._place(shard).name for shard in shards} | {SPEC}
        with contextlib.suppress(OSError):
            for name in os.listdir(self.folder / PARTS):
                if name.rpartition(".")[0] in complete:
                    shutil.rmtree(self.folder / PARTS / name, ignore_errors=True)

    def _try_to_write(self) -> None:
        """Fail now, not after the first shard has been computed."""
        probe = self.folder / PARTS / f"{SPEC}.{secrets.token_hex(8)}"
        try:
            probe.mkdir(parents=True)
            probe.rmdir()
        except FileNotFoundError:  # swept by another process that has just opened the folder
            return
        except OSError as error:
            raise _unwritable(self.folder, error) from error


def _create(folder: Path, content: bytes) -> None:
    """Write the spec of a new folder, whole; the first of several processes wins."""
    spec = folder / SPEC
    part = folder / PARTS / f"{SPEC}.{secrets.token_hex(8)}"
    try:
        if spec.is_file():
            return
        if folder.exists() and set(os.listdir(folder)) - {PARTS, CLAIMS, SPEC}:
            raise OutputError(
                f"the folder {str(folder)!r} is not empty and no evaluation: it has no {SPEC}; give an empty or a new folder"
            )
        part.mkdir(parents=True)
        (part / SPEC).write_bytes(content)
        try:
            os.link(part / SPEC, spec)  # unlike a rename it never replaces
        except FileExistsError:
            return
        except OSError:  # no links on this file system
            os.replace(part / SPEC, spec)
    except OSError as error:
        if not spec.is_file():
            raise _unwritable(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _unwritable(folder: Path, error: OSError) -> OutputError:
    """Say that a folder cannot be written."""
    return OutputError(
        f"cannot write in {str(folder)!r}: {_reason(error)}; give a folder that exists or can be made, may be written, "
        "and has room"
    )


def _reason(error: BaseException) -> str:
    """Return what an error says, on one line."""
    text = getattr(error, "strerror", None) or (f"no {error}" if isinstance(error, KeyError) else str(error))
    return " ".join(str(text).split())


def _sizes(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the two numbers that stand beside the spec."""
    return {name: content[name] for name in ("total", "shard_size")}


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Return the values inside nested mappings and lists of mappings, by dotted name."""
    if isinstance(value, list) and any(isinstance(one, dict) for one in value):
        value = {str(number): one for number, one in enumerate(value)}
    if not isinstance(value, dict) or not value:
        return {name: value}
    found: dict[str, Any] = {}
    for key, one in value.items():
        found |= _leaves(one, f"{name}.{key}" if name else str(key))
    return found


def _differences(there: Mapping[str, Any], here: Mapping[str, Any], most: int = 4) -> str:
    """Name what differs between two specs; empty where they are equal."""
    old, new = _leaves(dict(there)), _leaves(json.loads(json.dumps(here, allow_nan=False)))
    keys = [key for key in dict.fromkeys([*old, *new]) if key not in old or key not in new or old[key] != new[key]]

    def shown(values: Mapping[str, Any], key: str) -> str:
        text = json.dumps(values[key]) if key in values else "missing"
        return text if len(text) <= 60 else f"{text[:57]}..."

    told = [f"{key} is {shown(old, key)} there and {shown(new, key)} here" for key in keys[:most]]
    more = [f"and {len(keys) - most} more differ ({', '.join(keys[most:])})"] if len(keys) > most else []
    return ", ".join(told + more)


def _method_folder(method: str) -> str:
    """Return a method's folder name; the hive layout percent-encodes what a path cannot hold."""
    return f"method={quote(method, safe='')}"


def _check_pictures(pictures: range, method: str, indices: Sequence[int], problems: Sequence[Problem]) -> None:
    """Refuse rows that leave a picture out, name one twice, or hold one of another shard."""
    excused = {problem["index"] for problem in problems if problem.get("method", method) == method}
    if sorted({*indices, *excused}) != list(pictures) or len(set(indices)) < len(indices) or excused & {*indices}:
        raise InputError(
            f"each of the pictures {pictures.start} to {pictures.stop - 1} has one row or one problem; {method} has "
            f"{len(indices)} rows and {len(excused)} problems: give one of the two for each picture"
        )
