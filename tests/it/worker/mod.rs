//! What a real worker and a real scheduler do together, in one process, over SQLite and the embedded broker.
//!
//! Jobs are of the kind `test.script`: their payload says what each run does. They wait for files instead of for time.

mod control;
mod leases;
mod order;
mod outcomes;
mod stop;
