-- Jobs, items, queues, workers, idempotency keys.
--
-- `jobs.at` is the time that belongs to the state (scheduled for, queued since, lease runs out, ended), so that one
-- small index entry follows each transition. Each index that holds the state is paid at every transition: there are
-- exactly as many as the passes and the claim need. Ids are UUIDv7, so new rows land at the right edge of the tree
-- and `ORDER BY id` is the order of submission.
CREATE TABLE jobs (
    id       BLOB    NOT NULL PRIMARY KEY,
    state    INTEGER NOT NULL,
    queue    TEXT    NOT NULL,
    priority INTEGER NOT NULL,
    kind     TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    created  INTEGER NOT NULL,
    failures INTEGER NOT NULL,
    crashes  INTEGER NOT NULL,
    fence    INTEGER NOT NULL,
    cancel   INTEGER NOT NULL,
    worker   BLOB,
    started  INTEGER,
    spec     TEXT    NOT NULL,
    progress TEXT,
    result   TEXT,
    error    TEXT,
    attempts TEXT
) STRICT, WITHOUT ROWID;

-- What is ready, by queue and waiting time: the lost pass, oldest age, purge.
CREATE INDEX jobs_queued ON jobs (queue, at) WHERE state = 1;
-- What waits for a time (scheduled: due, running: lease runs out). Written with OR, because SQLite uses a partial index
-- for `state = 2` if that is one of its alternatives, but not if it is one of the values of an IN.
CREATE INDEX jobs_timed ON jobs (state, at, queue) WHERE state = 0 OR state = 2;
-- Dead letters, by age.
CREATE INDEX jobs_dead ON jobs (id, queue) WHERE state = 4;

CREATE TABLE items (
    id       BLOB    NOT NULL PRIMARY KEY,
    name     TEXT    NOT NULL,
    description TEXT,
    metadata TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    updated  INTEGER NOT NULL,
    version  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE queues (
    name   TEXT    NOT NULL PRIMARY KEY,
    paused INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE workers (
    id     BLOB NOT NULL PRIMARY KEY,
    report TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE idempotency_keys (
    scope   TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    request BLOB    NOT NULL,
    answer  BLOB    NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_expires ON idempotency_keys (expires);

-- One row that `/health` overwrites: only a write shows that the disk is full.
CREATE TABLE probe (
    id INTEGER NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;
