"""A shop under load to take hosts from: shoppers with a ledger, a watch that counts copies, and the table of it all.

Every fault is a row; with PCLOUD_WRITE_FAILOVER_MATRIX=FILE the rows of a run become a page.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from pcloud import lab
from pcloud.events import Event, RunState, fold
from pcloud.identity import server_names
from pcloud.lab.processes import find_parts, members
from pcloud.shoppers import read_ledger
from pcloud.shopping import Entry, Summary, summarise
from tests.lab.bad_site import Yard, home_of
from tests.lab.conftest import Ran, split

SHOPPERS = 4
LONGEST_S = 900
WARM_ORDERS = 2
"""Orders before something is broken, and after it is whole again."""
LOOK_S = 0.25


@dataclass(frozen=True)
class Row:
    """One fault and what came of it; times in seconds, by the shoppers' own watches."""

    fault: str
    outcome: str
    codes: tuple[int, ...]
    orders_gap_s: float
    pages_gap_s: float
    failed: int
    orders: int
    lost: int
    copies: int


class Watch(threading.Thread):
    """Counts, four times a second and with no host's help, the emulators of each server on this machine."""

    def __init__(self, folder: Path, site: str) -> None:
        super().__init__(daemon=True)
        self._folder, self._name = folder, re.compile(rb"guest=" + re.escape(site.encode()) + rb"\.([a-z0-9-]+)")
        self._ended = threading.Event()
        self.most: Counter[str] = Counter()

    def look(self) -> dict[str, list[str]]:
        """The hosts on which each server runs now, frozen and cut off ones included."""
        found: dict[str, list[str]] = {}
        for host, part in find_parts(self._folder).items():
            for pid in members(part):
                try:
                    argv = Path(f"/proc/{pid}/cmdline").read_bytes()
                    state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]
                except OSError:
                    continue
                name = self._name.search(argv)
                if name is not None and argv.startswith(b"/usr/bin/qemu-system") and state not in ("Z", "X"):
                    found.setdefault(name[1].decode(), []).append(host)
        return found

    def run(self) -> None:
        while not self._ended.wait(LOOK_S):
            for server, hosts in self.look().items():
                self.most[server] = max(self.most[server], len(hosts))

    def end(self) -> int:
        """The most copies of any one server that ran at once."""
        self._ended.set()
        self.join(30)
        return max(self.most.values(), default=0)


@dataclass
class Crowd:
    """Shoppers who are at it, and their ledger."""

    path: Path
    process: subprocess.Popen[str]

    def entries(self) -> tuple[Entry, ...]:
        text = self.path.read_text() if self.path.exists() else ""
        whole = text[: text.rfind("\n") + 1]
        return tuple(Entry(**json.loads(line)) for line in whole.splitlines())

    def wait_for_orders(self, number: int, since: float, within_s: float = 120) -> None:
        """Until so many orders were acknowledged after a moment."""
        deadline = time.monotonic() + within_s
        while sum(e.at > since and bool(e.number) for e in self.entries()) < number:
            assert self.process.poll() is None, "the shoppers have left"
            assert time.monotonic() < deadline, f"no {number} orders within {within_s:g} s: {self.entries()[-8:]}"
            time.sleep(0.3)


@dataclass
class Fire(Yard):
    """The demo's site and its operator."""

    @property
    def servers(self) -> list[str]:
        return sorted(name for group in self.site.groups for name in server_names(group))

    @property
    def lab_folder(self) -> Path:
        return self.operator.home / "state" / "labs" / self.site.site

    def at(self, server: str) -> str:
        """The host on which a server runs, by this machine's processes."""
        (host,) = Watch(self.lab_folder, self.site.site).look()[server]
        return host

    def spare(self) -> str:
        """A host on which nothing runs."""
        busy = {h for hosts in Watch(self.lab_folder, self.site.site).look().values() for h in hosts}
        return next(h.name for h in self.site.hosts if h.name not in busy)

    def lab(self, command: str, host: str, *argv: str) -> None:
        ran = self.operator.run("lab", command, f"{self.site.site}/{host}", *argv)
        assert ran.code == 0, ran.err

    def switch_off(self, host: str) -> None:
        """At once, without the second that a command takes to start."""
        with home_of(self.operator):
            assert lab.power_off(self.site, host)

    def mend_hosts(self) -> None:
        """Every host has power, a cable and a controller."""
        with home_of(self.operator):
            for host in lab.status(self.site):
                if host.power == "frozen":
                    lab.thaw_host(self.site, host.name)
                if host.bmc != "ok":
                    lab.set_bmc(self.site, host.name, "ok")
                if host.link != "up" and host.link != "-":
                    lab.mend(self.site, host.name)
                if host.power == "off":
                    lab.mend(self.site, host.name)
                    lab.power_on(self.site, host.name)

    def restore(self) -> None:
        """The whole shop again, db-1 its primary, as the next row expects it."""
        self.mend_hosts()
        ran = self.operator.recover()
        assert ran.code == 0, told(ran)
        back = self.operator.run("failback", self.site.site, "--yes")
        assert back.code == 0, back.out + back.err

    @contextmanager
    def shoppers(self, name: str) -> Iterator[Crowd]:
        path = self.operator.folder / f"{name}.jsonl"
        path.unlink(missing_ok=True)
        argv = ("--number", str(SHOPPERS), "--for", str(LONGEST_S), "--ledger", str(path))
        process = self.operator.start("lab", "shoppers", self.site.site, *argv, "--json")
        try:
            yield Crowd(path, process)
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=60)
            assert process.returncode == 0, said
        finally:
            process.kill()
            process.wait()

    def expect_whole(self) -> None:
        """Each server runs once; nothing is left over; a shopper can buy; every key is the pinned one."""
        assert self.copies() == self.servers
        checked = self.operator.run("check", self.site.site, "--json")
        assert checked.code == 0, checked.out + checked.err
        with ThreadPoolExecutor(2) as pool:
            names = list(pool.map(lambda server: self.operator.on(server, "hostname").strip(), self.servers))
        assert names == self.servers, "each answers with its own pinned key"
        left = self.orphans()
        assert left == [], left

    def missing(self, crowd: Crowd) -> dict[int, float]:
        """Orders that were acknowledged and are not in the database, and when; by pcloud's own check. None is twice."""
        ran = self.operator.run("lab", "shoppers", self.site.site, "--check", str(crowd.path), "--json")
        found = json.loads(ran.out)
        acknowledged = {e.number: e.at for e in read_ledger(crowd.path) if e.number}
        assert found["acknowledged"] == len(acknowledged)
        assert not found["twice"] and not found["doubled"], found
        return {int(number): acknowledged[number] for number in found["missing"]}

    def audit(self, crowd: Crowd) -> int:
        """How many those are."""
        return len(self.missing(crowd))


def told(ran: Ran) -> str:
    return ran.out[-3000:] + ran.err


def slice_of(entries: tuple[Entry, ...], since: float, until: float) -> Summary:
    """What shoppers met between two moments; the last order before counts as the begin of a gap."""
    before = [e.at for e in entries if e.number and e.at <= since]
    first = max(before, default=since)
    return summarise([e for e in entries if first <= e.at <= until])


def outcome(events: list[list[Event]]) -> str:
    """What one run or several did, in the fewest words."""
    parts: list[str] = []
    for run in (run for command in events for run in split(command)):
        parts += [p for p in _did(fold(run)) if p not in parts]
    return "; ".join(parts) or "nothing had to be done"


def _did(state: RunState) -> Iterator[str]:
    for key, step in state.steps.items():
        head, _, action = key.rpartition("/")
        if step.status == "done" and step.changed and action == "fence":
            yield f"{head} cut off"
        elif step.status == "done" and action == "fence":
            yield f"{head} proven off"
        elif step.status == "blocked":
            yield f"{head} blocked"
        elif step.status == "done" and step.changed and action == "promote":
            yield f"{head} promoted"
        elif step.status == "done" and step.changed and action in ("start", "quarantine"):
            host, _, server = head.partition("/")
            yield f"{server} {'started' if action == 'start' else 'quarantined'} on {host}"


def write_row(path: Path, row: Row, order: list[str]) -> None:
    """Puts the row into the page, in place of what an earlier run says of the same fault."""
    old = path.read_text().splitlines() if path.exists() else []
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in old if line.startswith("| ")}
    lines[row.fault] = (
        f"| {row.fault} | {row.outcome} | {_in_short(row.codes)} | {row.orders_gap_s:.0f} "
        f"| {row.pages_gap_s:.0f} | {row.failed} | {row.orders} | {row.lost} | {row.copies} |"
    )
    path.write_text(_HEAD + "".join(f"{lines[fault]}\n" for fault in order if fault in lines))


def _in_short(codes: Iterable[int]) -> str:
    alike = ((code, len(list(same))) for code, same in groupby(codes))
    return ", ".join(
        f"{code} ({number} times)" if number > 2 else ", ".join([str(code)] * number) for code, number in alike
    )


_HEAD = f"""# The failover matrix

Every row is a test of `tests/lab/test_failover.py`, and is written by it, from a real run:

```
PCLOUD_WRITE_FAILOVER_MATRIX=docs/failover-matrix.md pytest -m chaos tests/lab/test_failover.py
```

The demo site, eight hosts and seven servers on software emulation, and {SHOPPERS} shoppers who browse, search and \
order all the while. Each row begins with a whole shop and ends with one: the host has power again, `pcloud recover \
demo --yes` and `pcloud failback demo --yes` have put everything back, every server runs once, a shopper can buy, no \
volume is left over, and every server shows its pinned key.

- **exit**: of each recovery that followed the fault, in their order; -9 is one that was killed.
- **no order for**, **no page for**: the longest time in which no shopper saw her order confirmed, or any page. With \
nobody harmed, orders come a few seconds apart.
- **failed**: requests without an answer as it should be. **orders**: acknowledged in the row, by the ledger. \
**lost**: of those, missing in the database at the row's end.
- **copies**: the most running emulators of any one server, counted four times a second on the lab's machine, those \
on frozen hosts and behind cut cables included.

| fault | what pcloud did | exit | no order for (s) | no page for (s) | failed | orders | lost | copies |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
""".replace("\\\n", "")
