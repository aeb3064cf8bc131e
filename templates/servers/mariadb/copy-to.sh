#!/bin/bash
# This server's data, as they are at one moment, to another server: all of them, by mariadb-backup.
#   copy-to offer   prints their bytes and MariaDB's version; fails where the data are not whole
#   copy-to give    prints them, compressed; at the end their SHA-256, on standard error
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin TZ=UTC LC_ALL=C
own=/var/lib/mysql
WAIT_S=20 # one that nobody takes any more ends within this

die() { echo "copy-to: $*" >&2; exit 1; }

# Data without a mark were brought by others.
STATE="SET @marked = (SELECT COUNT(*) FROM information_schema.tables
    WHERE table_schema = 'pcloud' AND table_name = 'restored');
EXECUTE IMMEDIATE IF(@marked, 'SELECT state FROM pcloud.restored WHERE id = 1', 'SELECT \'restored\'')"

offer() {
    local state
    state=$(mariadb -BNe "$STATE")
    [ "$state" = restored ] || die "its data are not whole: ${state:-unknown}"
    echo "$(bytes) $(mariadb -BNe 'SELECT VERSION()')"
}

bytes() { # without what mariadb-backup leaves out
    find "$own" -type f ! -path "$own/binlog.*" ! -path "$own/relay.*" ! -path "$own/ib_logfile*" ! -path "$own/ibtmp*" \
        -printf '%s\n' | awk '{ n += $1 } END { printf "%.0f\n", n }'
}

# A server of an older image has no zstd; the other side reads both.
pack() { if command -v zstd >/dev/null; then zstd -q -1 -c; else gzip -1; fi; }

give() {
    exec 9>/run/pcloud-copy-to.lock
    flock -w "$WAIT_S" 9 || die "another copy of its data is being taken"
    made=/var/lib/pcloud/copy-to
    trap 'rm -rf "$made"' EXIT
    rm -rf "$made"
    install -d -m 0700 "$made"
    mkfifo "$made/pipe"
    sha256sum <"$made/pipe" >"$made/sum" &
    mariadb-backup --backup --stream=mbstream --user=root --target-dir="$made/data" 2>"$made/log" | pack | tee "$made/pipe" ||
        { tail -n 3 "$made/log" >&2; die "the data cannot be copied"; }
    wait $!
    tail -n 1 "$made/log" | grep -q 'completed OK!' || { tail -n 3 "$made/log" >&2; die "the data cannot be copied"; }
    echo "sha256 $(cut -c 1-64 "$made/sum")" >&2
}

case "${1-}" in
    offer | give) "$1" ;;
    *) sed -n '3,4s/^# *//p' "$0" >&2; exit 2 ;;
esac
