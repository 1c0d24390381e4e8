//! The README says what the code does.

use clap::CommandFactory;
use otahost::cli::Cli;
use otahost::config::schema;
use otahost::exit::Exit;

const README: &str = include_str!("../README.md");

#[test]
fn every_key_of_the_configuration_is_in_the_reference() {
    for table in schema::TABLES {
        let title = if table.path.is_empty() {
            "### Tables".to_owned()
        } else {
            format!("### `{}`", table.path)
        };
        assert!(
            README.contains(&format!("{title}\n")),
            "the README lacks {title}"
        );
        if !table.keys.is_empty() {
            let rows = table.markdown();
            assert!(
                README.contains(&rows),
                "the README's table below {title} must be:\n{rows}"
            );
        }
    }
}

#[test]
fn every_exit_code_is_in_the_table() {
    for exit in Exit::ALL {
        let row = format!(
            "| {} | `{}` | {} |",
            exit.code(),
            exit.word(),
            exit.meaning()
        );
        assert!(README.contains(&row), "the README lacks: {row}");
    }
}

#[test]
fn every_command_is_in_the_list() {
    let command = Cli::command();
    for command in command.get_subcommands().filter(|c| !c.is_hide_set()) {
        let name = command.get_name();
        let line = format!("\notahost {name}");
        assert!(README.contains(&line), "the README lacks {name}");
    }
}

#[test]
fn the_example_of_the_readme_has_no_fault_but_its_missing_files() {
    let example = README
        .split("```toml\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .find(|block| block.contains("[device]"))
        .expect("the README shows a whole configuration");
    let faults = match otahost::config::Config::from_text(
        std::path::Path::new("/etc/otahost/otahost.toml"),
        example,
    ) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.findings,
    };
    for fault in faults {
        assert!(fault.what.contains("exist"), "{fault:?}");
    }
}
