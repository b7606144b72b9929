"""A process that has imported PyTorch and waits: commands begin as its children.

Starting Python and importing PyTorch costs seconds, and the tests run hundreds of commands. A nursery
imports once and forks for each: the command is a process of its own, with its own environment, folder,
files and exit code. What depends on the very start of an interpreter (imports that must not happen,
warnings while importing) is tested by processes of its own elsewhere.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

#: What an interpreter reads as it starts: with other values of these a command needs one of its own.
EARLY = ("PYTHON", "OMP_", "MKL_", "OPENBLAS_", "LD_")


class Nursery:
    """The waiting process, from the side of a test."""

    def __init__(self, environment: dict[str, str]) -> None:
        ours, theirs = socket.socketpair()
        self.early = early(environment)
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(theirs.fileno())],
            env={**environment, "OPENBLAS_NUM_THREADS": "1"},
            pass_fds=[theirs.fileno()],
        )
        theirs.close()
        self.lines = ours.makefile("rw", encoding="utf-8")
        atexit.register(self.close)

    def run(
        self, words: list[str], environment: dict[str, str], folder: Path, timeout: float
    ) -> tuple[int, str, str]:
        """`python -m faussaire words...` to its end: exit code, standard output, standard error."""
        with tempfile.TemporaryDirectory() as place:
            out, err = Path(place) / "out", Path(place) / "err"
            self._say({"words": words, "env": environment, "cwd": str(folder), "out": str(out),
                       "err": str(err), "timeout": timeout})  # fmt: skip
            answer = self.lines.readline()
            assert answer, "the nursery died"
            return json.loads(answer), *(path.read_text(encoding="utf-8") for path in (out, err))

    def _say(self, request: dict[str, object]) -> None:
        self.lines.write(json.dumps(request) + "\n")
        self.lines.flush()

    def close(self) -> None:
        """End it, and with it what it waits for."""
        self.lines.close()
        self.process.wait()


def early(environment: dict[str, str]) -> dict[str, str]:
    """The part of an environment that an interpreter reads as it starts."""
    return {key: value for key, value in environment.items() if key.startswith(EARLY)}


def wait(child: int, seconds: float) -> int:
    """The exit code of a child, as subprocess gives it; one that takes too long is killed."""

    def late(*_: object) -> None:
        os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def serve(lines: socket.SocketIO) -> dict[str, object] | None:
    """Fork for each request; returns a request in the child, None when nobody asks any more."""
    for line in lines:
        request = json.loads(line)
        child = os.fork()
        if not child:
            return request
        code = wait(child, request["timeout"])
        lines.write((json.dumps(code) + "\n").encode())
    return None


def become(request: dict[str, object]) -> None:
    """Take the environment, folder, files and words of a request."""
    os.environ.clear()
    os.environ.update(request["env"])  # type: ignore[arg-type]
    os.chdir(str(request["cwd"]))
    for number, name in ((1, "out"), (2, "err")):
        opened = os.open(str(request[name]), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    sys.argv = ["faussaire", *request["words"]]  # type: ignore[misc]


def main() -> int:
    with (
        socket.socket(fileno=int(sys.argv[1])) as asked,
        asked.makefile("rwb", buffering=0) as lines,
    ):
        # What nearly every command needs.
        import faussaire.evaluation
        import faussaire.families.dcgan
        import faussaire.model
        import faussaire.training  # noqa: F401

        request = serve(lines)
    if request is None:
        return 0
    become(request)
    from faussaire.cli import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
