# A job goes on when who began it is gone, and ends when nothing moves in it. A script that has one takes these
# as its verbs: `supervise FOLDER COMMAND...`. In its folder: `order`, what it was given; `error`, what it complained
# of; `words`, its command; `doing` and `total`, what it is at and how many bytes that has; `code`, written last. A later
# ask needs no more. CODE 3: the other side went away; 4: what arrived is not what was sent; 5: no room; 6: the other
# side gives to somebody else.
JOB_STILL_S=${JOB_STILL_S-120}
JOB_SSH="-F none -T -l root -o GlobalKnownHostsFile=none -o StrictHostKeyChecking=yes -o IdentitiesOnly=yes
    -o BatchMode=yes -o ConnectTimeout=15 -o ServerAliveInterval=5 -o ServerAliveCountMax=6 -o LogLevel=ERROR"

# Begins it with the order on standard input, unless it is at work.
job_begin() { # FOLDER COMMAND...
    mkdir -p "$1" && exec 7>"$1/lock" || return 1
    flock -n 7 || return 0
    rm -f "$1/code" "$1/error" "$1/doing" "$1/total" "$1/worker"
    echo "$*" >"$1/words"
    (umask 077; cat >"$1/order") || return 1
    setsid "$0" supervise "$@" </dev/null >/dev/null 2>&1 &
}

job_supervise() { # FOLDER COMMAND...
    set +e
    folder=$1
    shift
    JOB=$folder setsid "$@" </dev/null >/dev/null 2>"$folder/error" &
    child=$!
    before='' still=0
    while kill -0 $child 2>/dev/null; do
        sleep 0.5
        now=$(job_movement "$folder")
        if [ "$now" != "$before" ]; then before=$now still=0; else still=$((still + 1)); fi
        [ $still -lt $((JOB_STILL_S * 2)) ] || {
            kill -KILL -- -$child 2>/dev/null
            echo "nothing moved for $JOB_STILL_S s" >>"$folder/error"
        }
    done
    wait $child
    code=$?
    rm -f "$folder/order"
    echo $code >"$folder/code.new" && mv "$folder/code.new" "$folder/code"
}

# What the one process that counts has read, written and computed.
job_movement() { # FOLDER
    worker=$(cat "$1/worker" 2>/dev/null) && cat "$1/doing" "/proc/$worker/io" 2>/dev/null &&
        cut -d' ' -f14,15 "/proc/$worker/stat" 2>/dev/null
}

# Runs a command as the process that counts, in a job; WHAT is what the job is at then.
job_step() { # WHAT BYTES COMMAND...
    [ -n "${JOB-}" ] || { shift 2; "$@"; return; }
    echo "$2" >"$JOB/total"
    echo "$1" >"$JOB/doing"
    shift 2
    sh -c 'echo $$ >"$JOB/worker"; exec "$@"' sh "$@"
}

# An order's second line is a server's host key, what comes after it the private key of a door there
# (servers/mariadb/door.sh): what `ssh $JOB_SSH -i "$JOB/key" -o UserKnownHostsFile="$JOB/known_hosts"` needs.
job_keys() { # ADDRESS
    sed -n "2s/^/$1 /p" "$JOB/order" >"$JOB/known_hosts"
    (umask 077; sed 1,2d "$JOB/order" >"$JOB/key")
    rm -f "$JOB/order"
    trap 'rm -f "$JOB/key"' EXIT
}

# Its command's words after `run`, and what that printed.
job_words() { sed 's/^[^ ]* [^ ]* run //' "$1/words" 2>/dev/null || true; } # FOLDER
job_said() { cat "$1/said" 2>/dev/null || true; } # FOLDER

# `going DONE TOTAL WHAT`; or `ended CODE` and what it complained of; or `none`.
job_ask() { # FOLDER
    set +e
    [ -d "$1" ] || { echo none; return; }
    if flock -n "$1/lock" true; then
        [ -e "$1/code" ] || { echo none; return; }
        echo "ended $(cat "$1/code")"
        tail -c 2000 "$1/error" 2>/dev/null
        return 0
    fi
    read=$(sed -n 's/^rchar: //p' "/proc/$(cat "$1/worker" 2>/dev/null)/io" 2>/dev/null)
    total=$(cat "$1/total" 2>/dev/null) doing=$(cat "$1/doing" 2>/dev/null) # empty while they are written
    echo "going ${read:-0} ${total:-0} ${doing:-beginning}"
}
