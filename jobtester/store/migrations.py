"""Create the tables and migrate earlier files, one step per version; PRAGMA user_version holds a file's version."""

from __future__ import annotations

import sqlite3

from jobtester.errors import StoreError

# Shipped steps never change: files out there have been through exactly these. A change is a new step behind them.
#
# Why each column is indexed (`address` became `orchestrator` in step 6):
# - ticks.started_at: the pages and the API list the newest ticks.
# - results (tick, seq), (orchestrator, pipeline, model, seq), (reason, seq), (outcome, seq), (pipeline, seq) and
#   (model, seq): the filters of a page of results. Each ends in `seq`, the order of a page, which saves the sort.
# - results.started_at: results of a span of time; (orchestrator, started_at, …): see step 10.
# - skips.until: what the newest tick, or any other, has skipped.
# - results.recorded_at, received.received_at: retention deletes by age, and the daily budget sums today's prices.
# - outbox (state, due_at) finds what is due; (state, seq) claims the oldest first; (tick, gateway, state) moves the
#   held stats of one gateway; (orchestrator, state, settled_at) finds a control for a look-up.
# - received (digest, received_at) recognizes a body that was posted twice.
#
# - kept_files (kept_at, seq, size): retention adds up sizes, the newest first, without reading the files. `seq` is that
#   of the result; `capability` is set for the newest pass of one, whose next pass takes its place.
#
# `latest` repeats, for each capability, its newest result, its usual duration and its run of unscored results. The
# overview and every plan need them, and to search all of `results` for them would take seconds after a few months.

_V1 = """
CREATE TABLE ticks (
    id TEXT PRIMARY KEY, started_at REAL NOT NULL, finished_at REAL, seed INTEGER NOT NULL, trigger TEXT NOT NULL,
    state TEXT NOT NULL, report TEXT NOT NULL DEFAULT '{}'
) STRICT;
CREATE INDEX ticks_started ON ticks (started_at);
CREATE TABLE results (
    seq INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, tick TEXT NOT NULL, address TEXT NOT NULL,
    service_uri TEXT NOT NULL, pipeline TEXT NOT NULL, pipeline_name TEXT NOT NULL, model TEXT NOT NULL,
    warm INTEGER NOT NULL, outcome TEXT NOT NULL, reason TEXT NOT NULL, message TEXT NOT NULL,
    attribution TEXT NOT NULL, evidence TEXT NOT NULL, gateway TEXT NOT NULL, targeting TEXT NOT NULL,
    started_at REAL NOT NULL, recorded_at REAL NOT NULL, round_trip_s REAL NOT NULL, artefact_s REAL, status INTEGER,
    measures TEXT NOT NULL, deferred INTEGER NOT NULL, price_wei TEXT, request TEXT NOT NULL, response TEXT NOT NULL
) STRICT;
CREATE INDEX results_tick ON results (tick, seq);
CREATE INDEX results_capability ON results (address, pipeline, model, seq);
CREATE INDEX results_recorded ON results (recorded_at);
CREATE TABLE latest (
    address TEXT NOT NULL, service_uri TEXT NOT NULL, pipeline TEXT NOT NULL, model TEXT NOT NULL,
    seq INTEGER NOT NULL, mean_s REAL, unscored_streak INTEGER NOT NULL,
    PRIMARY KEY (address, service_uri, pipeline, model)
) STRICT, WITHOUT ROWID;
CREATE TABLE outbox (
    seq INTEGER PRIMARY KEY, result TEXT NOT NULL UNIQUE, tick TEXT NOT NULL, gateway TEXT NOT NULL,
    state TEXT NOT NULL, body BLOB NOT NULL, region TEXT NOT NULL, address TEXT NOT NULL, pipeline TEXT NOT NULL,
    model TEXT NOT NULL, timestamp INTEGER NOT NULL, round_trip_s REAL NOT NULL, created_at REAL NOT NULL,
    due_at REAL NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, first_sent_at REAL, last_sent_at REAL,
    settled_at REAL, problem TEXT NOT NULL DEFAULT '', maybe_double INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX outbox_due ON outbox (state, due_at);
CREATE INDEX outbox_tick ON outbox (tick, gateway, state);
CREATE TABLE received (
    id TEXT PRIMARY KEY, digest TEXT NOT NULL, received_at REAL NOT NULL, source TEXT NOT NULL, kind TEXT NOT NULL,
    stat TEXT NOT NULL
) STRICT;
CREATE INDEX received_digest ON received (digest, received_at);
CREATE INDEX received_at ON received (received_at);
CREATE TABLE pulse (id INTEGER PRIMARY KEY, at REAL NOT NULL) STRICT;
"""

_V2 = """
CREATE INDEX outbox_order ON outbox (state, seq);
CREATE INDEX results_reason ON results (reason, seq);
"""

_V3 = """
CREATE INDEX results_outcome ON results (outcome, seq);
CREATE INDEX results_pipeline ON results (pipeline, seq);
CREATE INDEX results_model ON results (model, seq);
"""

_V4 = """
ALTER TABLE results ADD COLUMN notes TEXT NOT NULL DEFAULT '[]';
"""

_V5 = """
ALTER TABLE outbox ADD COLUMN looks INTEGER NOT NULL DEFAULT 0;
ALTER TABLE outbox ADD COLUMN audited_at REAL;
CREATE INDEX outbox_address ON outbox (address, state, settled_at);
"""

_V6 = """
ALTER TABLE results RENAME COLUMN address TO orchestrator;
ALTER TABLE results RENAME COLUMN artefact_s TO artifact_s;
ALTER TABLE results RENAME COLUMN price_wei TO estimated_price_wei;
ALTER TABLE latest RENAME COLUMN address TO orchestrator;
ALTER TABLE outbox RENAME COLUMN address TO orchestrator;
ALTER TABLE outbox RENAME COLUMN looks TO look_ups;
UPDATE results SET reason = replace(reason, 'artefact', 'artifact') WHERE reason LIKE '%artefact%';
"""

# Until here the app of a live runner shared its history with a BYOC capability of the same name.
_V7 = """
ALTER TABLE results ADD COLUMN kind TEXT NOT NULL DEFAULT 'batch';
ALTER TABLE results ADD COLUMN runner TEXT NOT NULL DEFAULT '{}';
UPDATE results SET kind = CASE WHEN targeting = 'direct' THEN 'live-runner' ELSE 'byoc' END
    WHERE targeting = 'direct' OR pipeline NOT IN ('text-to-image', 'image-to-image', 'image-to-video', 'upscale',
    'audio-to-text', 'segment-anything-2', 'llm', 'image-to-text', 'live-video-to-video', 'text-to-speech');
CREATE TABLE latest_by_kind (
    orchestrator TEXT NOT NULL, service_uri TEXT NOT NULL, pipeline TEXT NOT NULL, model TEXT NOT NULL,
    kind TEXT NOT NULL, seq INTEGER NOT NULL, mean_s REAL, unscored_streak INTEGER NOT NULL,
    PRIMARY KEY (orchestrator, service_uri, pipeline, model, kind)
) STRICT, WITHOUT ROWID;
INSERT INTO latest_by_kind
    SELECT l.orchestrator, l.service_uri, l.pipeline, l.model, coalesce(r.kind, 'batch'), l.seq, l.mean_s,
        l.unscored_streak
    FROM latest l LEFT JOIN results r ON r.seq = l.seq;
DROP TABLE latest;
ALTER TABLE latest_by_kind RENAME TO latest;
CREATE TABLE live_runners (
    orchestrator TEXT NOT NULL, service_uri TEXT NOT NULL, app TEXT NOT NULL, version TEXT NOT NULL,
    mode TEXT NOT NULL, price_wei TEXT, unit TEXT NOT NULL, gpu TEXT NOT NULL, schema_url TEXT NOT NULL,
    state TEXT NOT NULL, ticks INTEGER NOT NULL, listed_at REAL NOT NULL,
    PRIMARY KEY (orchestrator, service_uri, app, version)
) STRICT, WITHOUT ROWID;
"""

_V8 = """
ALTER TABLE results ADD COLUMN details TEXT NOT NULL DEFAULT '{}';
CREATE TABLE kept_files (
    seq INTEGER PRIMARY KEY, capability TEXT, kept_at REAL NOT NULL, content_type TEXT NOT NULL,
    sha256 TEXT NOT NULL, size INTEGER NOT NULL, original_size INTEGER NOT NULL, width INTEGER NOT NULL,
    height INTEGER NOT NULL, seconds REAL NOT NULL, content BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX kept_files_capability ON kept_files (capability) WHERE capability IS NOT NULL;
CREATE INDEX kept_files_size ON kept_files (kept_at, seq, size);
"""

_V9 = """
CREATE TABLE runner_sessions (
    job TEXT PRIMARY KEY, service_uri TEXT NOT NULL, runner_url TEXT NOT NULL, control_url TEXT NOT NULL,
    opened_at REAL NOT NULL, stop_rounds INTEGER NOT NULL DEFAULT 0
) STRICT;
"""

# The history of one orchestrator is read from the index alone: the rows are large, and a month of them is thousands.
_V10 = """
CREATE INDEX results_history ON results (orchestrator, started_at, service_uri, pipeline, model, kind, warm, outcome,
    round_trip_s, estimated_price_wei);
CREATE INDEX results_started ON results (started_at);
CREATE TABLE skips (
    orchestrator TEXT NOT NULL, service_uri TEXT NOT NULL, pipeline TEXT NOT NULL, model TEXT NOT NULL,
    kind TEXT NOT NULL, reason TEXT NOT NULL, since REAL NOT NULL, until REAL NOT NULL,
    PRIMARY KEY (orchestrator, service_uri, pipeline, model, kind, reason, since)
) STRICT, WITHOUT ROWID;
CREATE INDEX skips_until ON skips (until);
"""

_V11 = """
ALTER TABLE skips ADD COLUMN note TEXT NOT NULL DEFAULT '';
"""

STEPS: tuple[str, ...] = (_V1, _V2, _V3, _V4, _V5, _V6, _V7, _V8, _V9, _V10, _V11)
VERSION = len(STEPS)


def refuse_newer(connection: sqlite3.Connection, path: str) -> None:
    """Raise StoreError if the file is newer than the program; the file is not touched."""
    if (version := _version(connection)) > VERSION:
        raise StoreError(
            f"store.path: {path} has version {version}, this program supports up to {VERSION}; "
            "use the newer program, or set another path"
        )


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a file to this program's version, each step in one transaction."""
    for step in range(_version(connection), VERSION):
        connection.execute("BEGIN IMMEDIATE")
        try:
            if _version(connection) == step:  # otherwise another process has just taken the same step
                for statement in STEPS[step].split(";"):
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {step + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.rollback()
            raise


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])
