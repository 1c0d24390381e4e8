//! How a command ends: in words or as JSON, and with which exit code.

use std::error::Error;
use std::process::ExitCode;

use otahost_adapter_cli::Built;
use otahost_adapter_cli::publish::{Generated, Published};
use serde::Serialize;

pub(crate) fn end<T: Serialize, E: Error>(
    result: Result<T, E>,
    json: bool,
    show: impl FnOnce(&T),
    code: impl FnOnce(&E) -> u8,
) -> ExitCode {
    match result {
        Ok(done) if json => match serde_json::to_string(&done) {
            Ok(text) => {
                println!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => {
                eprintln!("error: the result cannot be written as JSON: {error}");
                ExitCode::FAILURE
            }
        },
        Ok(done) => {
            show(&done);
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&error);
            ExitCode::from(code(&error))
        }
    }
}

pub(crate) fn built(built: &Built) {
    println!("built      {} {}", built.adapter, built.version);
    println!("component  {}", built.component.display());
    println!("size       {} bytes", built.size);
    println!("digest     {}", built.digest);
    println!("imports    {}", built.imports.join(", "));
    println!("exports    {}", built.exports.join(", "));
    println!("toolchain  {}", built.toolchain);
    println!("time       {:.1} s", built.seconds);
}

pub(crate) fn generated(generated: &Generated) {
    for key in &generated.keys {
        println!("made       {}  {}", key.file.display(), key.purpose);
    }
    println!(
        "next       adapter publish REPOSITORY --keys {} COMPONENT.wasm",
        generated.folder.display()
    );
}

pub(crate) fn published(published: &Published) {
    let doing = if published.created {
        "made"
    } else {
        "extended"
    };
    println!("{doing:<10} {}", published.repository.display());
    for (word, adapters) in [
        ("added", &published.added),
        ("unchanged", &published.unchanged),
    ] {
        for adapter in adapters {
            println!(
                "{word:<10} {} {}  {} bytes, {}",
                adapter.adapter, adapter.version, adapter.size, adapter.digest
            );
        }
    }
    println!("offers     {} versions of adapters", published.offered);
    let new = if published.root_is_new { ", new" } else { "" };
    println!(
        "root       version {}{new}: {} (devices trust this one, or any before it)",
        published.root_version,
        published.root.display()
    );
    println!(
        "expires    {}; publish again before, with or without components",
        published.expires
    );
    println!("checked    as a device reads it");
}

/// Outermost first, each cause on a line of its own.
fn tell(error: &dyn Error) {
    eprintln!("error: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        eprintln!("  because: {inner}");
        cause = inner.source();
    }
}
