"""The main job on real guests, from nothing to a shopper who can buy; then what goes wrong on the way.

The tests share one lab and run in this order: each leaves a whole shop for the next.
"""

from __future__ import annotations

import json
import re
import signal
import stat
from pathlib import Path

import pytest
import yaml

from pcloud.events import Event, RunFinished, StepBlocked, StepStarted
from pcloud.inventory import load_site
from tests.lab.conftest import DEMO, Operator

pytestmark = pytest.mark.lab

SERVERS = {"db-1", "idx-1", "fe-1", "fe-2", "fe-3", "fe-4", "lb-1"}
POOL = "/var/lib/pcloud/pool"


def where(operator: Operator) -> dict[str, str]:
    rows = operator.json("status", "demo")["servers"]
    return {row["server"]: copy["host"] for row in rows for copy in row["copies"]}


def copies(operator: Operator) -> list[str]:
    """The servers that run, asked of the hosts' own process lists: each must be there once."""
    found = []
    for host in load_site(DEMO).hosts:
        text = operator.on(host.name, "ps", "-eo", "args")
        found += re.findall(r"qemu-system.*?guest=demo\.([a-z0-9-]+)", text)
    return sorted(found)


def volumes(operator: Operator, host: str) -> list[str]:
    return operator.on(host, "ls", POOL).split()


def started(suffix: str) -> object:
    def when(event: Event) -> bool:
        return isinstance(event, StepStarted) and event.step.endswith(suffix)

    return when


def test_seven_servers_from_nothing_and_a_shopper_can_buy(operator: Operator) -> None:
    made = operator.json("plan", "demo")
    assert {s["server"] for s in made["steps"] if s["server"]} == SERVERS
    ran = operator.recover()
    assert ran.code == 0, ran.out[-3000:] + ran.err
    state = ran.state
    assert [v.visit for v in state.visits] == [s.name for s in load_site(DEMO).journey.steps]
    assert copies(operator) == sorted(SERVERS)
    assert len(set(where(operator).values())) == 7, "one a host, the spare left alone"
    assert "h8" not in where(operator).values()


def test_a_second_run_changes_nothing_and_says_so(operator: Operator) -> None:
    again = operator.run("recover", "demo")
    assert again.code == 0, again.err
    assert "nothing was changed, 7 servers are healthy, and a shopper could buy" in again.out
    ran = operator.recover()
    assert ran.changed() == set()
    last = ran.events[-1]
    assert isinstance(last, RunFinished) and last.facts["changed"] == 0


def test_what_a_person_looks_at(operator: Operator) -> None:
    status = operator.json("status", "demo")
    assert all(row["healthy"] and [c["power"] for c in row["copies"]] == ["running"] for row in status["servers"])
    assert operator.json("check", "demo")["ok"]
    runs = operator.run("runs", "demo")
    assert runs.out.count("converged") == 3
    report = operator.run("report", "demo")
    assert report.code == 0 and "journey" in report.out
    page = operator.folder / "report.html"
    assert operator.run("report", "demo", "--html", str(page)).code == 0
    assert page.read_text().startswith("<!doctype html>")
    assert operator.on("fe-1", "hostname").strip() == "fe-1"
    assert operator.run("ssh", "demo/fe-9").code == 2


def test_no_secret_is_left_where_others_read(operator: Operator) -> None:
    secrets = yaml.safe_load((operator.home / "state/labs/demo/secrets.yaml").read_text())
    values = [v for name, v in secrets.items() if name != "ssh/operator"] + [secrets["ssh/operator"].splitlines()[2]]
    readable = [p for p in (operator.home / "state/sites").rglob("*") if p.is_file()]
    assert readable
    for path in readable:
        text = path.read_text()
        assert not any(v in text for v in values), path
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    host = where(operator)["db-1"]
    assert not any(v in operator.on(host, "ps", "-eo", "args") for v in values)
    seeds = operator.on(host, "stat", "-c", "%a %n", f"{POOL}/demo.db-1.g1.seed.iso")
    assert seeds.startswith("600 ")


def test_a_killed_guest_is_started_and_nothing_else_is_touched(operator: Operator) -> None:
    places = where(operator)
    for server in ("fe-2", "lb-1"):
        operator.on(places[server], "pkill", "-9", "-f", f"guest=demo.{server}")
    assert operator.run("check", "demo").code == 1
    ran = operator.recover()
    assert ran.code == 0, ran.out[-3000:]
    assert ran.changed() == {f"{places[s]}/{s}/start" for s in ("fe-2", "lb-1")}
    assert copies(operator) == sorted(SERVERS)


def test_a_corrupt_image_is_refused_by_name_and_replaced(operator: Operator) -> None:
    host = where(operator)["lb-1"]
    image = next(v for v in volumes(operator, host) if v.endswith(".qcow2") and "image.balancer" in v)
    initrd = image.replace("disk.qcow2", "initrd.img")
    operator.on(host, "truncate", "-s", "1000", f"{POOL}/{initrd}")
    ran = operator.recover("--rebuild", "lb-1")
    assert ran.code == 0, ran.out[-3000:]
    refused = ran.state.steps[f"{host}/image/balancer"].facts["refused"]
    assert any(initrd in why and "corrupt" in why for why in refused), refused
    assert any(v.startswith("demo.lb-1.g1.tombstone-") for v in volumes(operator, host))


@pytest.mark.parametrize(
    "moment",
    ["/retire", "/ready", *(pytest.param(m, marks=pytest.mark.chaos) for m in ("/seed", "/define", "/start"))],
)
def test_killed_at_any_moment_the_same_command_completes(operator: Operator, moment: str) -> None:
    operator.interrupt(["--rebuild", "fe-3"], started(f"fe-3{moment}"), signal.SIGKILL)  # type: ignore[arg-type]
    ran = operator.recover()
    assert ran.code == 0, ran.out[-3000:]
    assert copies(operator) == sorted(SERVERS)
    assert operator.recover().changed() == set()


def test_ctrl_c_stops_and_the_same_command_goes_on(operator: Operator) -> None:
    seen = operator.interrupt(["--rebuild", "fe-4"], started("fe-4/ready"), signal.SIGINT)  # type: ignore[arg-type]
    assert isinstance(seen[-1], RunFinished) and seen[-1].outcome == "interrupted"
    assert operator.recover().code == 0


def test_a_second_recovery_at_once_is_refused_and_names_the_first(operator: Operator) -> None:
    first = operator.start("recover", "demo", "--yes", "--json", "--rebuild", "fe-1")
    assert first.stdout is not None
    first.stdout.readline()
    second = operator.run("recover", "demo", "--yes")
    assert second.code == 3
    assert f"process {first.pid}" in second.err
    first.communicate(timeout=300)
    assert first.returncode == 0


def test_a_host_that_its_controller_proves_off_loses_its_servers_to_others(operator: Operator) -> None:
    """Nobody has to be woken for it; back on, the host does not start what has moved."""
    host = where(operator)["fe-4"]
    assert operator.run("lab", "power-off", f"demo/{host}").code == 0
    ran = operator.recover()
    assert ran.code == 0, ran.out[-3000:]
    assert ran.state.steps[f"{host}/fence"].status == "done"
    assert where(operator)["fe-4"] != host
    assert operator.run("lab", "power-on", f"demo/{host}").code == 0
    assert operator.recover().code == 0
    assert where(operator)["fe-4"] != host
    assert copies(operator) == sorted(SERVERS)


def test_a_stale_plan_is_refused(operator: Operator) -> None:
    path = str(operator.folder / "plan.json")
    assert operator.run("plan", "demo", "--rebuild", "fe-1", "--out", path).code == 0
    refused = operator.run("recover", "demo", "--plan", path)
    assert refused.code == 3
    assert "not as it was when this plan was made" in refused.err


def test_a_site_of_its_own_playbook(operator: Operator) -> None:
    """The site brings a command and a question; without anybody there, the question blocks."""
    text = DEMO.read_text().replace("journey:   ", "playbooks: books\n\njourney:   ")
    text = text.replace(
        "../templates/shop/dump/shop.sql.gz", str(DEMO.parent.parent / "templates/shop/dump/shop.sql.gz")
    )
    books = operator.folder / "own" / "books"
    books.mkdir(parents=True)
    (operator.folder / "own" / "demo.yaml").write_text(text)
    recover = (DEMO.parent.parent / "playbooks" / "recover.yaml").read_text()
    needs = "[database, search, frontends, balancer]"
    assert recover.count(needs) == 1
    extra = (
        "  - {name: stamp, run: {host: h1, argv: [touch, /root/pcloud-was-here]},"
        " needs: [search, frontends, balancer]}\n"
        '  - {name: sure, ask: "May shoppers come in?"}\n'
    )
    at = recover.index("  - name: journey")
    (books / "recover.yaml").write_text(recover[:at] + extra + recover[at:].replace(needs, "[sure]"))
    site = str(operator.folder / "own" / "demo.yaml")
    shown = operator.run("plan", site)
    assert "touch /root/pcloud-was-here" in shown.out and "May shoppers come in?" in shown.out
    blocked = operator.run("recover", site, "--json")
    assert blocked.code == 3, blocked.out + blocked.err
    assert operator.run("recover", site, "--yes", "--json").code == 0
    assert "pcloud-was-here" in operator.on("h1", "ls", "/root")


def test_destroy_keeps_tombstones_purge_deletes_them_foreign_servers_stay(operator: Operator) -> None:
    foreign = (
        "<domain type='qemu'><name>somebody-elses</name><memory unit='MiB'>64</memory>"
        "<os><type>hvm</type></os></domain>"
    )
    operator.on("h1", "sh", "-c", f'echo "{foreign}" > /root/f.xml && virsh -q -c qemu:///system define /root/f.xml')
    assert operator.run("destroy", "demo").code == 3, "nobody said yes"
    assert copies(operator) == sorted(SERVERS)
    assert operator.run("destroy", "demo", "--yes").code == 0
    assert copies(operator) == []
    left = [v for h in load_site(DEMO).hosts for v in volumes(operator, h.name)]
    assert not [v for v in left if v.endswith("seed.iso")], "seeds hold secrets"
    stones = [v for v in left if v.endswith(".qcow2") and v.startswith("demo.")]
    assert stones and all("tombstone-" in v for v in stones)
    assert operator.run("purge", "demo", "--yes").code == 0
    left = [v for h in load_site(DEMO).hosts for v in volumes(operator, h.name)]
    assert all(v.startswith("pcloud-image.") or v.endswith(".note") for v in left), left
    assert "somebody-elses" in operator.on("h1", "virsh", "-q", "-c", "qemu:///system", "list", "--all", "--name")


def test_no_dump_never_means_an_empty_shop(operator: Operator) -> None:
    """Everything but the data comes up; with the dump, the same command completes."""
    text = re.sub(r"\n  dump: .*", "", DEMO.read_text())
    site = operator.folder / "nodump" / "demo.yaml"
    site.parent.mkdir()
    site.write_text(text)
    ran = operator.recover(site=str(site))
    assert ran.code == 3, ran.out[-3000:]
    problem = ran.state.steps["db-1/restore"].problem
    assert isinstance(problem, StepBlocked) and "--empty-database" in problem.next
    assert ran.state.steps["fe-1/ready"].status == "done"
    completed = operator.recover()
    assert completed.code == 0, completed.out[-3000:]
    assert json.loads(operator.run("check", "demo", "--json").out)["ok"]
    assert copies(operator) == sorted(SERVERS)


def test_the_lab_leaves_nothing_behind(operator: Operator) -> None:
    assert operator.run("lab", "down", "demo").code == 0
    mounts = Path("/proc/mounts").read_text()
    assert str(operator.home) not in mounts
