# Backups between this host and a server, through a door of the server (servers/mariadb/door.sh), as a job (job.sh).
job=/run/pcloud-keep$(echo "$here" | tr / .)
LEFT=$((256 << 20)) # what a copy leaves free: servers' disks grow here

fail() { code=$1; shift; echo "keep: $*" >&2; exit "$code"; }

fetch() { # ID BYTES SHA256 ADDRESS
    manifest=$(sed -n 1p "$JOB/order") part=$1.$3.part
    job_keys "$4"
    find . -maxdepth 1 -name '*.part' ! -name "$part" -delete
    have=$(stat -c %s "$part" 2>/dev/null || echo 0)
    [ "$have" -le "$2" ] || { rm -f "$part"; have=0; }
    free=$(df --output=avail -B 1 . | tail -n 1)
    [ "$free" -gt $(($2 - have + LEFT)) ] || {
        rm -f "$part"
        fail 5 "no room: $((free >> 20)) MiB are free here, $((($2 + LEFT) >> 20)) MiB are needed"
    }
    [ "$have" = "$2" ] || {
        echo "$have" >"$JOB/from"
        job_step copying $(($2 - have)) ssh $JOB_SSH -i "$JOB/key" -o UserKnownHostsFile="$JOB/known_hosts" "$4" give \
            <"$JOB/from" >>"$part" 2>"$JOB/trouble"
        broke $? "$4"
    }
    [ "$(stat -c %s "$part")" = "$2" ] || fail 3 "$(stat -c %s "$part") of $2 bytes came from $4"
    found=$(job_step hashing "$2" sha256sum "$part" | cut -d' ' -f1)
    [ "$found" = "$3" ] || { rm -f "$part"; fail 4 "it arrived as something else"; }
    own "$1" "$part" "$manifest" || { rm -f "$part"; fail 5 "no room, or the disk fails"; }
}

# What an end of ssh means that is none of its success.
broke() { # CODE ADDRESS
    [ "$1" != 0 ] || return 0
    [ "$(df --output=avail -k . | tail -n 1)" -gt 1024 ] || { rm -f ./*.part; fail 5 "no room is left here"; }
    case $1 in
        6) fail 6 "$2 gives to somebody else" ;;
        255 | 129 | 13? | 14?) fail 3 "the copy broke off at $2: $(tail -n 3 "$JOB/trouble")" ;;
        *) fail 1 "$(tail -n 3 "$JOB/trouble" | sed 's/^backup: //')" ;;
    esac
}

send_backup() { # ADDRESS ID
    file=$(file_of "$2")
    pass "$1" "the backup" "$(stat -c %s "$file" 2>/dev/null || echo 0)" cat -- "$file"
}

send_log() { # ADDRESS LINE SESSION
    pass "$1" "the binary log" "$(du -sB 1 "binlog/$2/$3" | cut -f1)" hand "$2" "$3"
}

pass() { # ADDRESS WHAT BYTES COMMAND...
    address=$1 what=$2 bytes=$3
    shift 3
    job_keys "$address"
    rm -f "$JOB/pipe" "$JOB/unread"
    mkfifo "$JOB/pipe"
    sha256sum <"$JOB/pipe" >"$JOB/sum" &
    summing=$!
    { ("$@") || echo "$what cannot be read" >"$JOB/unread"; } | tee "$JOB/pipe" |
        job_step "copying $what" "$bytes" ssh $JOB_SSH -i "$JOB/key" -o UserKnownHostsFile="$JOB/known_hosts" \
            "$address" take >"$JOB/answer" 2>"$JOB/trouble"
    broke $? "$address"
    wait $summing
    [ ! -s "$JOB/unread" ] || fail 1 "$(cat "$JOB/unread")"
    [ "$(sed -n 's/^sha256 //p' "$JOB/answer")" = "$(cut -d' ' -f1 "$JOB/sum")" ] || fail 4 "it arrived as something else"
}
