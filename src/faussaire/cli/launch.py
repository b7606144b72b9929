"""Several processes on one machine, without torchrun: start them, watch them, end them together."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

from faussaire.core.errors import UserError

_PATIENCE = 20.0


def together(words: list[str], count: int) -> int:
    """Run `faussaire words...` in `count` processes that find each other; returns the exit code.

    Where one dies, the others are ended too, with a sentence, after a moment in which they may say
    something themselves.
    """
    if count > 64:
        raise UserError(f"{count} processes are more than one machine runs.", "Use torchrun.")
    processes = [
        _start(words, rank, count, port) for port in [_free_port()] for rank in range(count)
    ]

    def pass_on(number: int, frame: FrameType | None) -> None:
        for process in processes:
            if process.poll() is None:
                process.send_signal(number)

    # Ctrl-C reaches the whole group by itself; SIGTERM comes to this process alone.
    before = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on),
        signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None),
    }
    try:
        return _watch(processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
                process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(words: list[str], rank: int, count: int, port: int) -> subprocess.Popen[bytes]:
    environment = {
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "FAUSSAIRE_LAUNCHER": str(os.getpid()),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    return subprocess.Popen([sys.executable, "-m", "faussaire", *words], env=environment)


def _watch(processes: list[subprocess.Popen[bytes]]) -> int:
    """Wait for all; once one has failed, the others have `_PATIENCE` seconds."""
    failed_at = None
    while any(process.poll() is None for process in processes):
        codes = [process.poll() for process in processes]
        failed = [(rank, code) for rank, code in enumerate(codes) if code not in (None, 0)]
        if failed and failed_at is None:
            failed_at = time.monotonic()
        if failed_at is not None and time.monotonic() - failed_at > _PATIENCE:
            break
        time.sleep(0.05)
    codes = [process.poll() for process in processes]
    killed = [(rank, -code) for rank, code in enumerate(codes) if code is not None and code < 0]
    if killed:
        rank, number = killed[0]
        raise UserError(
            f"Process {rank} of {len(processes)} was killed ({signal.Signals(number).name}), and "
            "the others were ended with it.",
            "If the machine ran out of memory, lower --batch or --processes. "
            "`faussaire resume RUN` continues from the last checkpoint.",
        )
    return next((code for code in codes if code), 0) or 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
