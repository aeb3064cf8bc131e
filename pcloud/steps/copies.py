"""Copying an image's file to hosts: one after the other passes it on, so that many take as long as one.

The operator sends the file once, over SSH, to the first host of a chain (or not at all, when a
host has a verified copy); each host hands on what it gets while it gets it (`relay`). What was
interrupted goes on where it stopped. A host that breaks the chain is left behind; those after
it keep what they have, and get the rest through a second chain that begins at one which has all.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, cast

from pcloud.desired import ImageFile, ImageSpec
from pcloud.errors import CommandFailed, ImageError, PcloudError, Transient
from pcloud.steps.base import Answer, World
from pcloud.steps.relay import BUSY, DIFFERENT, SENDER_GONE, Hop, Order

SLOWEST = 1e6
"""Bytes a second of the slowest network that a copy's deadline allows for."""

LONGEST = 16
"""Hosts in one chain; more are served by chains that begin at hosts which have it by then."""

Problems = dict[str, PcloudError]
Sent = Callable[[int], None]


def copy_file(
    world: World, image: ImageSpec, file: ImageFile, hosts: Sequence[str], *, have: Sequence[str] = (), sent: Sent
) -> Problems:
    """Puts one file into the pools of `hosts`; `have` have it. Host to why it is not there, for each that failed.

    A host that was let down by the one before it, or had a wrong part, is tried once more. `sent` hears how many bytes
    left the operator.
    """
    left, heads, problems = list(hosts), list(have), Problems()
    tried: set[str] = set()
    while left:
        count = min(max(1, len(heads)), -(-len(left) // LONGEST))
        chains = [left[n::count][:LONGEST] for n in range(count)]
        now = {h for chain in chains for h in chain}
        with ThreadPoolExecutor(max_workers=count) as pool:
            jobs = [
                pool.submit(_chain, world, image, file, heads[n] if heads else None, chain, sent)
                for n, chain in enumerate(chains)
            ]
            failed = Problems()
            for job in jobs:
                failed |= job.result()
        heads += [h for h in left if h in now and h not in failed]
        again = [h for h in failed if h not in tried and type(failed[h]) in (Transient, ImageError)]
        left = [h for h in left if h not in now] + again
        problems = {h: e for h, e in (problems | failed).items() if h not in again}
        tried |= now
    return problems


def _chain(
    world: World, image: ImageSpec, file: ImageFile, head: str | None, hosts: Sequence[str], sent: Sent
) -> Problems:
    """One chain, every host's program at once; a failure of one host is that host's alone."""
    line = ([head] if head else []) + list(hosts)
    hops = {h: Hop(str(world.host(h).address), 20000 + secrets.randbelow(40000), secrets.token_hex(16)) for h in line}

    def order(n: int) -> Order:
        host = line[n]
        source = hops[host] if n else "have" if head else "stdin"
        after = hops[line[n + 1]] if n + 1 < len(line) else None
        path = image.on_host(world.host(host).pool, file)
        return Order(path, file.size, file.sha256, source, after, 5 + len(line) - n)

    with ThreadPoolExecutor(max_workers=len(line)) as pool:
        jobs = {line[n]: pool.submit(_relay, world, image, file, line[n], order(n), sent) for n in range(len(line))}
        problems = {}
        for host, job in jobs.items():
            try:
                job.result()
            except PcloudError as error:
                problems[host] = error
    return problems


def _relay(world: World, image: ImageSpec, file: ImageFile, host: str, order: Order, sent: Sent) -> None:
    shell = world.shell(host)
    deadline_s = 120 + file.size / SLOWEST
    if order.source != "stdin":
        _judge(host, image, file, shell.run(order.argv, deadline_s=deadline_s, stdin=order.line, check=False))
        return
    found = shell.run(["stat", "-c", "%s", "--", f"{order.path}.part"], deadline_s=30, check=False).stdout.strip()
    start = int(found) if found.isdigit() and int(found) <= file.size else 0
    with world.image_path(image.digest, file.name).open("rb") as source:
        source.seek(start)
        feed = cast(BinaryIO, _Feed(order.line, source))
        head = len(order.line)
        done = shell.run(
            order.argv,
            deadline_s=deadline_s,
            stdin=feed,
            check=False,
            progress=lambda n: sent(start + max(0, n - head)),
        )
    _judge(host, image, file, done)


class _Feed:
    """What the first host reads: its order, then the file."""

    def __init__(self, line: bytes, source: BinaryIO) -> None:
        self._line, self._source = line, source

    def read(self, size: int = -1) -> bytes:
        line, self._line = self._line, b""
        return line or self._source.read(size)


def _judge(host: str, image: ImageSpec, file: ImageFile, done: Answer) -> None:
    """Raises what the program's exit code means."""
    if done.exit_code == 0:
        return
    said = (done.stderr.strip().splitlines() or ["it said nothing"])[-1][:300]
    what = f"{file.name} of image {image.name}: {said}"
    if done.exit_code in (SENDER_GONE, BUSY):
        raise Transient(what, where=host, next="the same command again goes on where it stopped")
    if done.exit_code == DIFFERENT:
        raise ImageError(what, where=host, next=f"pcloud image verify {image.recipe}")
    raise CommandFailed(what, where=host)
