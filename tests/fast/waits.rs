//! That no wait of the command line is left out of its list.

use std::collections::BTreeSet;
use std::path::Path;

/// docs/architecture.md, "Every wait", names each bound of the command line and of the daemon's sockets,
/// and each file in which something is waited for.
#[test]
fn the_list_of_waits_is_complete() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let list = text.split("\n## ").find(|section| section.starts_with("Every wait")).expect("the section");
    // What waits, as it stands in the sources. (A `.await` is a task's, which others go on beside.)
    let calls = [
        ".receive(",
        ".receive_soon(",
        ".output()",
        ".status()\n",
        ".wait_with_output()",
        ".recv_timeout(",
        ".recv()",
        "read_line(",
        "read_exact(",
        "event::poll(",
        "thread::sleep(",
        "tokio::time::sleep(",
        "tokio::time::timeout(",
        ".within(",
    ];
    let mut missing = BTreeSet::new();
    for directory in ["src/cli", "src/cli/top", "src/config", "src/config/ssh_config", "src/daemon"] {
        for entry in std::fs::read_dir(root.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            let Ok(source) = std::fs::read_to_string(&path) else { continue };
            let source = source.split("#[cfg(test)]").next().unwrap();
            let file = path.strip_prefix(root.join("src")).unwrap().display().to_string();
            if calls.iter().any(|call| source.contains(call)) && !list.contains(&format!("`{file}`")) {
                missing.insert(file.clone());
            }
            for line in source.lines().filter(|line| line.contains("const ") && line.contains(": Duration =")) {
                let name = line.split("const ").nth(1).unwrap().split(':').next().unwrap();
                // A setting's default is in docs/configuration.md.
                if !name.starts_with("DEFAULT_") && !list.contains(&format!("`{name}`")) {
                    missing.insert(format!("{file}: {name}"));
                }
            }
        }
    }
    assert_eq!(missing, BTreeSet::new(), "not in docs/architecture.md, \"Every wait\"");
}
