# What a replica has while the primary is silent, so that it outlives the replica's disk, too. The account is that of
# replication, and may read no more than before: the replica's binary log holds what it has applied, and is streamed
# like a primary's where it leads further than what is here; what it received and has not applied is in a table there
# (`replica`, templates/servers/mariadb), and is kept as a session of its own, whose name ends in -restN.
SILENT_S=10
RESERVE_MIB=256 # what is left to the servers that write into the same file system

# Where the stream comes from, as `peer` (empty: the primary's address) and `who`. Fails when there is nothing to stream.
find_source() {
    peer='' streamed=''
    ask_primary
    [ -z "$who" ] || return 0
    [ -e peers ] && silent || return 1
    while read -r address; do
        ask_who "$address" </dev/null
        [ "$does" = reads ] || continue
        peer=$address line=${who#* }
        take_rest </dev/null
        holds "$(tip "$line")" "$position" || return 0
    done <peers
    return 1
}

# A moment without an answer is no silence.
silent() { [ ! -s heard ] || heard | awk -v limit=$SILENT_S '{ exit $2 < limit }'; }

# Whether the stream goes on: its source is WHO. A primary is left when it misses two questions, a replica for the primary.
goes_on() { # WHO
    if [ -z "$peer" ]; then
        ask_primary
        if [ "$who" = "$1" ]; then missed=0; else missed=$((missed + 1)); fi
        [ $missed -lt 2 ]
    else
        ask_primary
        [ -z "$who" ] || return 1
        ask_who "$peer"
        [ "$who $does" = "$1 reads" ] || return 1
        take_rest
    fi
}

# The replica's table, where it is another one than the last. It is whole or not there at all.
take_rest() {
    stamp=$(sql "SELECT table_comment FROM information_schema.tables WHERE table_schema = 'pcloud' AND table_name = 'rest'")
    case $stamp in "" | *[!0-9a-f]*) return 0 ;; esac
    ! grep -qxF "$peer $stamp" rest.taken 2>/dev/null || return 0
    rm -rf rest.new && mkdir rest.new || return 0
    if fetch_rest; then
        number=0
        for set in rest.new/[0-9]*/; do
            number=$((number + 1))
            keep_rest "$set" "$(date +%Y%m%d-%H%M%S)-rest$number"
        done
        echo "$peer $stamp" >rest.taken
        forget_rests "$line"
    fi
    rm -rf rest.new
}

fetch_rest() {
    size=$(sql "SELECT COALESCE(SUM(LENGTH(data)), 0) FROM pcloud.rest") || return 1
    free=$(df --output=avail -m . | tail -n 1)
    [ "$free" -gt $((size / 1048576 * 10 + RESERVE_MIB)) ] || { echo "keep: $free MiB are free: no room for what the replica received" >&2; return 1; }
    timeout 600 mariadb --defaults-file=client.cnf --host="$peer" --connect-timeout=5 --quick -BN \
        -e "SELECT REPLACE(TO_BASE64(data), CHAR(10), '') FROM pcloud.rest ORDER BY number" 2>/dev/null | base64 -d >rest.new/packed
    gzip -t rest.new/packed 2>/dev/null && gzip -dc rest.new/packed | tar -xf - --no-same-owner -C rest.new && rm -f rest.new/packed
}

# Relay logs of one set, which follow each other, as one file: a transaction may begin in one and end in the next.
# What came before its first one, the replica has: what the files say of that themselves is not so where MariaDB went
# from one to the next. The file does not change, so that nothing is read again (`read_file`).
keep_rest() { # SET SESSION
    file=rest.new/binlog.000001 joined=''
    for log in "$1"relay.*; do
        if [ -z "$joined" ]; then cat "$log" >$file; else tail -c +5 "$log" >>$file; fi
        joined=yes
    done
    [ -n "$joined" ] || return 0
    begins=$(transactions $file | before "$position")
    tells=yes
    transactions $file | grep -v '^list' | runs "$begins" 4 "$(stat -c %s $file)" >rest.new/span.000001
    tells=''
    grep -q '^run ' rest.new/span.000001 || return 0
    mkdir -p "binlog/$line/$2.part" && mv $file rest.new/span.000001 "binlog/$line/$2.part" && sync &&
        mv -T "binlog/$line/$2.part" "binlog/$line/$2"
}

# The position before the first of these transactions, of a server that had them or those before at POSITION.
before() { # POSITION
    awk -v at="$1" '
        BEGIN { n = split(at, words, ","); for (i = 1; i <= n; i++) { split(words[i], part, "-"); start[part[1]] = words[i] } }
        $1 == "list" { next }
        { split($1, part, "-"); if (!(part[1] in seen)) { seen[part[1]] = 1; start[part[1]] = part[1] "-" part[2] "-" (part[3] - 1) } }
        END {
            for (domain in start) if (start[domain] !~ /-0$/) text = text (text == "" ? "" : ",") start[domain]
            print text == "" ? "-" : text
        }'
}

# Those of which another session, or a later one of them, holds all.
forget_rests() { # LINE
    list | awk -v line="$1" '
        $1 == "stretch" { own = $2 == line; name = $3 }
        $1 == "run" && own {
            split($3, one, "-"); split($4, two, "-")
            of[++n] = name; domain[n] = one[1]; first[n] = one[3] + 0; last[n] = two[3] + 0
        }
        function held(i,  j) {
            for (j = 1; j <= n; j++)
                if (of[j] != of[i] && (of[j] !~ /-rest/ || of[j] > of[i]) && domain[j] == domain[i] &&
                    first[j] <= first[i] && last[j] >= last[i]) return 1
        }
        END {
            for (i = 1; i <= n; i++) if (of[i] ~ /-rest/) { rest[of[i]] = 1; if (!held(i)) needed[of[i]] = 1 }
            for (name in rest) if (!(name in needed)) print name
        }' | while read -r session; do rm -rf "binlog/$1/$session"; done
}
