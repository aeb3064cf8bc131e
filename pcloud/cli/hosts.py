"""pcloud hosts: whether the machines that servers will live on are ready, and what makes them so."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from pcloud import lab, places
from pcloud.cli.screen import say
from pcloud.cli.session import confirm, err, out
from pcloud.clock import SystemClock
from pcloud.controllerchecks import check_shared
from pcloud.errors import BadInput
from pcloud.hostchecks import check_homes, check_host
from pcloud.hostfacts import ask_controllers, ask_hosts, open_shells
from pcloud.hostneeds import Need, needs_of
from pcloud.hoststate import Controller, Finding, HostFacts
from pcloud.images import find_image
from pcloud.inventory import Inventory, find_inventory, load_inventory
from pcloud.model import Host, Site
from pcloud.observed import SeenHost
from pcloud.power import examine_controller
from pcloud.prepare import Action, Done, plan_prepare, prepare
from pcloud.secrets import Secrets, load_secrets
from pcloud.shell import Shell
from pcloud.wording import did_you_mean, show

app = typer.Typer(no_args_is_help=True)

SiteName = Annotated[str, typer.Argument(help="The site, or the file of one.")]
Hosts = Annotated[list[str] | None, typer.Argument(help="Only these hosts; left out: all of them.", metavar="HOST")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
All = Annotated[bool, typer.Option("--all", "-a", help="Show also what is as it should be.")]

MARKS = {"ok": Text("✓", "green"), "warn": Text("!", "yellow"), "bad": Text("✗", "red")}
LONG = 90
"""Letters of a fix that a row can hold; longer ones stand below the table, to be copied."""
EXITS = "Exit codes: 0 nothing is bad, 1 something is, 3 a person must act first: a host key, a log-in, a yes."


@dataclass(frozen=True)
class Looked:
    """What was asked and answered: every host's facts, and the findings of the hosts that were named."""

    facts: Mapping[str, HostFacts]
    findings: tuple[Finding, ...]
    uncounted: tuple[str, ...] = ()
    """Images that are not on this machine: nobody knows how much room they take."""

    @property
    def exit_code(self) -> int:
        bad = [f for f in self.findings if f.level == "bad"]
        return 3 if any(f.person for f in bad) else 1 if bad else 0


@contextmanager
def _opened(name: str) -> Iterator[tuple[Inventory, Callable[[Host], Shell], Secrets]]:
    """The site and its hosts' shells: needs the operator's key, and no image, dump or other secret."""
    inventory = load_inventory(find_inventory(name))
    site = inventory.site
    lab.enter(site)
    extra = places.lab_dir(site.site) / "secrets.yaml" if site.lab is not None else None
    secrets = load_secrets(site, inventory.path, extra)
    with open_shells(inventory, secrets.reveal(site.access.key.secret)) as shell:
        yield inventory, shell, secrets


def _controllers(inventory: Inventory, secrets: Secrets) -> Mapping[str, tuple[Controller, ...]]:
    clock = SystemClock()

    def examine(host: Host) -> tuple[Controller, ...]:
        return examine_controller(inventory, host, lambda ref: secrets.reveal(ref.secret), clock)

    return ask_controllers(inventory.site.hosts, examine)


def _look(
    site: Site,
    shell: Callable[[Host], Shell],
    only: Sequence[Host],
    controllers: Mapping[str, tuple[Controller, ...]] = {},
) -> Looked:
    """Asks every host, also when few were named: what a host must hold depends on the others."""
    asked = ask_hosts(site, site.hosts, shell)
    facts = {f.host: replace(f, controllers=controllers.get(f.host, ())) for f in asked}
    sizes = {}
    for image, ref in site.images.items():
        found = find_image(ref.digest or ref.recipe or image)
        sizes[image] = found.size if found else 0
    seen = [SeenHost(f.host, "", f.memory_mib, "", f.servers) for f in facts.values() if f.refused is None]
    needs, homeless = needs_of(site, seen, sizes)
    findings = [f for host in only for f in check_host(site, host, facts[host.name], needs.get(host.name, Need()))]
    # A host that does not answer is said already, and may be just the one that is missing.
    whole = len(only) == len(seen) == len(site.hosts)
    named = {host.name for host in only}
    findings += [finding for finding in check_shared(facts.values()) if finding.host in named]
    uncounted = tuple(image for image, size in sizes.items() if not size)
    return Looked(facts, (*findings, *(check_homes(homeless) if whole else ())), uncounted)


@app.command(
    epilog=f"Examples: pcloud hosts check shop · pcloud hosts check shop --all · pcloud hosts check --json. {EXITS}"
)
def check(site: SiteName = "demo", json: Json = False, everything: All = False) -> None:
    """Look at every host of a site, and say what it lacks and how to mend it. Changes nothing."""
    with _opened(site) as (inventory, shell, secrets):
        controllers = _controllers(inventory, secrets)
        looked = _look(inventory.site, shell, inventory.site.hosts, controllers)
    if json:
        _print_json(inventory.site, looked)
    else:
        _show(looked.findings, everything=everything)
        if looked.uncounted:
            names = ", ".join(looked.uncounted)
            out.print(f"not counted, as they are not on this machine yet: the images {names}", markup=False)
        out.print(_verdict(inventory.site, looked), markup=False)
    raise typer.Exit(looked.exit_code)


@app.command("prepare", epilog=f"Examples: pcloud hosts prepare shop · pcloud hosts prepare shop h3 --yes. {EXITS}")
def prepare_command(site: SiteName = "demo", hosts: Hosts = None, yes: Yes = False, json: Json = False) -> None:
    """Install and configure what can be done safely over SSH: shown first, and only after a yes.

    QEMU and libvirt from Debian's own packages, the pool's folder, libvirtd at boot, and no server
    that starts by itself. Never the network, never a reboot, and nothing is removed.
    """
    with _opened(site) as (inventory, shell, _):
        only = _named(inventory.site, hosts)
        looked = _look(inventory.site, shell, only)
        actions = tuple(action for host in only for action in plan_prepare(host, looked.facts[host.name]))
        if json and actions and not yes:
            _print_json(inventory.site, looked, actions)
            raise typer.Exit(3)
        results: tuple[Done, ...] = ()
        if actions:
            results, looked = _prepare(inventory, shell, only, actions, yes, json)
    failed = any(done.problem for done in results)
    code = looked.exit_code or int(failed)
    if json:
        _print_json(inventory.site, looked, actions, results)
        raise typer.Exit(code)
    _show([f for f in looked.findings if f.level == "bad"], everything=False)
    how = "not all of it was done" if failed else "done" if actions else "nothing to do"
    out.print(f"{how}; {_verdict(inventory.site, looked)}", markup=False, soft_wrap=True)
    raise typer.Exit(code)


def _prepare(
    inventory: Inventory,
    shell: Callable[[Host], Shell],
    only: Sequence[Host],
    actions: Sequence[Action],
    yes: bool,
    json: bool,
) -> tuple[tuple[Done, ...], Looked]:
    """Shows, asks, does, and looks again: what is said in the end is what is there."""
    site = inventory.site
    if not json:
        _show_plan(actions)
    count = len({action.host for action in actions})
    question = f"Do this on {_count(count, 'host')} of {site.site}, {_count(len(actions), 'step')} in all?"
    named = "" if len(only) == len(site.hosts) else " " + " ".join(host.name for host in only)
    confirm(question, yes=yes, command=f"pcloud hosts prepare {site.site}{named}")
    results = prepare(actions, lambda name: shell(site.host(name)), _silent if json else _tell, _interrupted)
    return results, _look(site, shell, only)


def _named(site: Site, names: Sequence[str] | None) -> tuple[Host, ...]:
    known = [host.name for host in site.hosts]
    for name in names or ():
        if name not in known:
            raise BadInput(f"{site.site} has no host {show(name)}", next=did_you_mean(name, known, "the hosts are"))
    return tuple(host for host in site.hosts if not names or host.name in names)


def _show_plan(actions: Sequence[Action]) -> None:
    """Each step once, with its hosts; commands on one line each, so that they can be copied."""
    hosts: dict[tuple[str, str, str], list[str]] = {}
    for action in actions:
        hosts.setdefault((action.what, action.why, action.command), []).append(action.host)
    for (what, why, command), names in hosts.items():
        out.print(f"{' '.join(names)}: {what}: {why}\n    {command}", markup=False, soft_wrap=True)


def _tell(action: Action, done: Done | None) -> None:
    if done is None:
        line = f"{action.host}: {action.what} ..."
    elif done.problem:
        line = f"{action.host}: {action.what}: failed after {done.elapsed_s:.1f} s: {done.problem}\n  next: {done.next}"
    else:
        line = f"{action.host}: {action.what}: done in {done.elapsed_s:.1f} s"
    out.print(line, markup=False, soft_wrap=True)


def _silent(_action: Action, _done: Done | None) -> None:
    return None


def _interrupted() -> None:
    err.print("stopping: the commands that run may end, nothing new starts", markup=False)


def _show(findings: Sequence[Finding], *, everything: bool) -> None:
    """A row for each finding; what is as it should be only on demand. Long fixes stand below, to be copied."""
    rows = [f for f in findings if everything or f.level != "ok"]
    if not rows:
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("host", "check", "", "found", "fix"):
        table.add_column(column, overflow="fold")
    below: dict[str, list[str]] = {}
    for row in rows:
        fix = row.fix
        if "\n" in fix or len(fix) > LONG:
            below.setdefault(fix, []).append(f"{row.host} {row.check}")
            fix = "see below"
        table.add_row(row.host, row.check, MARKS[row.level], Text(row.found), Text(fix))
    out.print(table)
    for fix, where in below.items():
        text = "\n".join(f"    {line}" for line in fix.splitlines())
        out.print(f"{', '.join(where)}:\n{text}", markup=False, soft_wrap=True)


def _verdict(site: Site, looked: Looked) -> str:
    hosts = {f.host for f in looked.findings} - {"-"}
    bad = {f.host for f in looked.findings if f.level == "bad"}
    ready = len(hosts - bad)
    if bad:
        return f"{site.site}: {ready} of {_count(len(hosts), 'host')} ready; not ready: {' '.join(sorted(bad - {'-'}))}"
    return f"{site.site}: {_count(len(hosts), 'host')} ready"


def _print_json(
    site: Site, looked: Looked, actions: Sequence[Action] | None = None, results: Sequence[Done] = ()
) -> None:
    data: dict[str, Any] = {"site": site.site, "ok": looked.exit_code == 0}
    data["uncounted_images"] = list(looked.uncounted)
    data["findings"] = [asdict(finding) for finding in looked.findings]
    data["controllers"] = {f.host: [asdict(said) for said in f.controllers] for f in looked.facts.values()}
    if actions is not None:
        data["planned"] = [_as_json(action) for action in actions]
        data["done"] = [
            {**_as_json(d.action), "elapsed_s": round(d.elapsed_s, 3), "problem": d.problem, "next": d.next}
            for d in results
        ]
    say(jsonlib.dumps(data, ensure_ascii=False, indent=2))


def _as_json(action: Action) -> dict[str, Any]:
    return {"host": action.host, "what": action.what, "why": action.why, "argv": list(action.argv)}


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
