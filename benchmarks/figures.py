"""results.json -> figures: as a table for the terminal, and as the one in docs/numbers.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.lab import QUIET_CPUS

BEGIN, END = "<!-- figures: written by `make bench` -->", "<!-- end of figures -->"


@dataclass(frozen=True)
class Figure:
    """`command` measures it; `limit` is what keeps it from being better; `target` is its upper bound."""

    what: str
    value: str
    command: str
    limit: str
    target: str = ""
    met: bool = True


def figures(results: dict[str, Any]) -> list[Figure]:
    return [
        *_recovery(results),
        *_around(results),
        *_planning(results["planning"]),
        *_copying(results["copying"]),
        _freshness(results["freshness"]),
        *_failover(results["failover"]),
        *_data(results["data"]),
    ]


def _each(runs: list[dict[str, Any]], key: str) -> str:
    return ", ".join(f"{run[key]:.1f}" for run in runs)


def _recovery(results: dict[str, Any]) -> list[Figure]:
    ours, floors, ratio = (results["recovery"][key] for key in ("pcloud", "floor", "ratio"))
    recover, bare = "pcloud recover demo --yes", "python -m benchmarks.floor raise"
    peak = max(run["peak_mib"] for run in ours)
    emulation = "the emulation's CPU: seven guests boot at once"
    return [
        Figure("cold recovery, launch to first full journey", f"{_each(ours, 'journey_s')} s", recover, emulation),
        Figure("its floor", f"{_each(floors, 'journey_s')} s", bare, emulation),
        Figure(
            "recovery over floor, medians",
            f"{ratio:.2f}",
            "make bench",
            "us, before servers start: Python's start, a look at the hosts, the images' digests",
            "1.10",
            ratio <= 1.10,
        ),
        Figure("CPU of the seven guests", f"{_each(ours, 'guests_cpu_s')} s", recover, "the images and their roles"),
        Figure("the same under the floor", f"{_each(floors, 'guests_cpu_s')} s", bare, "the images and their roles"),
        Figure("pcloud's own CPU, its ssh included", f"{_each(ours, 'cpu_s')} s", recover, "us: imports and SSH"),
        Figure("the floor's own CPU", f"{_each(floors, 'cpu_s')} s", bare, "SSH"),
        Figure("pcloud's peak memory", f"{peak:.0f} MiB", recover, "us: what Python imports", "150 MiB", peak <= 150),
        Figure(
            "CPU spent by all else on the machine meanwhile",
            f"{_each(ours, 'other_cpu_s')} s; floor {_each(floors, 'other_cpu_s')} s",
            "make bench",
            "the hosts' sshd and libvirtd, digests; more means that the machine was not quiet",
        ),
    ]


def _around(results: dict[str, Any]) -> list[Figure]:
    idle, help_s = median(results["idle"]["wall_s"]), median(results["help"]["wall_s"])
    return [
        Figure("an idle second run", f"{idle:.1f} s", "pcloud recover demo", "the journey itself", "10 s", idle <= 10),
        Figure("start-up", f"{help_s:.2f} s", "pcloud --help", "us: imports"),
    ]


def _planning(planning: dict[str, Any]) -> list[Figure]:
    command = "python -m benchmarks.planning"
    slowest = max(planning["nothing_s"], planning["healthy_s"], planning["lost_s"])
    lost = f"{planning['lost_s']:.2f} s ({planning['lost_steps']} steps)"
    losses = f"what-if: each of {planning['what_if_losses']:,} hosts and racks lost"
    size = f"{planning['hosts']:,} hosts, {planning['servers']:,} servers"
    limit = "one CPU, in Python"
    first = f"{planning['nothing_s']:.2f} s ({planning['nothing_steps']:,} steps)"
    return [
        Figure(f"plan from nothing: {size}", first, command, limit, "5 s", slowest <= 5),
        Figure("the same, all healthy", f"{planning['healthy_s']:.2f} s", command, limit, "5 s", slowest <= 5),
        Figure("the same, the database's host lost", lost, command, limit, "5 s", slowest <= 5),
        Figure(losses, f"{planning['what_if_s']:.0f} s", command, limit, "60 s", planning["what_if_s"] <= 60),
        Figure("reading that inventory", f"{planning['load_s']:.2f} s", command, limit),
    ]


def _copying(copying: dict[str, Any]) -> list[Figure]:
    command = "python -m benchmarks.copying"
    one, one_cpu, seven, seven_cpu = (median(copying[key]) for key in ("one_s", "one_cpu_s", "seven_s", "seven_cpu_s"))
    what = f"an image ({copying['image_mib']:.0f} MiB) to one host"
    cpu = "CPU: SSH's cipher and digests; all hosts share this machine's"
    cables, wire = copying["cables"], "the cables"
    rate = f"cables of {cables['rate'].removesuffix('mbit')} Mbit/s"
    return [
        Figure(what, f"{one:.2f} s ({one_cpu:.1f} CPU s)", command, "SSH's cipher, digests"),
        Figure("the same to seven hosts", f"{seven:.2f} s ({seven_cpu:.1f} CPU s)", command, cpu),
        Figure(
            "seven hosts over one",
            f"{copying['ratio']:.2f}",
            command,
            "the shared CPU: seven copies are seven times the work for two CPUs",
            "1.3",
            copying["ratio"] <= 1.3,
        ),
        Figure(f"one host over {rate}", f"{median(cables['one_s']):.2f} s", command, wire),
        Figure(f"seven hosts over {rate}", f"{median(cables['seven_s']):.2f} s", command, wire),
        Figure(
            "seven over one, where the cables limit",
            f"{cables['ratio']:.2f}",
            command,
            "the cables, then the shared CPU",
            "1.3",
            cables["ratio"] <= 1.3,
        ),
    ]


def _freshness(freshness: dict[str, Any]) -> Figure:
    each = ", ".join(f"{seconds:.1f}" for seconds in freshness["found_s"])
    return Figure(
        "a product is changed in the shop: until a search finds it",
        f"{each} s",
        "python -m benchmarks --only freshness",
        f"the indexer looks every {freshness['every_s']:g} s",
        "60 s",
        max(freshness["found_s"]) <= 60,
    )


def _failover(failover: dict[str, Any]) -> list[Figure]:
    command = "python -m benchmarks --only failover"
    found = []
    for case in failover["cases"]:
        seconds, target = case["seconds"], case["target_s"]
        ratio = seconds / case["floor_s"]
        found.append(
            Figure(
                f"{case['who']} loses power: to {case['until']}",
                f"{seconds:.1f} s ({ratio:.1f} x its floor); {case['failed']} requests failed, "
                f"{case['missing']} of {case['orders']} orders missing",
                command,
                f"floor: {case['floor']}, {case['floor_s']:.1f} s",
                f"{target:g} s" if target else "",
                not target or seconds <= target,
            )
        )
    return found


def _data(data: dict[str, Any]) -> list[Figure]:
    limits = {
        "backup": "MariaDB's disk and zstd; the proof, which both make",
        "restore": "mariadb-backup's prepare, MariaDB's start",
        "replica": "MariaDB's disk and zstd, prepare, MariaDB's start",
    }
    command, found = f"python -m benchmarks --only data --gib {data['asked_gib']:g}", list[Figure]()
    for what, limit in limits.items():
        ours, by_hand = (", ".join(f"{s:.0f}" for s in data[key]) for key in (what, f"{what} by hand"))
        found.append(
            Figure(
                f"{what}, {data['gib']:g} GiB of data: the same tools by hand over pcloud",
                f"{data['ratio'][what]:.2f} ({by_hand} s over {ours} s)",
                command,
                limit,
                "0.8, at least",
                data["ratio"][what] >= 0.8,
            )
        )
    passed = data["passed_kib"]
    what = "what passed through the operator's machine in a backup, a restore and a replica of it"
    limit = "questions after how far it is, once a second"
    return [*found, Figure(what, f"{passed:.0f} KiB", command, limit, "1,024 KiB", passed <= 1024)]


def as_text(rows: list[Figure]) -> str:
    width, wide = max(len(f.what) for f in rows), max(len(f.value) for f in rows)
    lines = (
        f"{f.what:<{width}}  {f.value:<{wide}}"
        + (f"  at most {f.target}{'' if f.met else ': NOT MET'}" if f.target else "")
        for f in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def as_markdown(results: dict[str, Any]) -> str:
    machine = results["machine"]
    how = "KVM" if results["recovery"]["accel"] == "kvm" else "software emulation, no KVM"
    lines = [
        f"One run, {results['date'][:10]}: {machine['cpus']} CPUs, {machine['memory_gib']} GiB, "
        f"{machine['emulator']} ({how}).{_later(results)}{_disturbed(results)}",
        "",
        "| | measured | at most | command | limited by |",
        "| --- | --- | --- | --- | --- |",
    ]
    for f in figures(results):
        target = f.target if f.met else f"{f.target}: **not met**"
        lines.append(f"| {f.what} | {f.value} | {target} | `{f.command}` | {f.limit} |")
    return "\n".join(lines)


def _later(results: dict[str, Any]) -> str:
    """Which figures were measured again on another day (`--only`)."""
    names = {"planning": "plans", "freshness": "search", "failover": "lost hosts", "data": "data of a real size"}
    days = {names[key]: results.get(key, {}).get("date", results["date"])[:10] for key in names}
    return "".join(f" The {what}: {day}." for what, day in days.items() if day != results["date"][:10])


def _disturbed(results: dict[str, Any]) -> str:
    """A warning when other work was on the machine; the figures then say less."""
    runs = [*results["recovery"]["pcloud"], *results["recovery"]["floor"]]
    busiest = max(run["busy_before"] for run in runs)
    if busiest < QUIET_CPUS:
        return ""
    return (
        f" **The machine was not quiet**: other work kept up to {busiest:.1f} CPUs busy just before a recovery, "
        "so the seconds are not pcloud's and its floor's alone, and the ratio of the recoveries says little."
    )


def write_page(page: Path, results: dict[str, Any]) -> None:
    """Puts the figures between the page's two marks. Raises `ValueError` when it has none."""
    text = page.read_text()
    before, after = text.index(BEGIN) + len(BEGIN), text.index(END)
    page.write_text(f"{text[:before]}\n{as_markdown(results)}\n{text[after:]}")
