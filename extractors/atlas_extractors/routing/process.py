"""The parent's end of a worker: start it fresh, ask, and turn its end into a sentence."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from atlas_extractors.routing.channel import receive, send, unpack
from atlas_extractors.routing.worker import Job
from atlas_schema.errors import AtlasError

Reply = tuple[dict[str, Any], list[tuple[str, pa.Table]]]
TAIL_LINES = 12


class WorkerProcess:
    """A context manager around one worker process. `hello` holds its first reply."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.hello: dict[str, Any] = {}
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(part for part in sys.path if part),
            "HF_HUB_OFFLINE": "1",
            "TRANSFORMERS_VERBOSITY": "error",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        # A session of its own: Ctrl-C reaches the parent, which ends the worker after its last commit.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "atlas_extractors.routing.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=environment, start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> Self:
        try:
            self.hello, _ = self.call(self.job.to_json())
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()

    def call(self, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> Reply:
        """One request and its reply, tables unpacked. Raises as `take` does."""
        self.ask(header, blobs)
        return self.take()

    def ask(self, header: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
        """Send a request; the worker starts on it. Its reply is taken before the next request is sent."""
        if self._process.stdin is None:
            raise RuntimeError("the worker has no pipes")
        with contextlib.suppress(BrokenPipeError):  # the reply, or its absence, says why
            send(self._process.stdin, header, blobs)

    def take(self) -> Reply:
        """The reply to the request that was sent.

        Raises:
            AtlasError: the worker refused (its own message), or ended without a reply.
        """
        if self._process.stdout is None:
            raise RuntimeError("the worker has no pipes")
        reply = receive(self._process.stdout)
        if reply is None:
            raise self._ended()
        if "error" in reply.header:
            parts = reply.header["error"]
            raise AtlasError(
                parts["what"], where=parts["where"] or str(self.job.model), expected=parts["expected"],
                found=parts["found"], todo=parts["todo"],
            )  # fmt: skip
        names = reply.header.get("tables", [])
        return reply.header, [(name, unpack(blob)) for name, blob in zip(names, reply.blobs, strict=True)]

    def _ended(self) -> AtlasError:
        code = self._process.wait()
        self._log.seek(0)
        tail = self._log.read().decode("utf-8", "replace").strip().splitlines()[-TAIL_LINES:]
        killed = " (killed: often too little memory)" if code == -9 else ""
        return AtlasError(
            "the worker ended without an answer; what was committed before is kept", where=f"run {self.job.run_id}",
            expected="a reply", found="\n             ".join([f"exit code {code}{killed}", *tail]),
            todo="run the same command again to resume; a smaller --batch-size needs less memory but is another study's"
            " fingerprint",
        )  # fmt: skip

    def _end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # unsent bytes that nobody reads any more
                    stream.close()
