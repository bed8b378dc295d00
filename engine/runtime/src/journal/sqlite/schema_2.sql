-- Format 2 of the journal: streams beside runs, and locks on more than nodes. This file never changes.

-- What concerns the fleet and not one run. Positions and the hash chain are shared with the events: each position is
-- in one of the two tables.
CREATE TABLE records (
    pos       INTEGER PRIMARY KEY,
    stream    TEXT NOT NULL,
    seq       INTEGER NOT NULL CHECK (seq >= 1),
    at        TEXT NOT NULL,
    kind      TEXT NOT NULL,
    body      TEXT NOT NULL,
    prev_hash BLOB NOT NULL CHECK (length(prev_hash) = 32),
    hash      BLOB NOT NULL CHECK (length(hash) = 32),
    UNIQUE (stream, seq)
) STRICT;

-- The locks on nodes, racks and fabric domains, as node:gpu001, rack:r12, fabric:nvl-3.
CREATE TABLE locks (
    key      TEXT PRIMARY KEY,
    run      TEXT NOT NULL,
    token    INTEGER NOT NULL,
    taken_at TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO locks (key, run, token, taken_at) SELECT 'node:' || node, run, token, taken_at FROM leases;
DROP TABLE leases;

DROP TRIGGER events_in_order;
CREATE TRIGGER events_in_order BEFORE INSERT ON events
    WHEN NEW.pos <> max((SELECT coalesce(max(pos), 0) FROM events), (SELECT coalesce(max(pos), 0) FROM records)) + 1
      OR EXISTS (SELECT 1 FROM events WHERE run = NEW.run AND seq = NEW.seq)
    BEGIN SELECT RAISE(ABORT, 'events are only ever added at the end'); END;
CREATE TRIGGER records_in_order BEFORE INSERT ON records
    WHEN NEW.pos <> max((SELECT coalesce(max(pos), 0) FROM events), (SELECT coalesce(max(pos), 0) FROM records)) + 1
      OR NEW.seq <> (SELECT coalesce(max(seq), 0) FROM records WHERE stream = NEW.stream) + 1
    BEGIN SELECT RAISE(ABORT, 'records are only ever added at the end'); END;
CREATE TRIGGER records_no_update BEFORE UPDATE ON records
    BEGIN SELECT RAISE(ABORT, 'records are never changed'); END;
CREATE TRIGGER records_no_delete BEFORE DELETE ON records
    BEGIN SELECT RAISE(ABORT, 'records are never deleted'); END;
