//! Telemetry: how the program tells what it does, in logs and metrics.
//!
//! Names, units and labels are agreed here once, because dashboards and alert rules outlive the code that emits them.

pub mod logs;
pub mod metrics;
