//! The table of diagnostic codes of policies. What is wrong with the YAML itself has the codes of playbooks.

crate::codes::table! {
    BAD_SHARE = "PO0001", "A share of nodes is not understood",
"A budget is a number of nodes, or a percentage of the group with at most two digits behind the point and never more
than 100. A percentage is rounded down and is at least one node, unless it is 0.

Bad:

    budgets: { fleet: 120%, rack: a few }

Good:

    budgets: { fleet: 2.5%, rack: 2 }";
    BAD_RATE = "PO0002", "A rate is not understood",
"A rate is a number and a length of time: at most so many in any stretch of that length. The breaker's storms have a
share in the place of the number.

Bad:

    rates: { disruptive: 10/h }
    breaker: { fleet: 10% }

Good:

    rates: { disruptive: 10 per 1h }
    breaker: { fleet: 10% per 15m }";
    BAD_PERIOD = "PO0003", "A length of time is not understood or out of range",
"A length of time is a number with a unit: ms, s, m, h or d. Each key has its range, shown in the message.

Bad:

    idle_gap: 2
    approvals: { approval_expires: 365d }

Good:

    idle_gap: 2h
    approvals: { approval_expires: 15m }";
    BAD_NUMBER = "PO0004", "A number is out of range",
"Each number of a policy has a range, shown in the message. None may be endless: a limit that never holds is none.

Bad:

    concurrent_runs: 1000000

Good:

    concurrent_runs: 4";
    UNKNOWN_ZONE = "PO0005", "Unknown time zone",
"A time zone is an IANA name. Abbreviations such as CET or offsets such as +01:00 do not say when the clocks are
changed. The rules of the zones come with the program, so that a window means the same on every host.

Bad:

    windows: [{ from: \"22:00\", to: \"06:00\", zone: Berlin }]

Good:

    windows: [{ from: \"22:00\", to: \"06:00\", zone: Europe/Berlin }]";
    BAD_CLOCK = "PO0006", "A time of day is not understood",
"A time of day is written with four digits, from 00:00 to 24:00, in quotes.

Bad:

    windows: [{ from: 10pm, to: 6 }]

Good:

    windows: [{ from: \"22:00\", to: \"06:00\" }]

A window whose end is not after its beginning runs over midnight.";
    BAD_DATE = "PO0007", "A date is not understood",
"A freeze begins and ends at a date, a date with a time of day, or a moment with its offset. Without an offset the
freeze's `zone` counts, which is UTC where it is not given.

Good:

    freezes:
      - { from: 2026-12-24, to: 2027-01-02, zone: Europe/Berlin, why: holidays }
      - { from: \"2026-12-01 18:00\", to: 2026-12-01T23:30:00Z, why: move of the file system }";
    EMPTY_FREEZE = "PO0008", "A freeze ends before it begins",
"It would never hold, and the person who wrote it would believe that it does.

Bad:

    freezes: [{ from: 2027-01-02, to: 2026-12-24, why: holidays }]

Good:

    freezes: [{ from: 2026-12-24, to: 2027-01-02, why: holidays }]";
    BAD_HOSTS = "PO0009", "A list of nodes is not understood",
"Nodes are written as Slurm writes them: names with commas, and ranges in brackets.

Bad:

    canary: { nodes: \"gpu[001-\" }

Good:

    canary: { nodes: \"gpu[001-004],login1\" }";
    TWO_RACKS = "PO0010", "A node stands in two racks",
"A node is in one rack, and in at most one fabric domain: else the budget of one of them would not count it.

Bad:

    racks:
      map: { r1: \"gpu[001-010]\", r2: \"gpu[010-020]\" }

Good:

    racks:
      map: { r1: \"gpu[001-010]\", r2: \"gpu[011-020]\" }";
    BAD_WORD = "PO0011", "A name is not well formed",
"Names of users, groups, partitions, racks and features have at most 128 characters, and no blanks, commas, quotes or
characters that do not print.

Bad:

    roles: { approver: { users: [\"ada, bob\"] } }

Good:

    roles: { approver: { users: [ada, bob] } }";
    TWO_SOURCES = "PO0012", "The racks come from two places",
"The racks are either in the policy's own `map`, or they are the leaf switches of Slurm's topology.conf.

Bad:

    racks: { from: topology.conf, map: { r1: \"gpu[001-010]\" } }

Good:

    racks: { map: { r1: \"gpu[001-010]\" } }";
    UNKNOWN_GROUP = "PO0013", "A budget is for a rack that is not there",
"The policy has a map of the racks, and this one is not in it: the budget counts nothing. This is a warning.

Bad:

    budgets: { racks: { r9: 1 } }
    racks: { map: { r1: \"gpu[001-010]\" } }

Good:

    budgets: { racks: { r1: 1 } }
    racks: { map: { r1: \"gpu[001-010]\" } }";
    NOBODY = "PO0014", "Nobody may do this",
"No user and no group has a role that may approve, or reset the breaker. Runs that need a person would wait until their
request expires, and a tripped breaker would stay open. This is a warning.

Good:

    roles:
      approver: { groups: [gpu-oncall] }
      admin: { users: [root] }";
    NEVER = "PO0015", "A limit of 0 forbids the work for ever",
"With 0 no node is ever taken out, no run ever begins, or nothing of this class is ever done. To stop the engine for a
while, use `slurmedic pause` or a freeze; to leave a group alone, its budget of 0 is right. This is a warning.";
    WHOLE_DAY = "PO0016", "A window begins and ends at the same time",
"It lasts a whole day, from that time to the same time of the next day. If that is meant, write `from: \"00:00\"` and
`to: \"24:00\"`. This is a warning.";
    TOO_MANY_NODES = "PO0017", "The lists of nodes are too long",
"All lists of nodes of a policy together may stand for 200,000 names.";
    HOLLOW = "PO0018", "A quorum can never be reached",
"A run needs more people than the policy names as approvers. This is a warning, since groups may have any number of
members; it appears only where approvers are named as users alone.";
}
