//! Snapshots (snapshots/*.snap) of the program's output, from fixed values, without servers or root.

mod errors;
mod help;
mod tables;

/// Compares a text with its snapshot, without colours.
fn assert_text(name: &str, text: &str) {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(concat!(env!("CARGO_MANIFEST_DIR"), "/src/cli/snapshots"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!(name, anstream::adapter::strip_str(text).to_string()));
}
