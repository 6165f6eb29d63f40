//! `outrigger`: see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    outrigger::cli::main()
}
