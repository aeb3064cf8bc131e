"""A large site's plans take seconds, also with a host lost: what `make bench` measures, kept from slowing down."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.planning import DATE, desire_large, inventory_text, observe_after, observe_nothing
from pcloud.inventory import defaults_dir, load_inventory
from pcloud.plan import plan
from pcloud.playbook import load_playbook
from pcloud.whatif import as_lost, look, subjects_of

AT_MOST_S = 5.0
"""Of one CPU: who else is on the machine does not count."""


def test_a_thousand_hosts_and_seven_thousand_servers(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_text(inventory_text(1000))
    desired = desire_large(load_inventory(path).site, load_playbook(defaults_dir("playbooks") / "recover.yaml"))
    first = plan(desired, observe_nothing(desired), DATE)
    whole = observe_after(desired, first)
    before = time.process_time()
    made = plan(desired, as_lost(whole, ["h5"]), DATE)
    assert time.process_time() - before < AT_MOST_S
    assert sum(n.info.action == "start" for n in made.nodes) == 7
    outlook = look(desired, whole, {})
    subjects = subjects_of(desired.site)[:50]
    before = time.process_time()
    assert all(outlook.judge(s).survived for s in subjects)
    assert time.process_time() - before < len(subjects) * AT_MOST_S / 10, "no plan of its own for each of them"
    assert len(outlook.known) < 10
