//! The README's example is a whole configuration: what it grants is what this adapter asks for.

use kit112::Kit112;
use otahost_adapter::bench::Bench;
use serde_json::Value;

fn example() -> Value {
    let readme = include_str!("../../README.md");
    let text = readme
        .split("```toml\n")
        .nth(1)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    toml::from_str(text).unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_str().unwrap())
        .collect()
}

#[test]
fn the_readmes_example_is_read_and_grants_all_that_is_asked_for() {
    let example = example();
    let adapter = &example["adapters"]["kit112"];
    let bench = Bench::<Kit112>::new(&adapter["config"].to_string()).unwrap();
    let grants = &adapter["grants"];
    let served = texts(&grants["links"]["kit"]["serve"]);
    for route in &bench.requirements.routes {
        let route = format!("{} {}", route.method, route.path);
        assert!(served.contains(&route.as_str()), "{route}");
    }
    assert_eq!(served.len(), bench.requirements.routes.len());
    assert_eq!(example["links"]["kit"]["kind"], "http_server");
    for source in &bench.requirements.sources {
        assert_eq!(example["links"][source]["kind"], "ftps");
        assert!(!texts(&grants["links"][source]["files"]).is_empty());
    }
    for target in &bench.requirements.targets {
        assert!(texts(&grants["targets"]).contains(&target.as_str()));
        assert!(example["targets"][target].is_object());
    }
}

#[test]
fn the_readmes_pattern_for_names_without_semantic_versions_works() {
    let readme = include_str!("../../README.md");
    let text = readme
        .split("```toml\n")
        .nth(2)
        .and_then(|rest| rest.split("```").next())
        .unwrap();
    let more: Value = toml::from_str(text).unwrap();
    let mut config = example()["adapters"]["kit112"]["config"].clone();
    config["files"] = more["adapters"]["kit112"]["config"]["files"].clone();
    let config: kit112::config::Config = serde_json::from_value(config).unwrap();
    assert_eq!(config.faults(), Vec::<String>::new());
    let names = [
        "B359_1029_B99_D25123101.img",
        "B359_1029_B242_D25080802.img",
    ];
    let entries = names.map(|name| otahost_adapter::bench::file(name, 7));
    let newest = config
        .files
        .chooser()
        .unwrap()
        .choose(&entries)
        .newest
        .unwrap();
    assert_eq!(newest.version, "B359_1029_B242_D25080802");
}
