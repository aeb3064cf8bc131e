"""The site's last backup, and where it is: remembered on every host that answers, as the name of an empty file.

    demo.backup.20261126-030000.1417-172818493-690.h3+h7.note

So a laptop that never saw the site knows of a backup whose keepers are silent, or are called otherwise by now.
The position is that of the newest timeline, with the number 0 where that has no transaction yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from pcloud.gtid import by_domain, rank
from pcloud.kept import Backup, LastBackup
from pcloud.observed import Observed

_FILE = r"{site}\.backup\.([0-9-]+)\.([0-9]+-[0-9]+-[0-9]+)\.([a-z0-9+-]+)\.note"


def name_of(site: str, backup: Backup, hosts: Iterable[str]) -> str:
    """The file's name; `hosts` are those that keep it."""
    domain = backup.timeline
    latest = by_domain(backup.position).get(domain, (0, f"{domain}-0-0"))[1]
    return f"{site}.backup.{backup.id}.{latest}.{'+'.join(sorted(hosts))}.note"


def read_notes(site: str, names: Iterable[str]) -> dict[str, LastBackup]:
    """Those among the names of a pool's files."""
    pattern = re.compile(_FILE.format(site=re.escape(site)))
    found = {name: pattern.fullmatch(name) for name in names}
    return {name: LastBackup(m[1], m[2], tuple(m[3].split("+"))) for name, m in found.items() if m is not None}


def last_backup(site: str, observed: Observed) -> LastBackup | None:
    """Of what the hosts that answer remember the backup that reaches furthest, on the newest timeline."""
    return newest(n for h in observed.hosts for n in read_notes(site, h.volumes).values())


def newest(known: Iterable[LastBackup | None]) -> LastBackup | None:
    """The one that reaches furthest; one of which nobody knows how far comes last."""
    return max((k for k in known if k is not None), key=lambda k: (rank(k.position), k.id), default=None)
