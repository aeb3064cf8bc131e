#!/bin/sh
# What a host keeps of a site's database, in the folder of this script: full backups (ID.mbs.zst, or
# ID.mbs.gz, as they were before; and ID.json, written last) and the binary log, streamed as it is written.
#   keep list       what is here; a line each, see pcloud/backups.py
#   keep part ID    takes a backup from standard input, as ID.part
#   keep seal ID SHA256 MANIFEST
#                   ID.part is a backup, when its SHA-256 is this; MANIFEST is what is said of it
#   keep give ID    prints it
#   keep prove ID PROOF
#                   PROOF is what was proven of a backup that is here
#   keep job fetch ID BYTES SHA256 ADDRESS
#                   has the backup from the server's `backup give`; what came of it before is not fetched again. It
#                   reads an order: a line MANIFEST, the server's host key, the private key of the door
#   keep job send-backup ADDRESS ID
#   keep job send-log ADDRESS LINE SESSION
#                   gives it to what a door of the server leads to; an order as above, with an empty first line
#   keep ask, words, said
#                   how far the job is, which it is, what it printed: see job.sh. It goes on by itself
#   keep thin LIMIT,... [ID...]
#                   deletes these backups, and binary logs that hold no transaction past a LIMIT: LINE/DOMAIN/NUMBER
#   keep hand LINE SESSION
#                   prints a tar of the session's files;  keep add LINE SESSION: takes one, as another host gave it
#   keep stream     the binary log, until the connection ends; the host's init starts it again. While the primary is
#                   silent, what its replica has
#   keep heard      until when the primary answered here, and where it was then: see heard.sh
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
MEND_S=1800
MEND_POLLS=60 # how many polls lie between two looks at what is missing

die() { echo "keep: $*" >&2; exit 1; }

peer='' # the address of the server that is asked; nothing: the primary's, which is in client.cnf
sql() { at "$peer" "$1"; }
at() { timeout 10 mariadb --defaults-file=client.cnf ${1:+--host="$1"} --connect-timeout=5 -BN -e "$2"; } # ADDRESS SQL

#include span.sh
#include heard.sh
#include rest.sh
#include job.sh
#include passing.sh

# What is in a file, from what `transactions` says after the runs that are known of it already: `read START END SIZE`
# (what the file says that it begins after, the end of its last whole transaction, how long the file was), then of
# each run of transactions in one domain, none missing between: `run START FIRST LAST BEGAN ENDED`.
# Nothing when mariadb-binlog ended in another way than at the file's end, or where it is torn or damaged.
runs() { # START END SIZE
    awk -v start="$1" -v end="$2" -v size="$3" '
        function add(from, to, since, until,  part, domain, n) {
            split(from, part, "-")
            domain = part[1]
            n = last[domain]
            if (!n || number[n] + 1 != part[3]) {
                n = last[domain] = ++count
                after[n] = start; first[n] = from; began[n] = since
            }
            split(to, part, "-")
            number[n] = part[3] + 0; latest[n] = to; ended[n] = until
        }
        $1 == "list" { start = $2 == "" ? "-" : $2; next }
        $1 == "run" { add($3, $4, $5, $6); next }
        $1 == "ended" { code = $2; whole = $3; next }
        { add($1, $1, $2, $2); end = $3 }
        END {
            if (code != "1" && (code != "0" || whole == "")) exit 1
            print "read", start, end, size
            for (n = 1; n <= count; n++) print "run", after[n], first[n], latest[n], began[n], ended[n]
        }'
}

# The same of a file, kept beside it (span.NUMBER), so that only what is new is read.
read_file() { # FILE
    span=${1%/*}/span.${1##*.} now=$(stat -c %s -- "$1") start=- end=4 size=''
    [ ! -s "$span" ] || read -r _ start end size <"$span"
    if [ "$now" = "$size" ]; then cat "$span"; return; fi
    from=''
    [ "$end" = 4 ] || from=--start-position=$end
    complaints=$(mktemp /run/pcloud-keep.XXXXXX) || return 1 # `$$` is the same in the background
    tells=yes new=$span.${complaints##*.}
    made=$({ grep '^run ' "$span" 2>/dev/null; transactions $from "$1"; } | runs "$start" "$end" "$now")
    wrong=$(grep -v "$ENDS" "$complaints" | grep ERROR)
    rm -f "$complaints"
    case $made in "read "*) ;; *) return 1 ;; esac
    [ -n "$wrong" ] || { printf '%s\n' "$made" >"$new" && mv -f "$new" "$span"; } 2>/dev/null || rm -f "$new"
    printf '%s\n' "$made"
}

# How a file may end: within an event, as a connection that ends leaves it, or where it is damaged. What else keeps
# mariadb-binlog from reading on may be gone the next time.
ENDS='Event truncated\|Could not read entry\|Event crc check failed\|Event invalid\|Event too \(big\|small\)'

session() { # LINE SESSION
    said=$(for file in "binlog/$1/$2"/binlog.*; do [ ! -s "$file" ] || read_file "$file" || exit 1; done) ||
        die "binlog/$1/$2 cannot be read"
    [ -z "$said" ] || echo "$said" | awk -v name="$1 $2" '
        $1 == "read" && !begun { print "stretch", name, $2; begun = 1 }
        $1 == "run"'
}

list() {
    child=$(cat stream.child 2>/dev/null)
    ! grep -qa mariadb-binlog "/proc/${child:-0}/cmdline" 2>/dev/null || grep -qa -e --host= "/proc/$child/cmdline" ||
        echo "stream $(cat stream.session 2>/dev/null)"
    for manifest in *.json; do
        [ -s "$manifest" ] || continue
        size=$(stat -c %s -- "$(file_of "${manifest%.json}")" 2>/dev/null || echo 0)
        echo "backup $size $(tr -d '\n' <"$manifest")"
    done
    for proof in *.proof; do
        [ ! -s "$proof" ] || echo "proof $(tr -d '\n' <"$proof")"
    done
    for folder in binlog/*/*/; do
        folder=${folder#binlog/}
        folder=${folder%/}
        case $folder in '*/*' | *.part) continue ;; esac
        session "${folder%/*}" "${folder#*/}"
    done
}

seal() { # ID SHA256 MANIFEST
    found=$(sha256sum <"$1.part" | cut -d' ' -f1)
    [ "$found" = "$2" ] || { rm -f "$1.part"; die "it arrived as something else"; }
    own "$1" "$1.part" "$3"
}

own() { # ID FILE MANIFEST
    case $(head -c 4 "$2" | od -An -tx1 | tr -d ' ') in 28b52ffd) kind=zst ;; *) kind=gz ;; esac
    sync "$2" && mv -f "$2" "$1.mbs.$kind" && printf '%s\n' "$3" >"$1.json.part" && sync "$1.json.part" &&
        mv -f "$1.json.part" "$1.json" && sync .
}

prove() { # ID PROOF
    [ -s "$1.json" ] || die "it keeps no backup $1"
    printf '%s\n' "$2" >"$1.proof.part" && sync "$1.proof.part" && mv -f "$1.proof.part" "$1.proof" && sync .
}

file_of() { # ID
    for file in "$1.mbs.zst" "$1.mbs.gz"; do [ ! -e "$file" ] || { echo "$file"; return; }; done
    echo "$1.mbs"
}

give() { cat -- "$(file_of "$1")"; } # ID

part() {
    find . -maxdepth 1 -name '*.part' -delete
    cat >"$1.part" || { rm -f "$1.part"; die "no room, or the disk fails"; }
    sync "$1.part"
}

# Of the binary logs those go whose transactions are all up to a LIMIT; what is being written to stays.
thin() { # LIMIT,... [ID...]
    limits=$1
    shift
    for id in "$@"; do rm -f -- "$id.json" "$id.mbs.zst" "$id.mbs.gz" "$id.proof"; done
    find . -maxdepth 1 -name '*.part' -delete
    list >/dev/null || exit 1
    now=$(tr ' ' / <stream.session 2>/dev/null)
    for folder in binlog/*/*/; do
        [ -d "$folder" ] || continue
        line=${folder#binlog/}
        last=''
        for file in "$folder"binlog.*; do last=$file; done
        for file in "$folder"binlog.*; do
            [ "$file$folder" != "${last}binlog/$now/" ] || continue
            ! needless "${line%%/*}" "$limits" <"${folder}span.${file##*.}" 2>/dev/null ||
                rm -f -- "$file" "${folder}span.${file##*.}"
        done
        [ -n "$(find "$folder" -name 'binlog.*')" ] || rm -rf "$folder"
    done
    [ ! -d binlog ] || find binlog -mindepth 1 -type d -empty -delete
}

needless() { # LINE LIMITS, a span on standard input
    awk -v line="$1" -v limits="$2" '
        BEGIN { n = split(limits, each, ","); for (i = 1; i <= n; i++) { split(each[i], part, "/"); limit[part[1] "/" part[2]] = part[3] + 0 } }
        $1 == "run" { split($4, part, "-"); key = line "/" part[1]; if (!(key in limit) || limit[key] < part[3] + 0) { needed = 1 } }
        END { exit needed || !NR }'
}

hand() { # LINE SESSION
    cd "binlog/$1/$2" || exit 1
    tar --warning=no-file-changed -cf - binlog.* || [ $? -eq 1 ] # 1: the last one grew meanwhile
}

# Whether position A holds what B does; where A says nothing of a domain it does not.
holds() { # A B
    awk -v a="$1" -v b="$2" 'BEGIN {
        n = split(a, each, ","); for (i = 1; i <= n; i++) { split(each[i], part, "-"); have[part[1]] = part[3] + 0 }
        n = split(b, each, ","); for (i = 1; i <= n; i++) { split(each[i], part, "-"); if (have[part[1]] < part[3] + 0) exit 1 }
    }'
}

# How far what was streamed of a line goes, as a position: what a replica received may begin after something that is missing here.
tip() { # LINE
    list | awk -v line="$1" '
        $1 == "stretch" { own = $2 == line && $3 !~ /-rest/ }
        $1 == "run" && own { split($4, part, "-"); if (most[part[1]] <= part[3] + 0) { most[part[1]] = part[3] + 0; at[part[1]] = $4 } }
        END { for (domain in at) { printf "%s%s", comma, at[domain]; comma = "," } }'
}

# The last of the server's files that begins no later than what is kept of this line ends.
first_file() { # LINE FILES, oldest first
    held=$(tip "$1")
    chosen=''
    for file in $2; do
        begins=$(sql "SELECT BINLOG_GTID_POS('$file', 4)") || return 1
        [ -z "$chosen" ] || holds "$held" "$begins" || break
        chosen=$file
    done
    echo "$chosen"
}

# What is missing of a line between what is kept of it: `DOMAIN FIRST LAST`. Also what files say that they
# begin after; but nothing before the first transaction that is kept.
holes() { # LINE
    list | awk -v line="$1" '
        function need(position,  n, i, each, part) {
            n = split(position, each, ",")
            for (i = 1; i <= n; i++) if (split(each[i], part, "-") == 3) print part[1], 0, part[3]
        }
        $1 == "stretch" { own = $2 == line; if (own) need($4) }
        $1 == "run" && own { need($2); split($3, first, "-"); split($4, last, "-"); print first[1], first[3], last[3] }
    ' | sort -k 1,1n -k 2,2n | awk '
        function close_domain() { if (runs && want > at) print domain, at + 1, want; runs = want = 0 }
        NR == 1 || $1 != domain { close_domain(); domain = $1 }
        $2 == 0 { if (want < $3) want = $3; next }
        { if (runs++ && $2 > at + 1) print domain, at + 1, $2 - 1; if (runs == 1 || at < $3) at = $3 }
        END { close_domain() }'
}

# Which of a server's files hold what is missing, from `FILE BEGINS` of each in their order.
files_with() { # DOMAIN FIRST LAST
    awk -v domain="$1" -v from="$2" -v to="$3" '
        function number(position,  n, i, each, part) {
            n = split(position, each, ",")
            for (i = 1; i <= n; i++) { split(each[i], part, "-"); if (part[1] == domain) return part[3] + 0 }
            return 0
        }
        { name[NR] = $1; at[NR] = number($2) }
        END { for (i = 1; i <= NR; i++) if (at[i] < to && (i == NR || at[i + 1] >= from)) print name[i] }'
}

# What is missing is asked of the primary, then of the other servers with the data, which log what they apply, too.
# What a server was asked for once it is not asked for again.
mend() { # LINE
    exec 8>mend.lock
    flock -n 8 || return 0
    : >>asked
    for host in '' $(cat peers 2>/dev/null); do
        missing=$(holes "$1")
        [ -n "$missing" ] || return 0
        number=$(at "$host" "$WHO") && [ "${number#* }" = "$1" ] || continue
        begins=$(for file in $(at "$host" "SHOW BINARY LOGS" | cut -f1); do
            echo "$file $(at "$host" "SELECT BINLOG_GTID_POS('$file', 4)")"
        done)
        wanted=$(echo "$missing" | while read -r domain first last; do
            echo "$begins" | files_with "$domain" "$first" "$last" | sed "s/^/${number% *} $domain $first $last /"
        done | grep -vxFf asked)
        [ -n "$wanted" ] || continue
        folder=binlog/$1/$(date +%Y%m%d-%H%M%S)-${number% *}
        mkdir -p "$folder"
        timeout "$MEND_S" mariadb-binlog --defaults-file=client.cnf ${host:+--host="$host"} --read-from-remote-server \
            --raw --result-file="$folder/" $(echo "$wanted" | cut -d' ' -f5 | sort -u) && echo "$wanted" >>asked
        rmdir "$folder" 2>/dev/null
    done
}

# What another host keeps of a session, from standard input.
add() { # LINE SESSION
    new=binlog/$1/$2.part
    rm -rf "$new"
    mkdir -p "$new" && tar -xf - -C "$new" && sync && rm -rf "binlog/${1:?}/${2:?}" && mv -T "$new" "binlog/$1/$2" ||
        { rm -rf "$new"; die "no room, or the disk fails"; }
}

stream() {
    exec 9>stream.lock
    flock -n 9 || { sleep 5; exit 1; }
    echo $$ >stream.pid
    sleep 1 # a server that refuses is asked again, not stormed
    find_source 9>&- || exit 1
    source=$who line=${who#* }
    files=$(sql "SHOW BINARY LOGS" | cut -f1) && [ -n "$files" ] || exit 1
    forget_rests "$line"
    file=$(first_file "$line" "$files") && [ -n "$file" ] || exit 1
    session=$(date +%Y%m%d-%H%M%S)
    folder=binlog/$line/$session
    mkdir -p "$folder"
    mariadb-binlog --defaults-file=client.cnf ${peer:+--host="$peer"} --read-from-remote-server --raw --stop-never \
        --stop-never-slave-server-id="$(cat server-id)" --result-file="$folder/" "$file" 9>&- &
    child=$!
    [ -n "$peer" ] || streamed=$folder
    echo "$line $session" >stream.session
    echo $child >stream.child
    trap 'kill $child 2>/dev/null; exit 0' TERM INT
    # A server whose power was cut says nothing, and another one may have its address: ask who is there.
    missed=0 polls=0
    while :; do
        sleep $POLL_S &
        wait $!
        [ $((polls % MEND_POLLS)) -ne 0 ] || mend "$line" 9>&- &
        polls=$((polls + 1))
        kill -0 $child 2>/dev/null && goes_on "$source" 9>&- || break
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
    rm -f stream.pid stream.child stream.session client.cnf peers heard
}

case "${1-}" in
    job) shift; job_begin "$job" "$here/keep" run "$@" ;;
    ask | words | said) job_"$1" "$job" ;;
    supervise) shift; job_supervise "$@" ;;
    run) verb=$2; shift 2; case $verb in fetch | send-backup | send-log) "$(echo $verb | tr - _)" "$@" ;; esac ;;
    list | heard | install | remove | stream) "$1" ;;
    part | seal | give | prove | thin | hand | add) verb=$1; shift; "$verb" "$@" ;;
    *) sed -n '4,28s/^# *//p' "$0" >&2; exit 2 ;;
esac
