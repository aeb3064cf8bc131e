# The transactions of binary log files of one server, in order: `list GTIDS` for what a file begins
# after, and `GTID TIME END` for each that is whole, END being where it ends in its file. What was not committed when
# the files end does not count. With `tells` set the last line says how mariadb-binlog ended: `ended CODE`, and `whole` after its own last line.
transactions() {
    {
        mariadb-binlog --no-defaults --verify-binlog-checksum --base64-output=decode-rows "$@" 2>"${complaints:-/dev/null}"
        echo "# ended $?"
    } | awk -v tells="${tells-}" '
        function over(end) { if (open) print gtid, when, end; open = group = query = 0 }
        function listed() { sub(/.*\[/, "", list); sub(/\].*/, "", list); gsub(/[# \n]/, "", list); print "list", list }
        listing { list = list $0; if (/\]/) { listing = 0; listed() } next }
        /^#[0-9]+ +[0-9:]+ server id [0-9]+ +end_log_pos / {
            query = 0
            before = end
            end = $7
            if (/\tGtid list \[/) {
                list = $0
                if (/\]/) listed(); else listing = 1
            } else if (/\tGTID /) {
                id = $0; sub(/.*\tGTID /, "", id); sub(/ .*/, "", id)
                if (id != gtid) over(before) # the same one again: the connection that brought it ended within it
                gtid = id
                split($2, clock, ":")
                day = substr($1, 2)
                when = sprintf("20%s-%s-%sT%02d:%s:%sZ", substr(day, 1, 2), substr(day, 3, 2), substr(day, 5, 2),
                    clock[1], clock[2], clock[3])
                open = 1
            } else if (/\tXid = /) over(end)
            else if (/\tQuery\t/) { if (group) query = 1; else over(end) }
            next
        }
        open && /^(START TRANSACTION|BEGIN)/ { group = 1 }
        query && /^(COMMIT|ROLLBACK)/ { over(end) }
        /SET COMPLETION_TYPE=@OLD_COMPLETION_TYPE/ { whole = "whole" }
        /^# ended / { code = $3 }
        END { if (tells) print "ended", code, whole }'
}
