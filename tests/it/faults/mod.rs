//! Faults: the real process is killed at the worst moments, and nothing that was accepted may be lost or done twice
//! after it was done.

mod broker;
mod failover;
mod kill;
mod refusals;
mod signals;
