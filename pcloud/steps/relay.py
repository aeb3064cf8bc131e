"""The program that one host runs for one file of an image: take it, keep it, pass it on.

Perl, because perl-base is on every Debian (Essential), so a fresh host needs nothing installed;
it is sent as an argument of `perl -e`. Its orders come as the first line of its stdin, so that
the token of a transfer is in no process list. A host in the chain

- listens on its own address alone, for one transfer, and hangs up on whoever does not begin
  with the token;
- answers with the length of what it already has, and is sent the rest;
- writes what comes to `FILE.part`, and passes it on while it comes, from its own file where the
  next host has less;
- leaves the next host behind when that one does not take anything for `patience` seconds (the
  further up the chain the more patient, so that only the neighbour of a stuck host lets go);
- compares the whole with its sha256, and only then gives it its name.

Images are no secret and the digest is the proof, so these connections are plain TCP on the
hosts' own network; what comes from the operator comes over SSH.
"""

from __future__ import annotations

from dataclasses import dataclass

from pcloud.steps.base import GENTLY

SENDER_GONE, DIFFERENT, BUSY = 3, 4, 6
"""Exit codes that mean more than a failure. What came is kept, unless it is wrong or does not fit the disk."""

LISTEN_S = 25
SILENCE_S = 30

# It ends with 0 also when it left the next host behind, and then prints why.
PROGRAM = r"""
use strict; use warnings; use Socket; use Fcntl qw(:DEFAULT :flock);
$SIG{PIPE} = 'IGNORE';
my $chunk = 1 << 20;
sub fail { my ($code, $why) = @_; print STDERR "$why\n"; exit $code }
sub ready { my ($h, $s) = @_; my $r = ''; vec($r, fileno($h), 1) = 1; return select($r, undef, undef, $s) > 0 }
sub line {
  my ($h, $s) = @_; my ($end, $l) = (time + $s, '');
  while (length $l < 2000) {
    my $left = $end - time; return undef if $left <= 0 || !ready($h, $left);
    return undef unless sysread($h, my $c, 1);
    return $l if $c eq "\n"; $l .= $c;
  }
  return undef;
}
sub put {
  my ($h, $data) = @_; my $at = 0;
  while ($at < length $$data) { my $n = syswrite($h, $$data, length($$data) - $at, $at); return 0 unless $n; $at += $n }
  return 1;
}
sub patience { my ($h, $s) = @_; setsockopt($h, SOL_SOCKET, SO_SNDTIMEO, pack('l!l!', $s, 0)) }

my $order = line(\*STDIN, 30); defined $order or fail(2, 'no order came');
my ($final, $size, $sha, $from, $to, $patience, $listen_s, $silence_s) = split / /, $order;
my ($folder) = $final =~ m{^(.*)/};
unlink grep { -M $_ > 7 } glob("$folder/pcloud-image.*.part");

my $listener;
my $token = '';
if ($from =~ /:/) {
  (my $addr, my $port, $token) = split /:/, $from;
  socket($listener, PF_INET, SOCK_STREAM, 0) or fail(7, "socket: $!");
  setsockopt($listener, SOL_SOCKET, SO_REUSEADDR, 1);
  bind($listener, sockaddr_in($port, inet_aton($addr))) or fail(7, "cannot listen on $addr:$port: $!");
  listen($listener, 4) or fail(7, "cannot listen on $addr:$port: $!");
}

my ($file, $here) = (undef, $size);
my $part = "$final.part";
if ($from eq 'have') {
  sysopen($file, $final, O_RDONLY) or fail(7, "$final: $!");
} else {
  sysopen($file, $part, O_RDWR | O_CREAT, 0644) or fail(5, "$part: $!");
  flock($file, LOCK_EX | LOCK_NB) or fail(6, 'another copy of it is on its way to this host');
  $here = -s $file;
  if ($here > $size) { truncate($file, 0); $here = 0 }
}

my ($next, $cut) = (undef, '');
sub leave { $cut = $_[0]; close $next if $next; undef $next }
if ($to ne '-') {
  my ($addr, $port, $word) = split /:/, $to;
  my $end = time + 10;
  while (time < $end) {
    socket($next, PF_INET, SOCK_STREAM, 0) or last;
    patience($next, 5);
    last if connect($next, sockaddr_in($port, inet_aton($addr)));
    $cut = "$addr:$port: $!"; close $next; undef $next;
    select undef, undef, undef, 0.1;
  }
  if ($next) { $cut = ''; patience($next, $patience); put($next, \"$word\n") or leave("$addr: $!") }
}

my $in = \*STDIN;
if ($listener) {
  my $end = time + $listen_s; undef $in;
  until ($in) {
    my $left = $end - time;
    fail(3, "nobody began to send it within $listen_s s") if $left <= 0 || !ready($listener, $left);
    accept(my $caller, $listener) or next;
    my $said = line($caller, 5);
    if (defined $said && $said eq $token) { $in = $caller } else { close $caller }
  }
  close $listener;
  put($in, \"$here\n");
}

my $sent = $size;
if ($next) {
  my $answer = line($next, 30);
  if (defined $answer && $answer =~ /^\d+$/) { $sent = $answer } else { leave('the next host did not answer') }
}
if ($next && $sent < $here) {
  sysseek($file, $sent, 0);
  while ($next && $sent < $here) {
    my $want = $here - $sent; $want = $chunk if $want > $chunk;
    my $n = sysread($file, my $data, $want) or last;
    if (put($next, \$data)) { $sent += $n } else { leave("it took nothing for $patience s, or went away") }
  }
}
sysseek($file, $here, 0);
while ($here < $size) {
  ready($in, $silence_s) or fail(3, "nothing came for $silence_s s, at $here of $size bytes");
  my $want = $size - $here; $want = $chunk if $want > $chunk;
  my $n = sysread($in, my $data, $want);
  $n or fail(3, "the sender went away at $here of $size bytes");
  unless (put($file, \$data)) { my $why = $!; unlink $part; fail(5, "$part: $why") }
  if ($next && $here + $n > $sent) {
    my $rest = $sent > $here ? substr($data, $sent - $here) : $data;
    if (put($next, \$rest)) { $sent = $here + $n } else { leave("it took nothing for $patience s, or went away") }
  }
  $here += $n;
}
close $next if $next;

if ($from ne 'have') {
  open(my $sum, '-|', 'sha256sum', '--', $part) or fail(7, "sha256sum: $!");
  my $got = <$sum> // ''; close $sum;
  my $digest = $got =~ /^\\?([0-9a-f]{64})/ ? $1 : 'nothing';
  unless ($digest eq $sha) {
    unlink $part;
    fail(4, 'it arrived as ' . substr($digest, 0, 12) . ', not ' . substr($sha, 0, 12));
  }
  rename($part, $final) or fail(5, "$final: $!");
}
print "$cut\n" if $cut;
"""


@dataclass(frozen=True)
class Hop:
    """Where a host of the chain listens: its address, a port, and the word that opens it."""

    address: str
    port: int
    token: str

    def __str__(self) -> str:
        return f"{self.address}:{self.port}:{self.token}"


@dataclass(frozen=True)
class Order:
    """What one host does: `source` is `stdin`, `have` or a `Hop`; `next` the host after it."""

    path: str
    size: int
    sha256: str
    source: Hop | str
    next: Hop | None
    patience_s: int

    @property
    def argv(self) -> tuple[str, ...]:
        return (*GENTLY, "perl", "-e", PROGRAM)

    @property
    def line(self) -> bytes:
        words = (self.path, self.size, self.sha256, self.source, self.next or "-", self.patience_s, LISTEN_S, SILENCE_S)
        return (" ".join(map(str, words)) + "\n").encode()
