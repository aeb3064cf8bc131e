"""A server's seed: one small disk with everything that makes it itself.

NoCloud (an ISO 9660 file system labelled `cidata`) with three files and sometimes a fourth:

    meta-data       instance-id, hostname, and the digest of what is in pcloud.tar
    user-data       cloud-config for stock cloud images: unpack pcloud.tar early, nothing else
    pcloud.tar      the server's files, as they are to lie on its root disk
    network-config  for stock images, when the files hold the server's systemd.network file

A prepared image's initrd unpacks `pcloud.tar` before process 1 starts; a stock Debian cloud
image's cloud-init does the same from `user-data`. Equal input gives equal bytes. A seed holds
secrets: whoever writes it to disk makes it 0600.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass

import pycdlib
from pycdlib.dates import DirectoryRecordDate

from pcloud.errors import BadInput

LABEL = "cidata"
NETWORK = "/etc/systemd/network/10-pcloud.network"

_EPOCH = 315_532_800  # 1980-01-01: the same date in every seed, so that equal input gives equal bytes
_RECORD_DATE = bytes((80, 1, 1, 0, 0, 0, 0))
_VOLUME_DATE = b"1980010100000000\0"
_SECTOR = 2048
_PATH = re.compile(r"/[A-Za-z0-9._@:+=,\\/-]{1,240}")
_OWNER = re.compile(r"[a-z_][a-z0-9_-]{0,31}:[a-z_][a-z0-9_-]{0,31}")
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,252}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")


@dataclass(frozen=True)
class SeedFile:
    """One file of a server. The owner is named; the name is resolved inside the guest."""

    path: str
    content: bytes
    mode: int = 0o644
    owner: str = "root:root"


def build_seed(files: Sequence[SeedFile], *, instance_id: str, hostname: str) -> bytes:
    """The seed disk of a server, as the bytes of an ISO image. Raises `BadInput`.

    A guest unpacks a seed once: it does so again when `instance_id`, `hostname` or any file differs.
    """
    if not _ID.fullmatch(instance_id) or not _NAME.fullmatch(hostname):
        what = f"{instance_id!r} and {hostname!r} cannot name a server's seed"
        raise BadInput(what, next="use letters, digits and -")
    payload = _tar(files)
    digest = hashlib.sha256(payload).hexdigest()
    meta = {"instance-id": instance_id, "local-hostname": hostname, "pcloud-digest": digest}
    contents = {
        "meta-data": "".join(f"{key}: {value}\n" for key, value in meta.items()).encode(),
        "user-data": _USER_DATA.encode(),
        "pcloud.tar": payload,
    }
    network = next((file.content for file in files if file.path == NETWORK), None)
    if network is not None:
        contents["network-config"] = _network_config(network.decode())
    return _iso(contents)


# What a stock image does at its start beside unpacking the payload: its disk grows, and no more.
# The seed decides about users, host keys, names and services; lists of modules replace the
# image's own, which saves it most of the time that cloud-init takes. On Debian the payload is
# there before sysinit.target, so services find their configuration, and units of the payload
# are known before the services start.
_USER_DATA = """#cloud-config
cloud_init_modules: [bootcmd, growpart, resizefs]
cloud_config_modules: []
cloud_final_modules: []
users: []
ssh_deletekeys: false
disable_root: false
manage_etc_hosts: false
preserve_hostname: true
bootcmd:
  - - sh
    - -c
    - |
      set -e
      mkdir -p /run/pcloud-seed /var/lib/pcloud
      mount -o ro LABEL=cidata /run/pcloud-seed
      cd /run/pcloud-seed
      if ! cmp -s meta-data /var/lib/pcloud/seeded; then
        # the first start mounts an identity of its own over the empty file, which cannot be replaced then
        umount /etc/machine-id 2>/dev/null || :
        tar -C / -xpf pcloud.tar
        hostname -F /etc/hostname
        cp meta-data /var/lib/pcloud/seeded
        if tar -tf pcloud.tar | grep -q ^etc/systemd/system/; then systemctl daemon-reload; fi
      fi
      cd /
      umount /run/pcloud-seed
"""


def judge_files(files: Sequence[SeedFile]) -> None:
    """Raises `BadInput` when a seed cannot be made of them."""
    seen: set[str] = set()
    for file in sorted(files, key=lambda file: file.path):
        _judge(file, seen)
        seen.add(file.path)


def _tar(files: Sequence[SeedFile]) -> bytes:
    judge_files(files)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as tar:
        for file in sorted(files, key=lambda file: file.path):
            info = tarfile.TarInfo(file.path.lstrip("/"))
            info.size, info.mode, info.mtime = len(file.content), file.mode, _EPOCH
            info.uname, _, info.gname = file.owner.partition(":")
            tar.addfile(info, io.BytesIO(file.content))
    return buffer.getvalue()


def _judge(file: SeedFile, seen: set[str]) -> None:
    parts = file.path.split("/")[1:]
    if not _PATH.fullmatch(file.path) or any(part in ("", ".", "..") for part in parts):
        raise BadInput(f"{file.path!r} is no path for a server's file", next="name it absolutely, with no .. in it")
    if file.path in seen:
        raise BadInput(f"{file.path} is in the seed twice", next="let one template write it")
    if any("/" + "/".join(parts[:n]) in seen for n in range(1, len(parts))):
        raise BadInput(f"{file.path} lies in what is a file", next="rename one of the two")
    if not 0 <= file.mode <= 0o7777:
        raise BadInput(f"{file.path} has the mode {file.mode:o}", next="use an octal mode such as 0o644")
    if not _OWNER.fullmatch(file.owner):
        raise BadInput(f"{file.path} has the owner {file.owner!r}", next="use user:group")


def _network_config(network: str) -> bytes:
    """The netplan form of a systemd.network file (MACAddress, Address, Gateway), as JSON, which is YAML."""
    pairs = [(key.strip(), value.strip()) for key, _, value in (line.partition("=") for line in network.splitlines())]
    card: dict[str, object] = {"addresses": [value for key, value in pairs if key == "Address"], "dhcp4": False}
    macs = [value for key, value in pairs if key == "MACAddress"]
    card["match"] = {"macaddress": macs[0]} if macs else {"name": "e*"}
    if macs:
        card["set-name"] = "eth0"  # images whose network is ifupdown's know cards by name alone
    gateways = [value for key, value in pairs if key == "Gateway"]
    if gateways:
        card["routes"] = [{"to": "0.0.0.0/0", "via": gateways[0]}]
    return (json.dumps({"version": 2, "ethernets": {"eth0": card}}, indent=1) + "\n").encode()


def _iso(contents: dict[str, bytes]) -> bytes:
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, vol_ident=LABEL)
    try:
        for number, (name, content) in enumerate(sorted(contents.items())):
            iso.add_fp(io.BytesIO(content), len(content), f"/FILE{number}.;1", joliet_path=f"/{name}")
        iso.force_consistency()
        for volume in filter(None, (iso.pvd, iso.joliet_vd)):
            for record in (volume.root_dir_record, *volume.root_dir_record.children):
                record.date = DirectoryRecordDate()
                record.date.parse(_RECORD_DATE)
        out = io.BytesIO()
        iso.write_fp(out)
    finally:
        iso.close()
    return _with_fixed_dates(out.getvalue())


def _with_fixed_dates(image: bytes) -> bytes:
    """The dates of the volume descriptors, which pycdlib takes from the clock while it writes.

    Ecma-119, 8.4: descriptors are the sectors from 16 on, up to type 255; creation, modification,
    expiration and effective date are 17 bytes each, from byte 813.
    """
    fixed = bytearray(image)
    at = 16 * _SECTOR
    while fixed[at] != 255:
        fixed[at + 813 : at + 881] = _VOLUME_DATE * 2 + bytes(b"0" * 16 + b"\0") + _VOLUME_DATE
        at += _SECTOR
    return bytes(fixed)
