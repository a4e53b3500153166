//! Tells the program which commit it is made from (`dtunnel --version`).
//!
//! Debug builds say that they are one instead: their code is compiled anew at every commit otherwise. A package that is
//! built without the repository's history gives DTUNNEL_COMMIT and DTUNNEL_COMMIT_DATE.

use std::process::Command;

fn main() {
    for variable in ["DTUNNEL_COMMIT", "DTUNNEL_COMMIT_DATE"] {
        println!("cargo:rerun-if-env-changed={variable}");
    }
    println!("cargo:rerun-if-changed=build.rs");
    let target = std::env::var("TARGET").unwrap_or_default();
    let given = |variable| std::env::var(variable).ok().filter(|value: &String| !value.is_empty());
    let release = std::env::var("PROFILE").is_ok_and(|profile| profile == "release");
    let commit = given("DTUNNEL_COMMIT")
        .or_else(|| git(&["describe", "--always", "--abbrev=10", "--dirty", "--exclude=*"]).filter(|_| release));
    let date =
        given("DTUNNEL_COMMIT_DATE").or_else(|| git(&["show", "-s", "--format=%cs", "HEAD"]).filter(|_| release));
    if release {
        for file in ["HEAD", "logs/HEAD"] {
            if let Some(path) = git(&["rev-parse", "--git-path", file]) {
                println!("cargo:rerun-if-changed={path}");
            }
        }
    }
    let made_of = match (&commit, &date) {
        (Some(commit), Some(date)) => format!("{commit} {date}"),
        (Some(commit), None) => commit.clone(),
        _ if release => "commit unknown".into(),
        _ => "debug build".into(),
    };
    let version = std::env::var("CARGO_PKG_VERSION").unwrap_or_default();
    println!("cargo:rustc-env=DTUNNEL_VERSION={version} ({made_of}, {target})");
    println!("cargo:rustc-env=DTUNNEL_COMMIT={}", commit.unwrap_or_default());
    println!("cargo:rustc-env=DTUNNEL_COMMIT_DATE={}", date.unwrap_or_default());
    println!("cargo:rustc-env=DTUNNEL_TARGET_TRIPLE={target}");
}

/// What git says, in a clone of this repository: sources in somebody else's repository are not made of its commits.
fn git(args: &[&str]) -> Option<String> {
    if !std::path::Path::new(".git").exists() {
        return None;
    }
    let output = Command::new("git").args(args).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).trim().to_owned()).filter(|text| !text.is_empty())
}
