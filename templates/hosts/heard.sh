# What this host heard of the primary. Each answer to a question of the stream is noted in the file `heard`, in one
# line: the boot; when it was asked and when it answered, in seconds since that boot, and the latter since 1970; where
# it was (`-`: nowhere); how many ms its commits waited for a replica (-1: for none); the folder of the stream.

# The server, and the line of its data; nothing while they are not whole. Data without a mark were brought by others.
WHO="SET @marked = (SELECT COUNT(*) FROM information_schema.tables
    WHERE table_schema = 'pcloud' AND table_name = 'restored');
EXECUTE IMMEDIATE IF(@marked,
    'SELECT CONCAT(@@server_id, \" \", token) FROM pcloud.restored WHERE id = 1 AND state = \"restored\"',
    'SELECT CONCAT(@@server_id, \" unmarked\")')"

# A boolean variable beside the table of status reads as 0; not within IF.
SEEN="SELECT CONCAT_WS(' ', 'seen', IF(@@read_only, 'reads', 'writes'), IF(@@gtid_binlog_pos = '', '-', @@gtid_binlog_pos),
    IF(@@rpl_semi_sync_master_enabled, IF((SELECT variable_value FROM information_schema.global_status
        WHERE variable_name = 'Rpl_semi_sync_master_status') = 'ON', @@rpl_semi_sync_master_timeout, -1), -1))"

# Asks who is at an address (that of the primary when none is named). Sets `who`, as WHO says it, `does` (`writes` or
# `reads`), `position` and `waits`; all are empty when nobody answers, or with data that are not whole.
ask_who() { # [ADDRESS]
    who='' does='' position='' waits=''
    said=$(at "${1-}" "$WHO; $SEEN") || return 0
    who=$(echo "$said" | sed '/^seen /d')
    [ -z "$who" ] || read -r does position waits <<END
$(echo "$said" | sed -n 's/^seen //p')
END
}

up() { read -r seconds _ </proc/uptime && echo "$seconds"; }

ask_primary() {
    asked=$(up)
    ask_who
    [ "$does" != writes ] || note_heard
}

note_heard() {
    read -r boot </proc/sys/kernel/random/boot_id
    echo "$boot $asked $(up) $(date +%s.%N) $position $waits ${streamed:--}" >heard.new && mv heard.new heard
}

# Prints `heard SECONDS SECONDS POSITION WAITS`: how long ago the primary last answered, or sent something of its
# binary log; how long ago it was asked where it is; and what it said then. Clocks may be set: of two ages of an answer
# the shorter one counts, of a position the longer one. Nothing where no primary ever answered.
heard() {
    [ -s heard ] || exit 0
    read -r boot asked answered wall position waits folder <heard
    read -r now_boot </proc/sys/kernel/random/boot_id
    written=$(stat -c %.Y "$folder"/binlog.* 2>/dev/null | sort -n | tail -n 1)
    [ "$boot" = "$now_boot" ] && same=1 || same=0
    awk -v same=$same -v now_up="$(up)" -v asked="$asked" -v answered="$answered" -v now="$(date +%s.%N)" -v wall="$wall" \
        -v written="${written:-$wall}" -v said="$position $waits" '
        function least(a, b) { return a < b ? a : b }
        function most(a, b) { return a > b ? a : b }
        BEGIN {
            age = least(now - wall, now - written)
            seen = now - wall + (answered - asked)
            if (same) { age = least(age, now_up - answered); seen = most(seen, now_up - asked) }
            printf "heard %.2f %.2f %s\n", most(0, age), most(0, seen), said
        }'
}
