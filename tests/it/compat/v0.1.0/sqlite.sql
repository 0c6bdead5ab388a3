BEGIN TRANSACTION;
CREATE TABLE idempotency_keys (
    scope   TEXT    NOT NULL,
    key     TEXT    NOT NULL,
    request BLOB    NOT NULL,
    answer  BLOB    NOT NULL,
    expires INTEGER NOT NULL,
    PRIMARY KEY (scope, key)
) STRICT, WITHOUT ROWID;
INSERT INTO "idempotency_keys" VALUES('anonymous','fixture-key',X'C4E24EBF91538B1E57C7DDE935EA08A7F4D470F920E0D01F5610C2629802433C',X'7B226964223A2230316131666635622D666131612D373731392D383633662D643661663632393335373861222C226B696E64223A22746573742E736372697074222C227175657565223A2264656661756C74222C227072696F72697479223A352C227374617465223A22717565756564222C227061796C6F6164223A7B2272756E73223A205B5B7B2270726F6772657373223A205B312C20345D7D2C207B226177616974223A20222F6E6F77686572652F67617465227D5D5D7D2C2274616773223A5B5D2C22617474656D7074223A302C226D61785F617474656D707473223A352C2274696D656F7574223A333630302E302C22637265617465645F6174223A22323032362D31312D32315431383A32363A32302E3331335A222C2272756E5F6174223A22323032362D31312D32315431383A32363A32302E3331335A222C22737461727465645F6174223A6E756C6C2C2266696E69736865645F6174223A6E756C6C2C2263616E63656C5F726571756573746564223A66616C73652C2270726F6772657373223A6E756C6C2C22726573756C74223A6E756C6C2C226572726F72223A6E756C6C2C22776F726B6572223A6E756C6C2C2263726173686573223A302C2272756E73223A302C22636F7272656C6174696F6E5F6964223A2234343634663466652D383466622D346333612D626536312D373135653035613833363266222C22617474656D707473223A5B5D2C22617474656D7074735F64726F70706564223A307D',1795371980313);
CREATE TABLE items (
    id       BLOB    NOT NULL PRIMARY KEY,
    name     TEXT    NOT NULL,
    description TEXT,
    metadata TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    updated  INTEGER NOT NULL,
    version  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "items" VALUES(X'01A1FF5BFA2376689CFAE2633AFBB1CC','Größe','one','{"category":"books","n":1}',1795285580323,1795285580323,1);
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
INSERT INTO "jobs" VALUES(X'01A1FF5BFA0B74D393A187E5DCB37483',3,'default',9,'test.script',1795285580430,1795285580299,1,0,2,0,X'01A1FF5BF9BC7204ADBF99834B408799',1795285580429,'{"v":1,"payload":{"runs": [[{"error": "once"}], [{"progress": [3, 4]}, {"ok": {"answer": 42}}]]},"max_attempts":5,"timeout_ms":3600000,"backoff":{"base_ms":10,"cap_ms":10},"tags":["nightly","ü"],"correlation_id":"fixture-1"}','{"current":3,"total":4}','{"answer":42}',NULL,'{"n":1,"w":"01a1ff5b-f9bc-7204-adbf-99834b408799","s":1795285580304,"f":1795285580305,"o":"failed","e":{"code":"scripted","message":"once"},"r":1795285580311}');
INSERT INTO "jobs" VALUES(X'01A1FF5BFA137264ABBEDC41E91035B8',4,'default',5,'test.script',1795285580310,1795285580307,1,0,1,0,X'01A1FF5BF9BC7204ADBF99834B408799',1795285580308,'{"v":1,"payload":{"runs": [[{"permanent": "no such account"}]]},"max_attempts":5,"timeout_ms":3600000,"backoff":{"base_ms":10,"cap_ms":10},"correlation_id":"2f9f2fed-365e-443e-96df-9ddfb277ec28"}',NULL,NULL,'{"code":"scripted","message":"no such account"}','{"n":1,"w":"01a1ff5b-f9bc-7204-adbf-99834b408799","s":1795285580308,"f":1795285580310,"o":"failed","e":{"code":"scripted","message":"no such account"}}');
INSERT INTO "jobs" VALUES(X'01A1FF5BFA167351B3B615A8386D4B64',5,'default',5,'test.script',1795285580312,1795285580310,0,0,0,1,NULL,NULL,'{"v":1,"payload":{"runs": [[{"ok": 1}]]},"max_attempts":5,"timeout_ms":3600000,"backoff":{"base_ms":10,"cap_ms":10},"correlation_id":"89b314c3-25bd-40c8-aeaa-55fb05bfe076"}',NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A1FF5BFA1A7719863FD6AF6293578A',2,'default',5,'test.script',1795285595314,1795285580313,0,0,1,0,X'01A1FF5BF9BC7204ADBF99834B408799',1795285580314,'{"v":1,"payload":{"runs": [[{"progress": [1, 4]}, {"await": "/nowhere/gate"}]]},"max_attempts":5,"timeout_ms":3600000,"backoff":{"base_ms":10,"cap_ms":10},"correlation_id":"4464f4fe-84fb-4c3a-be61-715e05a8362f"}','{"current":1,"total":4}',NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A1FF5BFA1C7715A2FFFD35FB8E704E',1,'later',7,'test.script',1795285580316,1795285580316,0,0,0,0,NULL,NULL,'{"v":1,"payload":{"runs": [[{"ok": 1}]]},"max_attempts":5,"timeout_ms":3600000,"backoff":{"base_ms":10,"cap_ms":10},"correlation_id":"e4574123-3e2e-4a89-8297-be818eeffabf"}',NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A1FF5BFA1D77E3B54D31AFB7E8FFB6',0,'default',5,'test.script',1893456000000,1795285580317,0,0,0,0,NULL,NULL,'{"v":1,"payload":{"runs": [[{"ok": 1}]]},"max_attempts":7,"timeout_ms":90000,"backoff":{"base_ms":10,"cap_ms":10},"correlation_id":"1c79dc8f-884f-4aa7-acbd-cfd05b0958d8"}',NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES(X'01A1FF5BFA1F741F96CB07714E67A7D2',1,'held',5,'test.script',1795285580319,1795285580319,0,0,0,0,NULL,NULL,'{"v":1,"payload":{"runs": [[{"ok": 1}]]},"max_attempts":5,"timeout_ms":3600000,"backoff":{"base_ms":10,"cap_ms":10},"correlation_id":"28b94435-80a5-47f2-87d8-e6edc8351cfa"}',NULL,NULL,NULL,NULL);
CREATE TABLE probe (
    id INTEGER NOT NULL PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;
CREATE TABLE queues (
    name   TEXT    NOT NULL PRIMARY KEY,
    paused INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "queues" VALUES('held',1);
CREATE TABLE workers (
    id     BLOB NOT NULL PRIMARY KEY,
    report TEXT NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "workers" VALUES(X'01A1FF5BF9BC7204ADBF99834B408799','{"id":"01a1ff5b-f9bc-7204-adbf-99834b408799","host":"host-1","pid":1960,"version":"0.1.0","started_at":"2026-11-21T18:26:20.224Z","heartbeat_at":"2026-11-21T18:26:20.224Z","draining":false,"queues":[["default",1],["heavy",1],["scheduled",1]],"slots":4,"busy":0,"kinds":["batch_process_task","noop","process_heavy_task","scheduled_cleanup_task","test.script"],"active":[],"totals":{"started":0,"succeeded":0,"failed":0,"retried":0},"last_minute":[],"rss_bytes":55676928}');
CREATE INDEX jobs_queued ON jobs (queue, at) WHERE state = 1;
CREATE INDEX jobs_timed ON jobs (state, at, queue) WHERE state = 0 OR state = 2;
CREATE INDEX jobs_dead ON jobs (id, queue) WHERE state = 4;
CREATE INDEX idempotency_keys_expires ON idempotency_keys (expires);
COMMIT;
