//! Every public item of the library has a doc comment. Fields and variants need none where their name says it all, which
//! is why rustc's `missing_docs` is not used.

use std::path::{Path, PathBuf};

const KINDS: [&str; 5] = ["fn", "struct", "enum", "trait", "mod"];

fn files(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name == "tests" || name == "tests.rs") {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// `fn name` for a line that declares a public item of one of [`KINDS`].
fn declared(line: &str) -> Option<(&str, &str)> {
    let words = line.trim().strip_prefix("pub ")?.split(|c: char| !c.is_alphanumeric() && c != '_');
    let mut words = words.skip_while(|word| ["async", "const", "unsafe"].contains(word));
    let kind = words.next().filter(|kind| KINDS.contains(kind))?;
    Some((kind, words.next()?))
}

/// Does a doc comment stand above the last of `lines`, with only attributes between?
fn has_doc_comment(lines: &[&str]) -> bool {
    let mut above = lines[..lines.len() - 1].iter().rev().map(|line| line.trim());
    while let Some(line) = above.next() {
        if line.starts_with("///") {
            return true;
        }
        if !line.ends_with(']') {
            return false;
        }
        if !line.starts_with("#[") {
            // The last line of an attribute of several.
            above.find(|line| line.starts_with("#["));
        }
    }
    false
}

/// Does the file of `module`, declared in `file`, begin with `//!`?
fn has_module_comment(file: &Path, module: &str) -> bool {
    let stem = file.file_stem().unwrap();
    let dir = if stem == "mod" || stem == "lib" { file.with_file_name("") } else { file.with_extension("") };
    let candidates = [dir.join(module).with_extension("rs"), dir.join(module).join("mod.rs")];
    candidates.iter().any(|path| std::fs::read_to_string(path).is_ok_and(|text| text.starts_with("//!")))
}

#[test]
fn every_public_item_has_a_doc_comment() {
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
    let (mut seen, mut bare) = (0, Vec::new());
    for file in &found {
        let text = std::fs::read_to_string(file).unwrap();
        let lines: Vec<&str> = text.split("#[cfg(test)]\nmod ").next().unwrap().lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some((kind, name)) = declared(line) else { continue };
            seen += 1;
            if !(has_doc_comment(&lines[..=at]) || kind == "mod" && has_module_comment(file, name)) {
                bare.push(format!("{}:{}: {kind} {name}", file.display(), at + 1));
            }
        }
    }
    assert!(seen > 300, "{seen}");
    assert!(bare.is_empty(), "without a doc comment:\n{}", bare.join("\n"));
}
