"""Keys that are derived, never stored: the same from any operator's machine.

A site keeps one identity secret. Each server's SSH host key comes out of it by HKDF-SHA256
(RFC 5869) and ed25519, so that whoever holds the inventory and the secret knows every public
key before the server exists, and can pin it. The private key's file is written by hand
(OpenSSH's PROTOCOL.key, unencrypted) because libraries put random check integers in it: here
equal input gives equal bytes, so a seed that did not change has the same hash.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import struct
from pathlib import Path

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from pcloud.errors import BadInput

KEY_TYPE = "ssh-ed25519"
REVOKED = "@revoked"
"""What begins a line of known_hosts that forbids a key."""
_SALT = b"pcloud/1"
SHORTEST = 16
"""Bytes of a master secret, at least."""


def derive(master: bytes, *labels: str, length: int = 32) -> bytes:
    """`length` bytes (1 to 8160) that only `master` and exactly these labels give.

    Labels are counted and length-prefixed: ("a", "bc") and ("ab", "c") differ. Raises
    `ValueError` for a master under 16 bytes: it would be guessed.
    """
    if len(master) < SHORTEST:
        raise ValueError(f"a master secret has at least {SHORTEST} bytes")
    info = b"".join(_string(label.encode()) for label in labels)
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=_SALT, info=info).derive(master)


def keypair_from_seed(seed32: bytes, comment: str) -> tuple[str, str]:
    """`(private key file, public line)` of the ed25519 key whose RFC 8032 seed this is.

    The private text is an unencrypted OpenSSH key file with its last newline; the public line
    is `ssh-ed25519 AAAA... comment`, without one. Raises `ValueError` for a seed that is not
    32 bytes or a comment that would break a line.
    """
    if len(seed32) != 32:
        raise ValueError("an ed25519 seed has 32 bytes")
    if not comment.isprintable():
        raise ValueError("a key's comment is one printable line")
    raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
    public = Ed25519PrivateKey.from_private_bytes(seed32).public_key().public_bytes(*raw)
    blob = _string(KEY_TYPE.encode()) + _string(public)
    # OpenSSH draws the check integer at random; it only tells a right passphrase from a wrong one.
    checkint = hashlib.sha256(b"checkint" + public).digest()[:4]
    secret = checkint * 2 + blob + _string(seed32 + public) + _string(comment.encode())
    secret += bytes(range(1, 1 + -len(secret) % 8))
    file = b"openssh-key-v1\0" + _string(b"none") * 2 + _string(b"") + struct.pack(">I", 1)
    text = base64.b64encode(file + _string(blob) + _string(secret)).decode()
    lines = [text[i : i + 70] for i in range(0, len(text), 70)]
    private = "\n".join(["-----BEGIN OPENSSH PRIVATE KEY-----", *lines, "-----END OPENSSH PRIVATE KEY-----", ""])
    return private, f"{KEY_TYPE} {base64.b64encode(blob).decode()} {comment}".rstrip()


def known_hosts_line(address: str, public_line: str, *, port: int = 22) -> str:
    """The line of a known_hosts file, without its newline, that pins this key for this address."""
    kind, key = public_line.split()[:2]
    return f"{known_name(address, port)} {kind} {key}"


def known_name(address: str, port: int = 22) -> str:
    """How a known_hosts file writes an address: `10.0.0.1`, or `[10.0.0.1]:2222`."""
    return address if port == 22 else f"[{address}]:{port}"


def fingerprint(blob: bytes) -> str:
    """`SHA256:...` of a public key's blob, as `ssh-keygen -l` shows it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")


def load_pins(known_hosts: Path, address: str, *, port: int = 22) -> frozenset[bytes]:
    """The ed25519 key blobs that a known_hosts file pins for one address; none when it is missing.

    Plain and hashed names count; wildcards and `@cert-authority` lines pin nothing. A key that a
    `@revoked` line names, for whatever host, is no pin. Raises `OSError` for a file that cannot be read.
    """
    try:
        lines = known_hosts.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return frozenset()
    name = known_name(address, port)
    pinned, revoked = set(), set()
    for words in map(str.split, lines):
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        blob = _blob(words)
        if marker == REVOKED:
            revoked.add(blob)
        elif blob and not marker and any(_names(pattern, name) for pattern in words[0].split(",")):
            pinned.add(blob)
    return frozenset(pinned - revoked - {b""})


def _blob(words: list[str]) -> bytes:
    """The key of a known_hosts line without its marker; nothing when it is none of ed25519."""
    if len(words) < 3 or words[1] != KEY_TYPE:
        return b""
    try:
        return base64.b64decode(words[2], validate=True)
    except ValueError:
        return b""


def _names(pattern: str, name: str) -> bool:
    """Whether one entry of a known_hosts line is this name; `|1|salt|hash` is HMAC-SHA1 of it."""
    if not pattern.startswith("|1|"):
        return pattern == name
    try:
        salt, digest = (base64.b64decode(part, validate=True) for part in pattern[3:].split("|"))
    except ValueError:
        return False
    return hmac.compare_digest(hmac.new(salt, name.encode(), hashlib.sha1).digest(), digest)


def _string(data: bytes) -> bytes:
    """RFC 4251's `string`: its length in four bytes, then the bytes."""
    return struct.pack(">I", len(data)) + data


def public_line(private_openssh: str, comment: str) -> str:
    """The public line of an OpenSSH private key (unencrypted). Raises `BadInput`."""
    try:
        key = serialization.load_ssh_private_key(private_openssh.encode(), password=None)
    except ValueError as error:
        raise BadInput(
            "the operator's key is not an OpenSSH private key without a passphrase",
            next="ssh-keygen -t ed25519 -N '' -f operator, and give the file's text as the secret",
        ) from error
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.decode()} {comment}"
