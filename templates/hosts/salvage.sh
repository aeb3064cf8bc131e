#!/bin/sh
# What the binary log on a dead server's disk holds, read without starting the server and without
# changing its disk. The text of this script is given to `sh -c`; on the host only a lock stays.
#   salvage look DISK FOLDER HELD STATE
#                   the copy's position, and which transactions the living data have not
#   salvage list DISK FOLDER HELD STATE
#                   also those transactions in brief: no value of any row
#   salvage sql DISK FOLDER HELD STATE
#                   also those transactions whole, as SQL
# FOLDER is for scratch files, on a file system with room. HELD is the living primary's position, STATE
# its gtid_binlog_state ("-" for none): the last transaction of each server in each domain.
#
# Only the file system's metadata on the way to the binary log and the log itself are copied from
# the disk, into a sparse file of the disk's size. The server lost its power, so the file system's
# journal is replayed there after each portion: it may say otherwise than the blocks that it covers.
#
# Answers, a line each: `doing TEXT`, `at POSITION` (nothing: no data; `unknown`: data, and no
# transaction that says which), `until TIME`, `missing N FIRST LAST`, `gap` (the log begins later
# than the first one that is missing), `damaged TEXT`; then `--` and the transactions.
set -u
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C TZ=UTC
umask 077
DATA="var lib mysql"
RESERVE=$((256 << 20)) # what is left to the servers that write into the same file system
HEAD=65536

die() { echo "salvage: $*" >&2; exit 1; }

#include span.sh

room() { # BYTES
    free=$(($(stat -f -c '%a * %S' .)))
    [ $((free - RESERVE)) -ge "$1" ] ||
        die "$folder has room for $((free >> 20)) MiB: $(($1 >> 20)) MiB are needed, and $((RESERVE >> 20)) stay free"
}

option() { printf %s "$1" | sed 's/,/,,/g'; }

# Bytes of the disk, into the scratch file at the same place after `base`.
window() { # START SIZE, from the start of the file system
    source="driver=raw,offset=$((base + $1)),size=$2,file.driver=qcow2,file.file.driver=file"
    target="driver=raw,offset=$1,size=$2,file.driver=file,file.filename=fs"
    qemu-img convert -n --image-opts --target-image-opts \
        "$source,file.file.filename=$(option "$disk")" "$target" 2>error ||
        die "the disk cannot be read: $(head -n 1 error)"
}

type_of() { blkid -p -o value -s "$1" fs 2>/dev/null; }

# Sets `base` and `size`: where the biggest ext4 file system is, the whole disk or a partition of it.
find_file_system() {
    said=$(qemu-img info -f qcow2 --output=json "$disk" 2>&1) || die "the disk cannot be read: $(echo "$said" | head -n 1)"
    whole=$(echo "$said" | sed -n 's/.*"virtual-size": \([0-9]*\).*/\1/p' | tail -n 1)
    [ -n "$whole" ] || die "the disk does not say how large it is"
    base=0 size=0
    truncate -s "$whole" fs || die "no sparse file of $((whole >> 30)) GiB can be made in $folder"
    window 0 "$(least $((1 << 20)) "$whole")"
    kind=$(type_of TYPE)
    case $kind in
        ext4) size=$whole ; return ;;
        ?*) die "its disk holds $kind; only ext4 can be read" ;;
    esac
    partx --raw --noheadings --output START,SECTORS fs 2>/dev/null | sort -k 2,2nr >parts
    [ -s parts ] || die "its disk holds neither ext4 nor partitions"
    kinds=''
    while read -r start sectors; do
        base=$((start * 512)) size=$((sectors * 512))
        [ $((base + HEAD)) -le "$whole" ] && [ "$size" -ge "$HEAD" ] || continue
        rm -f fs
        truncate -s "$size" fs
        window 0 $HEAD
        kind=$(type_of TYPE)
        [ "$kind" != ext4 ] || return 0
        kinds="$kinds ${kind:-unknown}"
    done <parts
    die "no partition of its disk holds ext4, but:$kinds"
}

least() { if [ "$1" -le "$2" ]; then echo "$1"; else echo "$2"; fi; }

value() { sed -n "s/^$1: *//p" super; }

# Sets `block` (bytes) and `head`: how much of the beginning is the superblock and the groups' descriptors.
read_super() {
    dumpe2fs -h fs >super 2>/dev/null
    block=$(value "Block size")
    blocks=$(value "Block count")
    [ -n "$block" ] && [ -n "$blocks" ] || die "its file system's superblock cannot be read"
    [ $((blocks * block)) -le "$size" ] || die "its file system is larger than its disk"
    for feature in $(value "Filesystem features"); do
        case $feature in
            needs_recovery) dirty=1 ;;
            meta_bg | fast_commit | journal_dev | encrypt | casefold | bigalloc)
                die "its file system has the feature $feature, which is not supported" ;;
        esac
    done
    per_group=$(value "Blocks per group") first=$(value "First block") each=$(value "Group descriptor size")
    groups=$(((blocks - first + per_group - 1) / per_group))
    head=$((((first + 1) * block + groups * ${each:-32} + block - 1) / block * block))
    window 0 $head
}

ask() { debugfs -c -R "$1" fs 2>complaint; }

# Leaves the answer in `said`; here a complaint is an error, as all that is needed has been copied.
insist() {
    ask "$1" >said
    ! grep -v '^debugfs [0-9]' complaint >error || die "its file system is damaged: $(head -n 1 error)"
}

# The runs of blocks of a file's content and of its extent tree, as far as it has been copied: `FIRST COUNT`.
runs() { # INODE
    ask "dump_extents <$1>" | awk '/^ *[0-9]+\// { gsub(/[\/-]/, " "); print $7, ($1 == $2 ? $8 - $7 + 1 : 1) }'
}

home() { # INODE: the block that it is in
    ask "imap <$1>" | sed -n 's/.*located at block \([0-9]*\),.*/\1 1/p'
}

replay() {
    [ -n "$dirty" ] || return 0
    window 0 $head
    window $((journal * block)) "$block" # as it was: what has been replayed once is replayed again
    e2fsck -y -E journal_only fs >error 2>&1 ||
        [ $? -eq 1 ] || die "its file system's journal cannot be replayed: $(tail -n 1 error)"
}

# Copies a file's inode, extent tree and content; in portions, as each says where the next one is. What
# lies between two runs is copied too where that is less work than another call.
take() { # INODE
    while { home "$1"; runs "$1"; } | grep -vxF -f copied >wanted; do
        cat wanted >>copied
        sort -n wanted | awk '
            NR > 1 && $1 <= end + 256 { if ($1 + $2 > end) end = $1 + $2; next }
            NR > 1 { print from, end - from }
            { from = $1; end = $1 + $2 }
            END { print from, end - from }' >windows
        while read -r from length; do
            window $((from * block)) $((length * block))
        done <windows
        [ -z "$journal" ] || replay
    done
}

open_disk() {
    dirty='' journal=''
    find_file_system
    read_super
    : >copied
    if [ -n "$dirty" ]; then
        echo "doing replaying the file system's journal"
        take 8
        journal=$(runs 8 | head -n 1 | cut -d' ' -f1)
        [ -n "$journal" ] || die "its file system's journal cannot be found"
        replay
    fi
    inode=2
    for part in $DATA; do
        take $inode
        insist "ls -p <$inode>"
        inode=$(awk -F/ -v name="$part" '$6 == name { print $2 }' said)
        [ -n "$inode" ] || die "there is no /$(echo "$DATA" | tr ' ' /) on its disk"
    done
    take "$inode"
    insist "ls -p <$inode>"
    mv said names
}

# `INODE NAME` of the log's files, oldest first.
files() { # binlog|relay
    awk -F/ -v kind="$1" '$6 ~ "^" kind "\\.[0-9]+$" { print substr($6, index($6, ".") + 1), $2, $6 }' names |
        sort -n | cut -d' ' -f2,3
}

# Whether the server ever had a database of its own: a folder that MariaDB's installation does not make.
has_data() {
    insist "ls -l <$inode>"
    awk '$3 == "(2)" && $NF !~ /^(\.|\.\.|mysql|performance_schema|sys|pcloud|lost\+found|#.*)$/ { found = 1 }
        END { exit !found }' said
}

extract() { # INODE NAME; not 0 when it is no binary log
    take "$1"
    insist "ls -p <$inode>"
    bytes=$(awk -F/ -v name="$2" '$6 == name { print $7 }' said)
    echo "doing reading $2, $((${bytes:-0} >> 20)) MiB"
    room $((2 * ${bytes:-0}))
    insist "dump <$1> $2"
    [ "$(head -c 4 "$2" | od -An -tx1 | tr -d ' \n')" = fe62696e ]
}

# Which of the transactions on standard input the living data have not. Within a domain, all that follows the first
# of them: it is another branch. The relay log's come after a line `relay`, and repeat some of the binary log's.
compare() {
    awk -v held="$held" -v state="$state" '
        BEGIN {
            n = split(held, words, ",")
            for (i = 1; i <= n; i++) { split(words[i], part, "-"); has[part[1]] = part[3] + 0 }
            n = state == "-" ? 0 : split(state, words, ",")
            for (i = 1; i <= n; i++) {
                split(words[i], part, "-")
                did[part[1] "-" part[2]] = part[3] + 0
                if (part[3] + 0 > has[part[1]] + 0) has[part[1]] = part[3] + 0
            }
        }
        function lacks(gtid,  part, who) {
            split(gtid, part, "-")
            who = part[1] "-" part[2]
            return part[3] + 0 > has[part[1]] + 0 || (who in did && part[3] + 0 > did[who])
        }
        function sequence(gtid,  part) { split(gtid, part, "-"); return part[3] + 0 }
        function join(map,  domain, all) {
            for (domain in map) all = all (all == "" ? "" : ",") map[domain]
            return all
        }
        $1 == "relay" { relay = 1; for (domain in end) logged[domain] = end[domain]; next }
        $1 == "list" {
            n = split($2, words, ",")
            for (i = 1; i <= n; i++) {
                split(words[i], part, "-")
                if (part[3] + 0 <= sequence(end[part[1]])) continue
                end[part[1]] = words[i] # before the first file that was read, or in a damaged part of one
                if (lacks(words[i])) gap = branched[part[1]] = 1; else before[part[1]] = words[i]
            }
            next
        }
        {
            split($1, part, "-")
            domain = part[1]
            if (relay && part[3] + 0 <= sequence(end[domain])) next
            end[domain] = $1
            latest = $2
            if (domain in branched || lacks($1)) {
                branched[domain] = 1
                missing++
                if (first == "") first = $2
                last = $2
            } else before[domain] = $1
        }
        END {
            print "at", join(end)
            if (latest != "") print "until", latest
            print "missing", missing + 0, first, last
            if (gap) print "gap"
            print "before", join(before)
            for (domain in before) if (sequence(before[domain]) > sequence(logged[domain])) logged[domain] = before[domain]
            print "logged", join(logged)
        }'
}

fact() { sed -n "s/^$1 //p" facts; }

# What is wrong with a file. That the newest one ends within a transaction is not: the server lost its power, and
# what it had acknowledged was on its disk.
complain() { # NAME newest|older
    trouble=$(grep -v '^WARN' complaints | head -n 1)
    case $2,$trouble in
        *, | newest,*"Event truncated"*) ;;
        *) echo "damaged $1: $trouble" ;;
    esac
}

# Sets `logs`: the binary log's files from the one in which the first missing transaction is, or `limit` at most.
# Their transactions go to `gtids`.
read_binlog() {
    logs='' count=0
    files binlog | tac >newest
    while read -r number name; do
        [ $count -lt "$limit" ] || { echo gap; break; }
        if ! extract "$number" "$name"; then
            [ -n "$logs" ] || [ -s "$name" ] || continue # it had just been begun
            echo "damaged $name: it is no binary log"
            continue
        fi
        count=$((count + 1))
        transactions "$name" >"of.$name"
        complain "$name" "$(if [ -n "$logs" ]; then echo older; else echo newest; fi)"
        logs="$name $logs"
        begins=$(head -n 1 "of.$name")
        case $begins in list*) ;; *) continue ;; esac
        echo "$begins" | compare | grep -qx gap || break
    done <newest
    for name in $logs; do cat "of.$name"; done >gtids
}

# Adds the relay log to it, back to a file whose first transaction is in the binary log already.
read_relay() {
    received='' count=0
    files relay | tac >newest
    while read -r number name; do
        [ $count -lt "$limit" ] || { echo gap; break; }
        extract "$number" "$name" || continue
        count=$((count + 1))
        received="$name $received"
        transactions "$name" | grep -v ^list | head -n 1 >first
        [ -s first ] || continue
        { cat gtids; echo relay; cat first; } | compare | grep '^at ' >after
        compare <gtids | grep '^at ' | cmp -s - after && break
    done <newest
    [ -n "$received" ] || return 0
    # shellcheck disable=SC2086 # names without blanks, and a transaction may go on in the next file
    { echo relay; transactions $received; } >>gtids
    complain "the relay log" newest
}

print() { # OPTION... FILE...
    mariadb-binlog --no-defaults --verify-binlog-checksum --skip-gtid-strict-mode --skip-annotate-row-events \
        --verbose "$@" 2>/dev/null
}

# No value of a row, and of a statement its first two words.
brief() {
    awk '/^#[0-9]+ +[0-9:]+ server id / { query = /\tQuery\t/; print; next }
        /^### (INSERT INTO|UPDATE|DELETE FROM) / || /^(START TRANSACTION|BEGIN|COMMIT|ROLLBACK|# relay)/ { print; next }
        query && !/^(SET |\/\*|use |DELIMITER|#|$)/ { print $1, $2; query = 0 }'
}

# Per domain the later one of a position and of where files begin: mariadb-binlog prints nothing of a file that
# begins later than it is told to.
start() { # POSITION FILE...
    wanted=$1
    shift
    begins=$(transactions "$@" | sed -n 's/^list //p;q')
    echo "$wanted,$begins" | tr ',' '\n' | awk -F- 'NF == 3 && $3 + 0 > at[$1] + 0 { at[$1] = $3; gtid[$1] = $0 }
        END { for (domain in gtid) printf "%s%s", (n++ ? "," : ""), gtid[domain] }'
}

tell() { # OPTION...: the missing transactions
    for name in $logs; do
        from=$(start "$(fact before)" "$name")
        print "$@" ${from:+"--start-position=$from"} "$name"
    done
    [ -n "$received" ] || return 0
    echo "# relay"
    # shellcheck disable=SC2086
    from=$(start "$(fact logged)" $received)
    # shellcheck disable=SC2086
    print "$@" ${from:+"--start-position=$from"} $received
}

[ $# -eq 5 ] || { echo "salvage: look|list|sql DISK FOLDER HELD STATE" >&2; exit 2; }
verb=$1 disk=$2 folder=$3 held=$4 state=$5
case $verb in look) limit=3 ;; list | sql) limit=1000000 ;; *) die "no such verb: $verb" ;; esac
[ -e "$disk" ] || die "$disk is not there"
for tool in qemu-img blkid partx dumpe2fs debugfs e2fsck mariadb-binlog; do
    command -v $tool >/dev/null || die "$tool is not installed"
done
mkdir -p "$folder" && cd "$folder" || die "$folder cannot be made"
exec 9>lock
flock -w 60 9 || die "another one is reading a disk on this host"
rm -rf scratch # of one that was killed
trap 'cd /; rm -rf "$folder/scratch"' EXIT
trap 'exit 1' HUP INT TERM PIPE
mkdir scratch && cd scratch || die "$folder cannot be written to"
complaints=complaints
room $((64 << 20))
open_disk
read_binlog
read_relay
compare <gtids >facts
if ! grep -q '^at .' facts && has_data; then sed -i 's/^at $/at unknown/' facts; fi
grep -E '^(at|until|missing|gap)' facts
echo --
[ "$(fact missing | cut -d' ' -f1)" != 0 ] || exit 0
case $verb in
    list) tell --base64-output=decode-rows | brief ;;
    sql) tell ;;
esac
