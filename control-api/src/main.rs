//! The binary `outrigger-control`.

fn main() -> std::process::ExitCode {
    outrigger_control::cli::main()
}
