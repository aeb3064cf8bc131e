"""Programs that a build runs: in their own mount and process namespaces, with a deadline.

Whatever a program mounts or leaves running dies with it, also when this process is killed
(`setpriv --pdeathsig`, `unshare --kill-child`): no mount and no daemon survives a build.
"""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pcloud.clock import Deadline
from pcloud.errors import DeadlineExceeded, ImageError

TAIL_LINES = 15

_NAMESPACES = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child")


class Interrupted(ImageError):
    """The person stopped the build, or another recipe's build failed."""


@dataclass(frozen=True)
class Sandbox:
    """Runs programs for one build, their output appended to `log`."""

    recipe: str
    log: Path
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, timeout_s: float = 1800) -> None:
        """Run on the machine's own tree. Raises `ImageError`, `DeadlineExceeded` or `Interrupted`."""
        self._run((*_NAMESPACES, "--mount-proc", *argv), argv, env, timeout_s)

    def run_beside(self, tree: Path, argv: Sequence[str], *, env: Mapping[str, str], timeout_s: float = 1800) -> None:
        """Run on the machine's own tree, with `/proc` in `tree` for what it starts in there."""
        self._run((*_NAMESPACES, f"--mount-proc={tree}/proc", *argv), argv, env, timeout_s)

    def run_in(self, tree: Path, argv: Sequence[str], *, timeout_s: float = 900) -> None:
        """Run in the image's tree (chroot), as root, at native speed."""
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        env |= {"DEBIAN_FRONTEND": "noninteractive", "SYSTEMD_OFFLINE": "1"}
        full = (*_NAMESPACES, f"--root={tree}", "--wd=/", "--mount-proc", *argv)
        self._run(full, argv, env, timeout_s)

    def _run(self, full: Sequence[str], argv: Sequence[str], env: Mapping[str, str] | None, timeout_s: float) -> None:
        deadline = Deadline.after(timeout_s)
        with self.log.open("ab") as log:
            log.write(f"\n$ {' '.join(argv)[:2000]}\n".encode())
            log.flush()
            start = log.tell()
            process = subprocess.Popen(
                full, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, env=env, start_new_session=True
            )
            try:
                code = self._wait(process, deadline, argv[0])
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        if code != 0:
            raise ImageError(
                f"`{' '.join(argv)[:200]}` ended with {code}:\n{self._tail(start)}",
                where=f"recipe {self.recipe}",
                next="correct the recipe, or the package sources of this machine, and build again",
            )

    def _wait(self, process: subprocess.Popen[bytes], deadline: Deadline, name: str) -> int:
        while True:
            try:
                return process.wait(timeout=0.1)
            except subprocess.TimeoutExpired:
                pass
            if self.stop.is_set():
                raise Interrupted("the build was stopped", where=f"recipe {self.recipe}", next="pcloud image build")
            if deadline.passed():
                raise DeadlineExceeded(f"{name} did not end in time", where=f"recipe {self.recipe}", next="build again")

    def _tail(self, start: int) -> str:
        with self.log.open("rb") as log:
            size = os.fstat(log.fileno()).st_size
            log.seek(max(start, size - 8000))
            text = log.read().decode(errors="replace")
        lines = [line.rstrip() for line in text.splitlines() if line.strip()]
        return "\n".join(f"    {line[:300]}" for line in lines[-TAIL_LINES:]) or "    (it said nothing)"
