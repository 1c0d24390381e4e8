//! What the README shows is what compiles.

#[test]
fn the_readme_shows_the_example_word_for_word() {
    let readme = include_str!("../README.md");
    let example = include_str!("../examples/acme.rs");
    let shown = readme
        .split("```rust\n")
        .nth(1)
        .and_then(|rest| rest.split("\n```").next())
        .unwrap_or_default();
    assert_eq!(
        shown.trim(),
        example.trim(),
        "copy examples/acme.rs into README.md"
    );
}
