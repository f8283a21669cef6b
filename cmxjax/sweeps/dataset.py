"""The folder of a sweep: Parquet files, each whole or not there, and what they are of.

    FOLDER/sweep.json               what the rows are of, and when finished what came out
    FOLDER/part-000000.parquet ...  the rows
    FOLDER/.working/                parts of a sweep whose choice of rows waits for all

A part is written beside and renamed, so that a sweep that was killed goes on with the
first part that isn't there. The rows that `top` and `pareto` choose are written once all
parts are there.
"""

import errno
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..specs.errors import SpecError
from ..specs.output import write_text
from .origin import differences, fingerprint

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet
else:
    pa = parquet = object  # only what writes and reads imports it

MANIFEST = "sweep.json"
WORKING = ".working"
KEY = b"cmxjax"
OPTION = "--out"


def arrow():
    """The packages that write and read Parquet. Raises `SpecError` without them."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        said = "sweeps need pyarrow: pip install 'cmxjax[sweep]'"
        raise SpecError([said]) from None
    return pyarrow, parquet


class Folder:
    """A sweep's folder.

    Args:
        chooses: which rows are kept is known only when all parts are there.
    """

    def __init__(self, path: str | Path, origin: dict[str, object], chooses: bool):
        self.path, self.origin, self.chooses = Path(path), origin, chooses
        self.working = self.path / WORKING
        self.fingerprint = fingerprint(origin)

    def part(self, number: int) -> Path:
        """Where a part is written."""
        return (self.working if self.chooses else self.path) / part_name(number)

    @contextmanager
    def opened(self, resume: bool) -> Iterator[dict[str, object]]:
        """Hold the folder, made ready for parts.

        Yields:
            The manifest as it was found, with `finished` if it was.

        Raises:
            SpecError: it can't be written, holds something else, another sweep, or this
                one without `resume`, or another process writes to it.
        """
        self._refuse_strangers(resume)
        with writing(self.path):
            self.working.mkdir(parents=True, exist_ok=True)
            held = (self.working / "lock").open("w")
        found = {}
        try:
            _lock(held, self.path)
            found = self._manifest()
            if found:
                self._check_same(found)
            else:
                self.write_manifest({})
            for left in self.working.glob("tmp-*"):
                left.unlink(missing_ok=True)
            yield found
        finally:
            held.close()
            if "finished" in found:
                shutil.rmtree(self.working, ignore_errors=True)

    def _refuse_strangers(self, resume: bool) -> None:
        """Raises `SpecError` for a folder that holds what this sweep didn't write."""
        path = self.path
        if path.exists() and not path.is_dir():
            raise SpecError([f"{OPTION} {path}: not a folder; use another path"])
        if (path / MANIFEST).exists():
            if not resume:
                said = "holds a sweep; add --resume to go on with it, or use another"
                raise SpecError([f"{OPTION} {path}: {said} folder"])
            return
        if path.is_dir() and any(p.name != WORKING for p in path.iterdir()):
            said = "holds other files; use a new folder"
            raise SpecError([f"{OPTION} {path}: {said}"])

    def _manifest(self) -> dict:
        file = self.path / MANIFEST
        if not file.exists():
            return {}
        try:
            found = json.loads(file.read_text("utf-8"))
            assert isinstance(found, dict)
            return found
        except (OSError, ValueError, AssertionError):
            said = "can't be read; use another folder"
            raise SpecError([f"{OPTION} {file}: {said}"]) from None

    def _check_same(self, found: dict) -> None:
        if found.get("fingerprint") == self.fingerprint:
            return
        mine = json.loads(json.dumps(self.origin, default=str))
        what = ", ".join(differences(found.get("origin", {}), mine)) or "something"
        said = f"holds rows made before {what} changed; use another folder"
        raise SpecError([f"{OPTION} {self.path}: {said}, or change it back"])

    def write_manifest(self, more: Mapping[str, object]) -> None:
        data = {"fingerprint": self.fingerprint, "origin": self.origin, **more}
        text = json.dumps(data, indent=1, default=str)
        write_text(self.path / MANIFEST, text + "\n", OPTION)

    def done(self) -> dict[int, dict]:
        """What parts that are there say of themselves; broken ones are removed."""
        found = {}
        for number in range(int(self.origin["parts"])):  # pyright: ignore
            path = self.part(number)
            if not path.exists():
                continue
            try:
                found[number] = self.told(path)
            except ValueError:
                path.unlink(missing_ok=True)
        return found

    def told(self, path: Path) -> dict:
        """What a file of rows says of itself.

        Raises:
            ValueError: it is broken, or of another sweep.
        """
        _, parquet = arrow()
        try:
            told = json.loads(parquet.read_metadata(path).metadata[KEY])
            part, name = told["part"], told["fingerprint"]
        except (OSError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: broken") from error
        if name != self.fingerprint:
            raise ValueError(f"{path}: of another sweep")
        return part

    def write_part(self, number: int, table: "pa.Table", told: dict) -> None:
        """Write a part whole or not at all. Raises `SpecError` if it can't be."""
        self.write(self.part(number), table, told)

    def write(self, target: Path, table: "pa.Table", told: dict) -> None:
        """Write a file whole or not at all. Raises `SpecError` if it can't be."""
        _, parquet = arrow()
        data = {"fingerprint": self.fingerprint, "origin": self.origin, "part": told}
        known = {KEY: json.dumps(data, default=str).encode()}
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), **known})
        part = self.working / f"tmp-{secrets.token_hex(8)}"
        with writing(self.path):
            try:
                with part.open("wb") as file:
                    few = [name for name in table.schema.names if "." in name]
                    parquet.write_table(
                        table, file, row_group_size=GROUP, use_dictionary=few
                    )
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(part, target)
            finally:
                part.unlink(missing_ok=True)

    def discard(self) -> None:
        """Remove what was written: there is not one row."""
        for file in (*self.path.glob("part-*.parquet"), self.path / MANIFEST):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.working, ignore_errors=True)
        with suppress(OSError):
            self.path.rmdir()

    def finish(self, more: Mapping[str, object]) -> None:
        """Note that all rows are there, and remove what was only needed until then."""
        self.write_manifest({"finished": more})
        shutil.rmtree(self.working, ignore_errors=True)


GROUP = 2**17
"""Rows of a row group, which readers skip or read as one."""


def part_name(number: int) -> str:
    """Name of a part's file."""
    return f"part-{number:06d}.parquet"


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in one line why a folder can't be written to."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        remedy = "make room and go on with --resume" if full else "use another path"
        why = error.strerror or str(error)
        said = f"can't be written ({why}); {remedy}"
        raise SpecError([f"{OPTION} {path}: {said}"]) from None


def _lock(file, path: Path) -> None:
    """Hold a folder for this process until the file is closed."""
    try:
        import fcntl
    except ImportError:  # there are no such locks on this system
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            return  # a file system without locks
        said = "another process writes this sweep; wait for it, or use another folder"
        raise SpecError([f"{OPTION} {path}: {said}"]) from None
