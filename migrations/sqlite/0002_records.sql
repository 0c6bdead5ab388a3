-- Records: small documents of every sort, with the names they are found by and the labels they are listed by.
--
-- Names and labels stand in tables of their own, keyed so that a look-up and a page each are one walk of one tree.
CREATE TABLE records (
    shelf   TEXT    NOT NULL,
    id      BLOB    NOT NULL,
    version INTEGER NOT NULL,
    names   TEXT    NOT NULL,
    labels  TEXT    NOT NULL,
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    expires INTEGER,
    body    TEXT    NOT NULL,
    PRIMARY KEY (shelf, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX records_expires ON records (expires) WHERE expires IS NOT NULL;

CREATE TABLE record_names (
    shelf TEXT NOT NULL,
    name  TEXT NOT NULL,
    id    BLOB NOT NULL,
    PRIMARY KEY (shelf, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE record_labels (
    shelf TEXT NOT NULL,
    label TEXT NOT NULL,
    id    BLOB NOT NULL,
    PRIMARY KEY (shelf, label, id)
) STRICT, WITHOUT ROWID;
