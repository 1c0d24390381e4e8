//! The otahost agent and its command line.

fn main() -> std::process::ExitCode {
    otahost::cli::main().into()
}
