"""The command line in processes of its own, forked from one that has imported it all.

Start-up costs more than the work of most tests; a fork costs milliseconds. The child
runs `main` and leaves with its exit code, as in a terminal: a traceback or a thread
that hangs shows. Only Python's own tidying up is left out, as it takes long.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import functools
import gc
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_HERE = Path(__file__).parent
_POLL_S = 0.002
_PATIENCE_S = 60.0
_DUMP_S = 5.0
# Threads do not survive a fork, and OpenBLAS starts its own when it is imported.
_ONE_THREAD = {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
}
_BARS = re.compile(
    r"extract|match|import features|import matches|verify pairs|map images|triangulate"
    r"|localize"
)


@dataclass(frozen=True)
class Result:
    """How a command ended (-N: by signal N), and what it said."""

    code: int
    text: str

    @property
    def error(self) -> str:
        """The one line of the error; fails if there is not exactly one."""
        assert "Traceback" not in self.text, self.text
        lines = self.text.replace("\r", "\n").rstrip("\n").split("\n")
        errors = [line for line in lines if line.startswith("error: ")]
        assert len(errors) == 1 and lines[-1] == errors[0], self.text
        return errors[0]

    def succeed(self) -> Result:
        """Return the result, or fail with what the command said."""
        assert self.code == 0, f"exit code {self.code}\n{self.text}"
        return self

    def fail(self, *parts: str) -> str:
        """Assert exit code 2 and one line of error that holds these parts."""
        assert self.code == 2, f"exit code {self.code}\n{self.text}"
        for part in parts:
            assert part in self.error, f"{part!r} is not in {self.error!r}"
        return self.error


class Running:
    """A command that may still be running."""

    def __init__(self, shell: Shell, pid: int, log: Path) -> None:
        self.pid = pid
        self._shell = shell
        self._log = log
        self._code: int | None = None

    @property
    def text(self) -> str:
        """What it has said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    @property
    def bar(self) -> str:
        """The progress bar that it showed last, which tells the stage."""
        found = _BARS.findall(self.text)
        return found[-1] if found else ""

    def is_running(self) -> bool:
        """Whether it has not ended."""
        if self._code is None:
            self._code = self._shell.ask(poll=self.pid)
        return self._code is None

    def signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.is_running():
            os.kill(self.pid, number)

    def wait(self, seconds: float = _PATIENCE_S) -> Result:
        """Wait for its end."""
        deadline = time.monotonic() + seconds
        while self.is_running():
            if time.monotonic() > deadline:
                waiting = _list_waiting(self.pid)
                self._kill_and_dump()
                raise AssertionError(
                    f"still running after {seconds} s\n{waiting}\n{self.text}"
                )
            time.sleep(_POLL_S)
        assert self._code is not None
        return Result(self._code, self.text)

    def _kill_and_dump(self) -> None:
        """Let it say on its way out where each of its threads was."""
        os.kill(self.pid, signal.SIGABRT)
        deadline = time.monotonic() + _DUMP_S
        while self.is_running() and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        self.signal(signal.SIGKILL)

    def wait_for_words(self) -> None:
        """Wait until it has said anything at all, or has ended."""
        while not self.text and self.is_running():
            time.sleep(_POLL_S)

    def wait_for(self, said: str, seconds: float = _PATIENCE_S) -> None:
        """Wait until it has said something; fails if it ends before."""
        deadline = time.monotonic() + seconds
        while said not in self.text:
            assert self.is_running() and time.monotonic() < deadline, self.text
            time.sleep(_POLL_S)


def _list_waiting(pid: int) -> str:
    """Say what the system knows of each thread: COLMAP's are not in Python's dump.

    State D is the disk's or the memory's doing, R that it is only slow, and all in
    `futex` that they wait for each other.
    """
    lines = []
    for task in sorted(Path(f"/proc/{pid}/task").glob("*")):
        with contextlib.suppress(OSError):
            name, channel = ((task / f).read_text().strip() for f in ("comm", "wchan"))
            state = (task / "stat").read_text().rpartition(")")[2].split()[0]
            lines.append(f"thread {task.name} {name}: {state}, {channel}")
    return "\n".join(lines)


def _without_tqdm() -> dict[str, str]:
    """Return the environment, but for what hides the bars that tests wait for."""
    return {k: v for k, v in os.environ.items() if not k.startswith("TQDM_")}


class Shell:
    """Starts commands."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="withstand-")
        self._count = 0
        self._server = subprocess.Popen(
            [sys.executable, "-c", "import withstand_shell; withstand_shell.serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**_without_tqdm(), **_ONE_THREAD, "PYTHONPATH": str(_HERE)},
            text=True,
        )
        atexit.register(self._close)
        assert self._server.stdout is not None
        assert self._server.stdout.readline() == "ready\n"  # or times would be off

    def _close(self) -> None:
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait()
        self._server.stdout.close()
        self._folder.cleanup()

    def ask(self, **request: object) -> int | None:
        """Hand a request to the server and return its answer."""
        assert self._server.stdin is not None and self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer: int | None = json.loads(self._server.stdout.readline())
        return answer

    def start(
        self,
        *arguments: object,
        max_file_bytes: int | None = None,
        commit_often: bool = False,
        folder: Path | None = None,
    ) -> Running:
        """Start `sfm-features ARGUMENTS`.

        max_file_bytes: no file can grow beyond it, as if the disk were full;
        commit_often: commit the HDF5 files after each image or pair;
        folder: where the command runs.
        """
        self._count += 1
        log = Path(self._folder.name) / f"{self._count}.log"
        log.touch()
        pid = self.ask(
            arguments=[str(a) for a in arguments],
            log=str(log),
            max_file_bytes=max_file_bytes,
            commit_often=commit_often,
            folder=None if folder is None else str(folder),
        )
        assert pid is not None
        return Running(self, pid, log)

    def run(self, *arguments: object, max_file_bytes: int | None = None) -> Result:
        """Run `sfm-features ARGUMENTS` to its end."""
        return self.start(*arguments, max_file_bytes=max_file_bytes).wait()


@functools.cache
def open_shell() -> Shell:
    """Return the one shell of this test run."""
    return Shell()


def leftovers(folder: Path, known: Sequence[str]) -> list[str]:
    """List the files below a folder other than known ones, stamps and the lock."""
    found = [path.relative_to(folder).as_posix() for path in folder.rglob("*")]
    return sorted(
        name
        for name in found
        if name not in [*known, ".lock"]
        and not re.fullmatch(r"\.[\w.]+\.(stamp|verified)", name)
    )


def serve() -> None:
    """Answer requests until standard input ends; runs in the server process."""
    # A shell's background job is started with Ctrl-C ignored, and so is a CI's.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _preload()
    gc.freeze()
    print("ready", flush=True)
    children: dict[int, int | None] = {}
    while line := sys.stdin.buffer.readline():
        request = json.loads(line)
        if "poll" in request:
            pid = request["poll"]
            if children[pid] is None:
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    children[pid] = os.waitstatus_to_exitcode(status)
            answer = children[pid]
        else:
            answer = os.fork()
            if answer == 0:
                _become_command(request)
            children[answer] = None
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _preload() -> None:
    import importlib

    for name in ("cli", "extractors.sift", "matchers.nearest", "report"):
        importlib.import_module(f"sfm_features.{name}")
    for name in ("jinja2", "plotly.offline", "torch"):
        importlib.import_module(name)


def _become_command(request: dict[str, object]) -> None:
    """Turn a fork of the server into the command; it does not return."""
    import resource

    from sfm_features import cli, store

    log = os.open(str(request["log"]), os.O_WRONLY | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    for target, source in ((0, null), (1, log), (2, log)):
        os.dup2(source, target)
    faulthandler.enable()
    if request["folder"] is not None:
        os.chdir(str(request["folder"]))
    if request["commit_often"]:
        for kind in (store.FeatureStore, store.MatchStore):
            kind._groups_per_commit = 1
    limit = request["max_file_bytes"]
    if limit is not None:
        assert isinstance(limit, int)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    arguments = request["arguments"]
    assert isinstance(arguments, list)
    sys.argv = ["sfm-features", *arguments]
    code = 1
    try:
        code = cli.main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    except BaseException:
        traceback.print_exc()
    threading._shutdown()  # waits for threads that hold up the exit
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
