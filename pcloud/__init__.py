"""pcloud rebuilds a broken shop's cluster from prepared images, and does not stop before a shopper could buy again.

One sentence holds the architecture: `plan(desired, observed)` is a pure function; rebuild,
repair and resume are that function with different inputs, and resuming after a crash is:
observe again, plan again.

The map, each layer importing only what stands lower (import-linter enforces it):

    cli/            the commands; the only place that prints and exits
    render/         events -> picture, log, JSON lines, report; no decisions
    execute         the only scheduler; observe: what is on the hosts, in parallel
    world           the connections and material of one run
    hypervisor      libvirt, and only it          shell/   SSH, and only it (paramiko)
    shopping shoppers   what a shopper does next (pure), and a crowd of them with a ledger
    vantage         what this machine sees of its own network
    power/          Redfish and IPMI: orders that are seen through, and what proves that a host is off
    alive           signs of life of a host, asked around an order to switch it off
    probe journey   checks, and a shopper's walk (over web, forms, sql: HTTP, HTML, MySQL protocol)
    last_answers    until when the database answered each frontend
    images/         recipe -> verified image      lab/     a data centre on one machine
    desire          inventory + images + templates -> Desired; secrets by reference
    plan phases graph decide placement teardown   pure: what is to be done, and where
    failover switchover whatif rehearsal          pure: a host that a person leaves; the database's role moved;
                                                  what the loss of any host would mean; a fence tried on a quiet day
    obstacles undo                                pure: what keeps servers from being put away; what was comes back
    backups chain recall backupplan               pure: which backup and binary log are restored, and who keeps them
    rpo keeperphases backupnotes                  pure: what would be lost now; who replaces a keeper; the last backup
    likeness proofs                               pure: two copies compared; what was proven of backups
    salvage binlogtext lostfiles                  what dead copies hold that the living data have not
    suspicion generations notes noteplan          pure: which hosts may be fenced; which copy is the newest; which
                                                  hosts remember it
    past inspections tombstones                   pure: which older copies go by themselves; what tombstones cost
    holding choice leftovers passedover           pure: who holds data; what becomes of a server that is there;
                                                  files of no server; data that are out of reach
    strangers forgetting                          pure: hosts that left the inventory
    unplanned                                     pure: servers that left it, and addresses that moved
    neighbours                                    pure: servers of others on our hosts, as hosts remember them
    doubts                                        pure: what a person has to look at first
    hosts*  prepare                               what a host still needs, and the safe part of it done
    distribute push                               which hosts lack an image, and who passes it on
    journal timing  a run's events on disk; what they say about time
    dumps/          a dump as it is: by its first bytes, its statements, what a MariaDB cannot take of it
    steps/          one effect each, with its own check
    desired         what the planner reads        inventory playbook   YAML -> checked models
    templating      templates, and the process (renderer) that runs them    seed    what makes a server itself
    document        YAML as hostile input         identity keys   derived, never stored
    model observed events                         frozen data, no I/O
    controllers controllerchecks                  pure: whether two controllers are one; what is wrong with one
    errors clock places files

Where the code differs from the design it started from, and why:

- The seed of a prepared image is unpacked by its initrd, before systemd starts: units and
  addresses are simply there, and nothing is reloaded.
- The planner's decisions (`decide`) stand apart from the graph made of them (`plan`).
- Redfish is spoken by ourselves, over http.client: sushy reads whole documents, which real controllers break,
  follows redirects, and cannot pin a certificate.
- A data server is never made anew unasked, unless another one is seen to hold all that it does:
  drift is reported, silence is answered with a power cycle, and only a missing one or one that a
  person names is built from the dump.
"""
