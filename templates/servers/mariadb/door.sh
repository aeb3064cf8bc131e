#!/bin/bash
# One way in, for one copy: whoever holds the private half of a key made for it may, once and within two minutes,
# run one command here. sshd lets that key do nothing else, and whoever comes in shuts the door behind him.
#   door open NAME PROGRAM WORD...   reads the public key from standard input; PROGRAM: copy-to, backup or replica
#   door shut NAME
#   door enter NAME PROGRAM WORD...  what sshd runs for the key
set -eu
keys=/root/.ssh/authorized_keys2 # sshd reads it beside authorized_keys
OPEN_S=120

die() { echo "door: $*" >&2; exit 1; }

lock() { exec 9>/run/pcloud-door.lock; flock -w 10 9 || die "another one is at the door"; }

put() { # the file without the door NAME and those whose time is over; what is on standard input comes after it
    local now
    now=$(date +%Y%m%d%H%M%S)
    { grep -v " pcloud-door-$1\$" "$keys" 2>/dev/null | awk -F '"' -v now="$now" '$2 "" >= now ""' || true; cat; } >"$keys.new"
    chmod 0600 "$keys.new"
    mv "$keys.new" "$keys"
}

open() {
    local kind key
    read -r kind key _ || true
    [[ "$kind $key" =~ ^ssh-ed25519\ [A-Za-z0-9+/=]{40,100}$ ]] || die "no key"
    [[ "$*" =~ ^[a-z0-9-]+\ (copy-to|backup|replica)(\ [A-Za-z0-9_.,-]+)+$ ]] || die "no command: $*"
    lock
    put "$1" <<<"restrict,expiry-time=\"$(date -d "+$OPEN_S seconds" +%Y%m%d%H%M%S)\",command=\"$0 enter $*\" $kind $key pcloud-door-$1"
}

enter() {
    lock
    grep -q " pcloud-door-$1\$" "$keys" 2>/dev/null || die "it was used before"
    put "$1" </dev/null
    exec 9>&-
    exec "${0%/*}/$2" "${@:3}"
}

case "${1-}" in
    open | enter) "$@" ;;
    shut) lock; put "${2:?name}" </dev/null ;;
    *) sed -n '4,6s/^# *//p' "$0" >&2; exit 2 ;;
esac
