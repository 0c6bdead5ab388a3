//! The program: parses the command line, runs the command, and ends with one sentence and an exit code.

use std::{io::Write, process::ExitCode};

use clap::Parser;

/// Returns memory to the system sooner and fragments less than the C library's under many small buffers of all ages.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match app::cli::run(app::cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.message.is_empty() {
                // If even stderr is gone, the exit code must do.
                writeln!(std::io::stderr(), "error: {failure}").unwrap_or_default();
            }
            ExitCode::from(failure.code)
        }
    }
}
