# What passes in and out of a server's `backup`: compressed, hashed, and watched.
# A server of an older image has no zstd, which reads what gzip wrote, too.
pack() { if command -v zstd >/dev/null; then zstd -q -1 -c; else gzip -1; fi; }
unpack() { if command -v zstd >/dev/null; then zstd -q -dc; else gzip -dc; fi; }

take() {
    local id=$1 size sum log=$taken/log
    [[ $id =~ ^[0-9-]+$ ]] || die "no name for a backup: $id"
    size=$(du -sk --exclude='binlog.*' --exclude='relay*' "$own" | cut -f1)
    rm -rf "$taken"
    install -d -m 0700 "$taken"
    room $((2 * size + 65536)) # the backup, and the data that are made of it to prove it
    mkfifo "$taken/pipe"
    sha256sum <"$taken/pipe" >"$taken/sum" &
    job_step "copying the data" $((size << 10)) mariadb-backup --backup --stream=mbstream --user=root \
        --target-dir="$taken/tmp" --extra-lsndir="$taken/info" 2>"$log" | pack | tee "$taken/pipe" >"$taken/$id.part" ||
        { tail -n 3 "$log" >&2; exit 1; }
    wait $!
    tail -n 1 "$log" | grep -q 'completed OK!' || { tail -n 3 "$log" >&2; exit 1; }
    echo "copied $(date +%s)"
    sync "$taken/$id.part"
    mv "$taken/$id.part" "$taken/$id.mbs"
    sum=$(cut -c 1-64 "$taken/sum")
    echo "size $(stat -c %s "$taken/$id.mbs")"
    echo "sha256 $sum"
    place proof
    receive $((size << 10)) "$sum" <"$taken/$id.mbs" >/dev/null
    trap close EXIT
    echo "data $(du -sB 1 "$data" | cut -f1)"
    prepare
    serve
    check
}

# Ends a process that moves nothing any more: its other end may be gone, and does not say so.
watch() { # PID
    local before='' now still=0
    while now=$(cat "/proc/$1/io" 2>/dev/null); do
        if [ "$now" = "$before" ]; then still=$((still + 1)); else before=$now still=0; fi
        [ $still -lt $STILL_S ] || { kill -KILL "$1"; return; }
        sleep 1
    done
} 2>/dev/null

give() { # ID
    local from='' given
    exec 9>/run/pcloud-copy-to.lock
    flock -n 9 || { echo "backup: another copy is being taken here" >&2; exit 6; }
    read -r -t 30 from || true
    [[ $from =~ ^[0-9]+$ ]] || die "no byte to begin at: $from"
    [ -e "$taken/$1.mbs" ] || die "the backup $1 is not here any more"
    tail -c "+$((from + 1))" "$taken/$1.mbs" &
    given=$!
    watch $given >/dev/null &
    wait $given
}

clear() {
    close
    install -d -m 0700 "$place" "$data"
}

# Beside its own data a place leaves a tenth of the disk free: a replay adds to it, and MariaDB stops where there is none.
extract() { # BYTES, at the least
    local free keep=16384 most
    [ "${place##*/}" = restore ] || keep=$(($(df --output=size -k "$place" | tail -n 1) / 10 + 65536))
    free=$(df --output=avail -k "$place" | tail -n 1)
    most=$((free > keep ? (free - keep) * 1024 : 0))
    if [ "${1:-0}" -ge $most ] || ! { unpack | head -c $most | job_step copying "${1:-0}" mbstream -x -C "$data"; } 2>/dev/null; then
        if [ "${1:-0}" -ge $most ] || [ $(($(du -sB 1 "$data" | cut -f1) + (32 << 20))) -ge $most ] ||
            [ "$(df --output=avail -k "$place" | tail -n 1)" -lt 32768 ]; then # something else took it
            close
            die "$((free / 1024)) MiB are free here, and $((keep / 1024)) MiB of them are to stay: the data have no room"
        fi
        die "the backup is damaged or cut off"
    fi
    [ -s "$data/xtrabackup_checkpoints" ] || die "the backup is cut off"
}

end_receiver() {
    local pid
    pid=$(cat "$place/receiver" 2>/dev/null) || return 0
    ! grep -qa "^tee" "/proc/$pid/cmdline" 2>/dev/null || kill -KILL "$pid" 2>/dev/null || true
}

# Whoever comes last has the place: the other end of who came before may be gone.
receive() { # BYTES SHA256
    local summing
    whole=''
    end_receiver
    exec 8>"/run/pcloud-receive-${place##*/}.lock"
    flock -w 30 8 || die "another backup is on its way to this place"
    trap '[ -n "$whole" ] || close' EXIT
    clear
    mkfifo "$place/pipe"
    sha256sum <"$place/pipe" >"$place/sum" &
    summing=$!
    {
        until [ -s "$place/receiver" ]; do sleep 0.1; done
        watch "$(<"$place/receiver")"
    } </dev/null >/dev/null 2>&1 8>&- &
    { echo $BASHPID >"$place/receiver"; exec tee "$place/pipe"; } | extract "$1"
    wait $summing
    [ "$(cut -c 1-64 "$place/sum")" = "$2" ] || die "what arrived is not what was proven"
    rm -f "$place"/{pipe,sum,receiver}
    echo "sha256 $2"
    echo "received $2" >"$held" # in /run, for what was written may not outlive a power cut
    whole=yes
    exec 8>&-
}
