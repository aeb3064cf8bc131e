"""The floor: what a recovery would cost if nothing decided, checked or recorded anything.

    python -m benchmarks.floor lay FOLDER     not measured: writes down what is to be made
    python -m benchmarks.floor raise FOLDER   measured: makes it, until a shopper could buy

The same domains on the same hosts, from the same images and seeds, all at once. The seeds are
on the hosts beforehand. `raise` is a script that knows this one site: libvirt calls, two ssh
commands and polled sockets; it prints what it has done as it does it.
"""

from __future__ import annotations

import gzip
import json
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

POLL_S = 0.25
LONGEST_S = 600


def lay(folder: Path) -> None:
    """Asks pcloud what it would make, puts the seeds on the hosts and the rest into `folder`."""
    from pcloud import places
    from pcloud.cli.session import open_session
    from pcloud.observe import observe
    from pcloud.plan import plan
    from pcloud.steps.base import path_in
    from pcloud.steps.server import Define

    with open_session("demo") as session:
        world, site = session.world, session.site
        made = plan(session.desired, observe(session.desired, world), "floor")
        defines = [node.step for node in made.nodes if isinstance(node.step, Define)]
        if len(defines) != len(session.desired.servers):
            raise SystemExit("the floor starts from nothing: pcloud destroy demo, pcloud purge demo")
        servers = []
        for step in defines:
            pool = world.host(step.host).pool
            seed = world.seed(step.spec.name, step.names.generation)
            world.shell(step.host).write(path_in(pool, step.names.seed), seed, mode=0o600)
            servers.append(
                {
                    "name": step.spec.name,
                    "role": step.spec.role,
                    "address": step.spec.address,
                    "host": str(world.host(step.host).address),
                    "disk": path_in(pool, step.names.disk),
                    "backing": step.spec.image.on_host(pool, step.spec.image.disk),
                    "disk_gib": step.spec.disk_gib,
                    "xml": world.domain_xml(step.spec, step.host, step.names.generation),
                }
            )
        service = site.services[site.journey.service]
        laid = {
            "servers": servers,
            "key": str(places.lab_dir(site.site) / "operator_key"),
            "known_hosts": str(world.known_hosts),
            "database": site.database.name,
            "dump": session.desired.dump.path if session.desired.dump else "",
            "index": list(site.search.argv),
            "storefront": f"http://{service.address}",
            "journey": site.journey.model_dump(mode="json", exclude_defaults=True),
        }
    (folder / "floor.json").write_text(json.dumps(laid))
    (folder / "ssh").write_text(f'#!/bin/sh\nexec {" ".join(_ssh(laid))} "$@"\n')
    (folder / "ssh").chmod(0o700)


def _ssh(laid: dict[str, Any]) -> list[str]:
    options = [f"UserKnownHostsFile={laid['known_hosts']}", "StrictHostKeyChecking=yes", "BatchMode=yes"]
    return ["ssh", "-F", "none", "-i", laid["key"], *(word for option in options for word in ("-o", option))]


def make(server: dict[str, Any], wrapper: Path) -> None:
    """A disk on the image, the domain, its start: on one connection."""
    import libvirt

    connection = libvirt.open(f"qemu+ssh://root@{server['host']}/system?command={wrapper}&no_tty=1")
    disk = Path(server["disk"])
    pool = connection.storagePoolLookupByTargetPath(str(disk.parent))
    pool.createXML(
        f"<volume><name>{disk.name}</name><capacity unit='GiB'>{server['disk_gib']}</capacity>"
        "<target><format type='qcow2'/></target>"
        f"<backingStore><path>{server['backing']}</path><format type='qcow2'/></backingStore></volume>"
    )
    connection.defineXML(server["xml"]).create()
    say(f"{server['name']} started")


def wait_for(address: str, port: int) -> None:
    """Until something at that port says its first byte (MariaDB and Sphinx both greet)."""
    until = time.monotonic() + LONGEST_S
    while time.monotonic() < until:
        try:
            with socket.create_connection((address, port), timeout=2) as line:
                line.settimeout(5)
                if line.recv(1):
                    return
        except OSError:
            pass
        time.sleep(POLL_S)
    raise SystemExit(f"nothing answers at {address}:{port}")


def restore(laid: dict[str, Any], address: str) -> None:
    wait_for(address, 3306)
    say("database answers")
    name = laid["database"]
    before = (
        f"DROP DATABASE IF EXISTS `{name}`; CREATE DATABASE `{name}` CHARACTER SET utf8mb4; USE `{name}`;"
        "SET GLOBAL sync_binlog=0, GLOBAL innodb_flush_log_at_trx_commit=2;\n"
        "SET SESSION sql_log_bin=0, foreign_key_checks=0, unique_checks=0;\n"
    )
    after = "\nSET GLOBAL innodb_flush_log_at_trx_commit=1, GLOBAL sync_binlog=1;\n"
    sql = before.encode() + gzip.decompress(Path(laid["dump"]).read_bytes()) + after.encode()
    subprocess.run([*_ssh(laid), f"root@{address}", "mariadb"], input=sql, check=True, timeout=LONGEST_S)
    say("dump restored")


def index(laid: dict[str, Any], address: str) -> None:
    subprocess.run(
        [*_ssh(laid), f"root@{address}", *laid["index"]], check=True, timeout=LONGEST_S, stdout=subprocess.DEVNULL
    )
    say("index built")


def raise_floor(folder: Path) -> None:
    laid = json.loads((folder / "floor.json").read_text())
    at = {server["role"]: server["address"] for server in laid["servers"]}
    with ThreadPoolExecutor(16) as pool:
        made = [pool.submit(make, server, folder / "ssh") for server in laid["servers"]]
        restored = pool.submit(restore, laid, at["database"])
        searching = pool.submit(wait_for, at["indexer"], 9306)
        from pcloud.clock import SystemClock
        from pcloud.journey import walk
        from pcloud.model import Journey

        for part in [*made, restored, searching]:
            part.result()
    index(laid, at["indexer"])
    until = time.monotonic() + LONGEST_S
    while not walk(Journey.model_validate(laid["journey"]), laid["storefront"], clock=SystemClock()).ok:
        if time.monotonic() > until:
            raise SystemExit("no shopper could buy")
        time.sleep(POLL_S)
    say("journey")


def say(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    {"lay": lay, "raise": raise_floor}[sys.argv[1]](Path(sys.argv[2]))
