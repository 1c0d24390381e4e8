//! Prints the table of `JOBS.md`: `cargo run -p otahost-core --example table`.

fn main() {
    print!("{}", otahost_core::job::table());
}
