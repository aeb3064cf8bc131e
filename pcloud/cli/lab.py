"""pcloud lab: a data centre on this machine, and the ways to break it."""

from __future__ import annotations

import json as jsonlib
import os
from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from pcloud import lab
from pcloud.cli.session import LIVES, default_site, err, out, site_of
from pcloud.inventory import find_inventory, load_site
from pcloud.lab import Direction, Fault
from pcloud.model import Site

app = typer.Typer(no_args_is_help=True)

SiteName = Annotated[str, typer.Argument(help=LIVES, default_factory=default_site, show_default="the only one")]
HostName = Annotated[str, typer.Argument(metavar="HOST", help="A host, as h3 or demo/h3.")]
HostNames = Annotated[list[str], typer.Argument(metavar="HOST...", help="Hosts, as h3 h4 or demo/h3.")]
Json = Annotated[bool, typer.Option("--json", help="Print data instead of text.")]


def _site(name: str) -> Site:
    return load_site(find_inventory(name))


def _host(target: str) -> tuple[Site, str]:
    site, host = site_of(target)
    return _site(site), host


def _hosts(targets: list[str]) -> list[tuple[Site, str]]:
    """Every host that was named, before anything is done to one of them; a site holds for the names after it, too.

    Raises `BadInput`.
    """
    found, site = list[str](), ""
    for target in targets:
        named, slash, host = target.rpartition("/")
        site = named if slash else site
        found.append(f"{site}/{host}" if site else host)
    hosts = [_host(target) for target in dict.fromkeys(found)]
    for where, name in hosts:
        lab.require_host(where, name)
    return hosts


@app.command(epilog="Examples: pcloud lab up · pcloud lab up demo --hosts 12")
def up(
    site: SiteName,
    hosts: Annotated[int | None, typer.Option("--hosts", min=1, max=500, help="How many hosts in all.")] = None,
    json: Json = False,
) -> None:
    """Make and start the hosts; on a lab that runs, only those that are missing."""
    wanted = _site(site)
    with err.status(f"starting the hosts of {site}"):
        report = lab.up(wanted, hosts)
    lines = [lab.inventory_line(host) for host in report.extra]
    if json:
        facts = {"started": report.started, "running": report.running, "off": report.off, "inventory": lines}
        out.print_json(jsonlib.dumps({"site": site, **facts, "elapsed_s": round(report.elapsed_s, 3)}))
        return
    if report.started:
        out.print(f"up in {report.elapsed_s:.1f} s: {' '.join(report.started)}")
    if report.running:
        out.print(f"running already, left as they are: {' '.join(report.running)}")
    if report.off:
        out.print(f"off, left so: {' '.join(report.off)} (pcloud lab power-on {site}/{report.off[0]})")
    if lines:
        out.print("not in the inventory yet; add under hosts:")
        out.print("\n".join(lines), markup=False, soft_wrap=True)


@app.command(epilog="Example: pcloud lab down demo")
def down(site: SiteName) -> None:
    """End every host at once, and remove their disks, keys and secrets."""
    report = lab.down(_site(site))
    out.print(f"the lab {site} is gone" if report.removed else f"there is no lab {site}; nothing to do")
    if report.inside:
        err.print(f"still in its network until they end: processes {' '.join(map(str, report.inside))}")


@app.command(epilog="Example: pcloud lab status demo --json")
def status(site: SiteName, json: Json = False) -> None:
    """Show every host: power, cable, controller and how many guests run on it."""
    rows = lab.status(_site(site))
    if json:
        out.print_json(jsonlib.dumps({"site": site, "hosts": [asdict(row) for row in rows]}))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("host", "address", "rack", "power", "link", "bmc", "guests"):
        table.add_column(column, justify="right" if column == "guests" else "left")
    for row in rows:
        name = f"{row.name} (spare)" if row.spare else row.name
        table.add_row(name, row.address, row.rack, row.power, row.link, row.bmc, str(row.guests))
    out.print(table)
    if all(row.power in ("off", "absent") for row in rows):
        out.print(f"nothing runs; pcloud lab up {site}")


@app.command("power-off", epilog="Examples: pcloud lab power-off h3 · pcloud lab power-off demo/h1 demo/h2")
def power_off(hosts: HostNames) -> None:
    """Cut the power of hosts: everything on them dies at once, their disks stay."""
    for site, name in _hosts(hosts):
        out.print(f"{name} is off" if lab.power_off(site, name) else f"{name} was off already")


@app.command("power-on", epilog="Example: pcloud lab power-on h3")
def power_on(hosts: HostNames) -> None:
    """Start hosts from their own disks, until their sshd and libvirtd answer."""
    for site, name in _hosts(hosts):
        out.print(f"{name} is on" if lab.power_on(site, name) else f"{name} had power already")


@app.command(epilog="Examples: pcloud lab cut h3 · pcloud lab cut h3 --direction in")
def cut(
    hosts: HostNames,
    direction: Annotated[
        Direction, typer.Option("--direction", help="both; in: it receives nothing; out: nothing it sends arrives.")
    ] = "both",
) -> None:
    """Cut the cables of hosts, and of the guests on them. They stay cut until they are mended."""
    for site, name in _hosts(hosts):
        lab.cut(site, name, direction)
        out.print(f"the cable of {name} is cut" + ("" if direction == "both" else f", {direction}wards only"))


@app.command(epilog="Example: pcloud lab mend h3")
def mend(hosts: HostNames) -> None:
    """Put the cables of hosts back."""
    for site, name in _hosts(hosts):
        lab.mend(site, name)
        out.print(f"the cable of {name} is whole")


@app.command(
    epilog="Examples: pcloud lab bmc h3 dead · pcloud lab bmc demo/h3 late · pcloud lab bmc h3 ok. "
    "refuse: no connection; hang: connected, and never an answer; late: switches 5 s after its answer; dead: no "
    "packet; boots: just started, says off and drops orders for 20 s; boots-untold: and does not tell that it has; "
    "cached: says off for 20 s, and obeys; loses: the first order; crossed: it is the next host's."
)
def bmc(host: HostName, fault: Annotated[Fault, typer.Argument(help="What its controller does from now on.")]) -> None:
    """Let a host's management controller fail, or work again. It fails until it is told `ok`."""
    site, name = _host(host)
    lab.set_bmc(site, name, fault)
    out.print(f"the controller of {name} works" if fault == "ok" else f"the controller of {name}: {fault}")


@app.command("freeze-host", epilog="Example: pcloud lab freeze-host h3")
def freeze_host(hosts: HostNames) -> None:
    """Stop every process of hosts: they keep their power, and answer nothing."""
    for site, name in _hosts(hosts):
        lab.freeze_host(site, name)
        out.print(f"{name} is frozen")


@app.command("thaw-host", epilog="Example: pcloud lab thaw-host h3")
def thaw_host(hosts: HostNames) -> None:
    """Let frozen hosts go on."""
    for site, name in _hosts(hosts):
        lab.thaw_host(site, name)
        out.print(f"{name} goes on")


@app.command(epilog="Examples: pcloud lab shell h3 · pcloud lab shell h3 -- virsh list")
def shell(
    host: HostName,
    command: Annotated[list[str] | None, typer.Argument(help="What to run, after --; a shell when left out.")] = None,
) -> None:
    """Open a shell on a host, or run one command there and end with its exit code."""
    site, name = _host(host)
    argv = lab.shell(site, name, command or ["bash", "--login"])
    os.execvp(argv[0], argv)  # noqa: S606 - an argv, no shell


@app.command("open", epilog="Examples: pcloud lab open · pcloud lab open demo --port 8081")
def open_(
    site: SiteName,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="On 127.0.0.1; 0: any free one.")] = 8080,
) -> None:
    """Let this machine's browser into the lab's storefront, until Ctrl-C."""

    def opened(url: str, target: str) -> None:
        out.print(f"{url} is the storefront of {site} ({target} in the lab); Ctrl-C ends it", soft_wrap=True)

    try:
        lab.open_storefront(_site(site), port, opened)
    except KeyboardInterrupt:
        out.print("closed")
