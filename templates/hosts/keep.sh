#!/bin/sh
# What a host keeps of a site's database, in the folder of this script: full backups (ID.mbs.gz, and
# ID.json, written last) and the binary log, streamed as it is written.
#   keep list       what is here; a line each, see pcloud/backups.py
#   keep part ID    takes a backup from standard input, as ID.part
#   keep seal ID SHA256 MANIFEST
#                   ID.part is a backup, when its SHA-256 is this; MANIFEST is what is said of it
#   keep thin EPOCH [ID...]
#                   deletes these backups, and binary logs last written before EPOCH
#   keep hand LINE SESSION
#                   prints a tar of the session's files
#   keep stream     the binary log, until the connection ends; the host's init starts it again
#   keep install | remove
#                   the host's init runs the stream, from now on and at boot; or no longer
# binlog/LINE/SESSION/: the files of one connection as the server names them. LINE is the token of
# the data's last restore (pcloud.restored): after another restore the same positions mean other data.
set -u
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TZ=UTC
umask 077
cd -- "$(dirname -- "$0")" || exit 1
here=$(pwd)
site=$(basename "$here")
unit=pcloud-binlog-$site.service
inittab="::respawn:/bin/sh $here/keep stream"
POLL_S=5

die() { echo "keep: $*" >&2; exit 1; }

sql() { timeout 10 mariadb --defaults-file=client.cnf --connect-timeout=5 -BN -e "$1"; }

#include span.sh

# The span of a session: the start of its first file, the end of its last. Only the session that
# is being written to is read again.
session() {
    [ ! -s "$1/span" ] || { cat "$1/span"; return; }
    first='' last=''
    for file in "$1"/binlog.*; do
        [ -s "$file" ] || continue
        [ -n "$first" ] || first=$file
        last=$file
    done
    [ -n "$first" ] || return 1
    head=$(mariadb-binlog --no-defaults --stop-position=4096 "$first" 2>/dev/null | sed -n '/Gtid list \[/,/\]/p' |
        tr -d '\n# ' | sed 's/.*Gtidlist\[//; s/\].*//')
    tail=$(span "$last")
    echo "${head:--} ${tail#* }"
}

list() {
    child=$(cat stream.child 2>/dev/null)
    ! grep -qa mariadb-binlog "/proc/${child:-0}/cmdline" 2>/dev/null || echo stream
    for manifest in *.json; do
        [ -s "$manifest" ] || continue
        size=$(stat -c %s -- "${manifest%.json}.mbs.gz" 2>/dev/null || echo 0)
        echo "backup $size $(tr -d '\n' <"$manifest")"
    done
    for folder in binlog/*/*/; do
        [ -d "$folder" ] || continue
        span=$(session "${folder%/}") || continue
        folder=${folder#binlog/}
        echo "stretch ${folder%%/*} $(basename "$folder") $span"
    done
}

seal() { # ID SHA256 MANIFEST
    found=$(sha256sum <"$1.part" | cut -d' ' -f1)
    [ "$found" = "$2" ] || { rm -f "$1.part"; die "it arrived as something else"; }
    sync "$1.part" && mv -f "$1.part" "$1.mbs.gz" && printf '%s\n' "$3" >"$1.json.part" && sync "$1.json.part" &&
        mv -f "$1.json.part" "$1.json" && sync .
}

part() {
    find . -maxdepth 1 -name '*.part' -delete
    cat >"$1.part" || { rm -f "$1.part"; die "no room, or the disk fails"; }
    sync "$1.part"
}

thin() { # EPOCH [ID...]
    before=$1
    shift
    for id in "$@"; do rm -f -- "$id.json" "$id.mbs.gz"; done
    find . -maxdepth 1 -name '*.part' -delete
    [ -d binlog ] || return 0
    find binlog -type f -name 'binlog.*' ! -newermt "@$before" -delete
    for folder in binlog/*/*/; do
        [ -d "$folder" ] || continue
        if [ -n "$(find "$folder" -name 'binlog.*')" ]; then rm -f "${folder}span"; else rm -rf "$folder"; fi
    done
    find binlog -mindepth 1 -type d -empty -delete
}

hand() { # LINE SESSION
    cd "binlog/$1/$2" || exit 1
    tar --warning=no-file-changed -cf - binlog.* || [ $? -eq 1 ] # 1: the last one grew meanwhile
}

number() { n=${1##*-}; echo "${n:-0}"; }

# The last of the server's files that begins no later than what is kept of this line ends.
first_file() { # LINE FILES, oldest first
    held=0
    for folder in "binlog/$1"/*/; do
        [ -d "$folder" ] && span=$(session "${folder%/}") || continue
        end=$(number "$(echo "$span" | cut -d' ' -f2)")
        [ "$end" -le "$held" ] || held=$end
    done
    chosen=''
    for file in $2; do
        begins=$(sql "SELECT BINLOG_GTID_POS('$file', 4)") || return 1
        [ -n "$chosen" ] && [ "$(number "$begins")" -gt "$held" ] && break
        chosen=$file
    done
    echo "$chosen"
}

ended() { # the spans of sessions that are over, so that they are read once
    for folder in binlog/*/*/; do
        [ -d "$folder" ] && [ ! -s "${folder}span" ] || continue
        session "${folder%/}" >"${folder}span.part" && mv "${folder}span.part" "${folder}span"
    done
}

# The server, and the line of its data; nothing while they are not whole. Data without a mark were brought by others.
WHO="SET @marked = (SELECT COUNT(*) FROM information_schema.tables
    WHERE table_schema = 'pcloud' AND table_name = 'restored');
EXECUTE IMMEDIATE IF(@marked,
    'SELECT CONCAT(@@server_id, \" \", token) FROM pcloud.restored WHERE id = 1 AND state = \"restored\"',
    'SELECT CONCAT(@@server_id, \" unmarked\")')"

stream() {
    exec 9>stream.lock
    flock -n 9 || { sleep 5; exit 1; }
    echo $$ >stream.pid
    sleep 1 # a server that refuses is asked again, not stormed
    who=$(sql "$WHO") && [ -n "$who" ] || exit 1
    line=${who#* }
    files=$(sql "SHOW BINARY LOGS" | cut -f1) && [ -n "$files" ] || exit 1
    ended
    file=$(first_file "$line" "$files") && [ -n "$file" ] || exit 1
    folder=binlog/$line/$(date +%Y%m%d-%H%M%S)
    mkdir -p "$folder"
    mariadb-binlog --defaults-file=client.cnf --read-from-remote-server --raw --stop-never \
        --stop-never-slave-server-id="$(cat server-id)" --result-file="$folder/" "$file" 9>&- &
    child=$!
    echo $child >stream.child
    trap 'kill $child 2>/dev/null; exit 0' TERM INT
    # A server whose power was cut says nothing, and another one may have its address: ask who is there.
    missed=0
    while [ $missed -lt 2 ]; do
        sleep $POLL_S &
        wait $!
        kill -0 $child 2>/dev/null || break
        if [ "$(sql "$WHO" 9>&-)" = "$who" ]; then missed=0; else missed=$((missed + 1)); fi
    done
    kill $child 2>/dev/null
    wait $child 2>/dev/null
    exit 1
}

halt() {
    pid=$(cat stream.pid 2>/dev/null)
    ! grep -qaF "$here/keep" "/proc/${pid:-0}/cmdline" 2>/dev/null || kill "$pid" 2>/dev/null
}

install() {
    command -v mariadb-binlog >/dev/null && command -v mariadb >/dev/null || die "mariadb-client is not installed"
    if [ -d /run/systemd/system ]; then
        cat >/etc/systemd/system/"$unit" <<END
[Unit]
Description=The binary log of $site, kept here
StartLimitIntervalSec=0

[Service]
ExecStart=/bin/sh $here/keep stream
Restart=always
RestartSec=2

[Install]
WantedBy=multi-user.target
END
        systemctl daemon-reload && systemctl enable --quiet "$unit" && systemctl restart "$unit"
    elif [ -e /etc/inittab ]; then # busybox's init
        grep -qxF "$inittab" /etc/inittab || echo "$inittab" >>/etc/inittab
        kill -HUP 1
        halt
    else
        die "neither systemd nor an inittab is here to run the stream"
    fi
}

remove() {
    if [ -d /run/systemd/system ]; then
        systemctl disable --quiet --now "$unit" 2>/dev/null
        rm -f /etc/systemd/system/"$unit"
        systemctl daemon-reload
    elif grep -qxF "$inittab" /etc/inittab 2>/dev/null; then
        grep -vxF "$inittab" /etc/inittab >/etc/inittab.new
        cat /etc/inittab.new >/etc/inittab
        rm -f /etc/inittab.new
        kill -HUP 1
    fi
    halt
    rm -f stream.pid stream.child client.cnf
}

case "${1-}" in
    list | install | remove | stream) "$1" ;;
    part | seal | thin | hand) verb=$1; shift; "$verb" "$@" ;;
    *) sed -n '4,17s/^# *//p' "$0" >&2; exit 2 ;;
esac
