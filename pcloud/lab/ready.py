"""Whether a host's services answer: an SSH greeting, and one call of libvirt's own protocol."""

from __future__ import annotations

import socket
import struct

# A call of REMOTE_PROC_AUTH_LIST, libvirt's first question on every connection:
# length, program, version, procedure, type (call), serial, status; see libvirt's docs/kbase/internals/rpc.
_AUTH_LIST = struct.pack(">IIIIIII", 28, 0x20008086, 1, 66, 0, 1, 0)


def ssh_answers(address: str, timeout_s: float = 2) -> bool:
    """Asked from the caller's own network namespace."""
    try:
        with socket.create_connection((address, 22), timeout=timeout_s) as connection:
            return connection.recv(64).startswith(b"SSH-2.0-")
    except OSError:
        return False


def libvirt_answers(pid: int, timeout_s: float = 2) -> bool:
    """Asked through the socket file, as seen from the host's PID 1: it answers once its drivers are ready."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout_s)
            connection.connect(f"/proc/{pid}/root/run/libvirt/libvirt-sock")
            connection.sendall(_AUTH_LIST)
            return len(connection.recv(28)) == 28
    except OSError:
        return False
