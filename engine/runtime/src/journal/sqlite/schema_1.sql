-- Format 1 of the journal. Later formats are further files; this one never changes.

-- Every event of every run, in the one order in which they were written.
CREATE TABLE events (
    pos       INTEGER PRIMARY KEY,
    run       TEXT NOT NULL,
    seq       INTEGER NOT NULL CHECK (seq >= 1),
    at        TEXT NOT NULL,
    kind      TEXT NOT NULL,
    body      TEXT NOT NULL,
    prev_hash TEXT NOT NULL,
    hash      TEXT NOT NULL,
    UNIQUE (run, seq)
) STRICT;

-- The last event, written together with it: shows that events were cut off at the end.
CREATE TABLE head (
    one  INTEGER PRIMARY KEY CHECK (one = 1),
    pos  INTEGER NOT NULL,
    hash TEXT NOT NULL
) STRICT;

-- One line per run, derived from its events.
CREATE TABLE runs (
    run           TEXT PRIMARY KEY,
    first_pos     INTEGER NOT NULL,
    seq           INTEGER NOT NULL,
    phase         INTEGER NOT NULL CHECK (phase IN (0, 1, 2)),
    node          TEXT NOT NULL,
    playbook      TEXT NOT NULL,
    version       TEXT NOT NULL,
    digest        TEXT NOT NULL,
    initiator     TEXT NOT NULL,
    status        TEXT NOT NULL,
    proposed_at   TEXT NOT NULL,
    last_event_at TEXT NOT NULL,
    why           TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX runs_by_age ON runs (first_pos);
CREATE INDEX runs_by_node ON runs (node, first_pos);
CREATE INDEX runs_open ON runs (phase, first_pos) WHERE phase < 2;

-- The lock on a node, and the counter of its fencing tokens, which never goes back.
CREATE TABLE leases (
    node     TEXT PRIMARY KEY,
    run      TEXT NOT NULL,
    token    INTEGER NOT NULL,
    taken_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE fence (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    token INTEGER NOT NULL
) STRICT;
CREATE TRIGGER fence_never_goes_back BEFORE UPDATE ON fence WHEN NEW.token <= OLD.token
    BEGIN SELECT RAISE(ABORT, 'a fencing token never goes back'); END;
CREATE TRIGGER fence_no_delete BEFORE DELETE ON fence
    BEGIN SELECT RAISE(ABORT, 'the counter of fencing tokens stays'); END;

-- Engine processes, and the runs they carry out. A process lives as long as it holds the lock on its file.
CREATE TABLE engines (
    engine TEXT PRIMARY KEY,
    boot   TEXT NOT NULL,
    pids   TEXT NOT NULL,
    pid    INTEGER NOT NULL,
    start  TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE claims (
    run    TEXT PRIMARY KEY,
    engine TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- The digest of each playbook version that was ever planned with.
CREATE TABLE playbooks (
    id        TEXT NOT NULL,
    version   TEXT NOT NULL,
    digest    TEXT NOT NULL,
    pinned_at TEXT NOT NULL,
    PRIMARY KEY (id, version)
) STRICT, WITHOUT ROWID;

-- Bytes by their SHA-256, such as evidence bundles.
CREATE TABLE blobs (
    digest    TEXT PRIMARY KEY,
    stored_at TEXT NOT NULL,
    bytes     BLOB NOT NULL
) STRICT;

CREATE TRIGGER events_in_order BEFORE INSERT ON events
    WHEN NEW.pos <> (SELECT coalesce(max(pos), 0) + 1 FROM events)
      OR EXISTS (SELECT 1 FROM events WHERE run = NEW.run AND seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'events are only ever added at the end'); END;
CREATE TRIGGER events_no_update BEFORE UPDATE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never changed'); END;
CREATE TRIGGER events_no_delete BEFORE DELETE ON events
    BEGIN SELECT RAISE(ABORT, 'events are never deleted'); END;
CREATE TRIGGER playbooks_no_update BEFORE UPDATE ON playbooks
    BEGIN SELECT RAISE(ABORT, 'a pinned playbook version is never changed'); END;
CREATE TRIGGER playbooks_no_delete BEFORE DELETE ON playbooks
    BEGIN SELECT RAISE(ABORT, 'a pinned playbook version is never deleted'); END;
CREATE TRIGGER playbooks_no_replace BEFORE INSERT ON playbooks
    WHEN EXISTS (SELECT 1 FROM playbooks WHERE id = NEW.id AND version = NEW.version)
    BEGIN SELECT RAISE(ABORT, 'a pinned playbook version is never changed'); END;
CREATE TRIGGER blobs_no_update BEFORE UPDATE ON blobs
    BEGIN SELECT RAISE(ABORT, 'stored bytes are never changed'); END;
CREATE TRIGGER blobs_no_delete BEFORE DELETE ON blobs
    BEGIN SELECT RAISE(ABORT, 'stored bytes are never deleted'); END;
CREATE TRIGGER blobs_no_replace BEFORE INSERT ON blobs
    WHEN EXISTS (SELECT 1 FROM blobs WHERE digest = NEW.digest)
    BEGIN SELECT RAISE(ABORT, 'stored bytes are never changed'); END;

INSERT INTO fence (one, token) VALUES (1, 0);
