# The transactions of binary log files of one server, in order: `list GTIDS` for what a file begins
# after, and `GTID TIME` for each that is whole. What was not committed when the files end does not count.
transactions() {
    mariadb-binlog --no-defaults --verify-binlog-checksum --base64-output=decode-rows "$@" 2>"${complaints:-/dev/null}" | awk '
        function over() { if (open) print gtid, when; open = group = query = 0 }
        function listed() { sub(/.*\[/, "", list); sub(/\].*/, "", list); gsub(/[# \n]/, "", list); print "list", list }
        listing { list = list $0; if (/\]/) { listing = 0; listed() } next }
        /^#[0-9]+ +[0-9:]+ server id [0-9]+ +end_log_pos / {
            query = 0
            if (/\tGtid list \[/) {
                list = $0
                if (/\]/) listed(); else listing = 1
            } else if (/\tGTID /) {
                id = $0; sub(/.*\tGTID /, "", id); sub(/ .*/, "", id)
                if (id != gtid) over() # the same one again: the connection that brought it ended within it
                gtid = id
                split($2, clock, ":")
                day = substr($1, 2)
                when = sprintf("20%s-%s-%sT%02d:%s:%sZ", substr(day, 1, 2), substr(day, 3, 2), substr(day, 5, 2),
                    clock[1], clock[2], clock[3])
                open = 1
            } else if (/\tXid = /) over()
            else if (/\tQuery\t/) { if (group) query = 1; else over() }
            next
        }
        open && /^(START TRANSACTION|BEGIN)/ { group = 1 }
        query && /^(COMMIT|ROLLBACK)/ { over() }'
}

# START, END and the time of END, of such files.
span() {
    transactions "$@" | awk '
        function each(text,  n, words, i, part) {
            n = split(text, words, ",")
            for (i = 1; i <= n; i++) { split(words[i], part, "-"); end[part[1]] = words[i] }
        }
        $1 == "list" { each($2); if (start == "") start = $2 == "" ? "-" : $2; next }
        { each($1); at = $2 }
        END {
            for (domain in end) all = all (all == "" ? "" : ",") end[domain]
            print (start == "" ? "-" : start), (all == "" ? "-" : all), (at == "" ? "-" : at)
        }'
}
