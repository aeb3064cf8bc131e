"""pcloud hosts: whether the machines that servers will live on are ready, and what makes them so."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from pcloud import lab, places
from pcloud.cli.session import confirm, out
from pcloud.errors import BadInput
from pcloud.hostchecks import Finding, check_homes, check_host
from pcloud.hostfacts import ask_hosts, open_shells
from pcloud.hostneeds import needs_of
from pcloud.hoststate import HostFacts
from pcloud.images import find_image
from pcloud.inventory import Inventory, find_inventory, load_inventory
from pcloud.model import Host, Site
from pcloud.observed import SeenHost
from pcloud.prepare import Action, Done, plan_prepare, prepare
from pcloud.secrets import load_secrets
from pcloud.shell import Shell
from pcloud.wording import did_you_mean

app = typer.Typer(no_args_is_help=True)

SiteName = Annotated[str, typer.Argument(help="The site, or the file of one.")]
Hosts = Annotated[list[str] | None, typer.Argument(help="Only these hosts; left out: all of them.", metavar="[HOST]...")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
All = Annotated[bool, typer.Option("--all", "-a", help="Show also what is as it should be.")]

MARKS = {"ok": "[green]✓[/green]", "warn": "[yellow]![/yellow]", "bad": "[red]✗[/red]"}
EXITS = "Exit codes: 0 nothing is bad, 1 something is, 3 a person must act first: a host key, a log-in, a yes."


@dataclass(frozen=True)
class Looked:
    """What was asked and answered: every host's facts, and the findings of the hosts that were named."""

    facts: Mapping[str, HostFacts]
    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        bad = [f for f in self.findings if f.level == "bad"]
        return 3 if any(f.person for f in bad) else 1 if bad else 0


@contextmanager
def _opened(name: str) -> Iterator[tuple[Inventory, Callable[[Host], Shell]]]:
    """The site and its hosts' shells: needs the operator's key, and no image, dump or other secret."""
    inventory = load_inventory(find_inventory(name))
    site = inventory.site
    lab.enter(site)
    extra = places.lab_dir(site.site) / "secrets.yaml" if site.lab is not None else None
    key = load_secrets(site, inventory.path, extra).reveal(site.access.key.secret)
    with open_shells(inventory, key) as shell:
        yield inventory, shell


def _look(site: Site, shell: Callable[[Host], Shell], only: Sequence[Host]) -> Looked:
    """Asks every host, also when few were named: what a host must hold depends on the others."""
    facts = {f.host: f for f in ask_hosts(site, site.hosts, shell)}
    sizes = {}
    for image, ref in site.images.items():
        found = find_image(ref.digest or ref.recipe or image)
        sizes[image] = found.size if found else 0
    seen = [SeenHost(f.host, "", f.memory_mib, "", f.servers) for f in facts.values() if f.refused is None]
    needs, homeless = needs_of(site, seen, sizes)
    findings = []
    for host in only:
        fact = facts[host.name]
        findings += check_host(site, host, fact, needs[host.name] if host.name in needs else NO_NEED)
    return Looked(facts, (*findings, *(check_homes(homeless) if len(only) == len(site.hosts) else ())))


NO_NEED = needs_of.__globals__["Need"]()


@app.command(epilog=f"Examples: pcloud hosts check shop · pcloud hosts check shop --all · "
             f"pcloud hosts check shop --json. {EXITS}")
def check(site: SiteName = "demo", json: Json = False, everything: All = False) -> None:
    """Look at every host of a site, and say what it lacks and how to mend it. Changes nothing."""
    with _opened(site) as (inventory, shell):
        looked = _look(inventory.site, shell, inventory.site.hosts)
    if json:
        _print_json(inventory.site, looked)
    else:
        _show(inventory.site, looked, everything)
    raise typer.Exit(looked.exit_code)
