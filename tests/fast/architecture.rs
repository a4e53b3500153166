//! The rules of the house (src/lib.rs), read from its `use` lines and paths: imports go down only, no file imports what
//! imports it, russh is named in `ssh` only, only `cli` prints, and only `os` has conditions on the system.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The rooms, from the top; those in one row know nothing of each other.
const ROOMS: [&[&str]; 8] = [
    &["cli"],
    &["daemon", "doctor", "audit"],
    &["tunnel"],
    &["host"],
    &["engine"],
    &["ssh"],
    &["config"],
    &["failure", "address", "text", "shell_word", "glob", "backoff", "bounded", "sync", "os"],
];

type Module = Vec<String>;

/// A module's path and its source, without comments and tests.
fn sources() -> BTreeMap<Module, String> {
    fn walk(dir: &Path, found: &mut Vec<std::path::PathBuf>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("tests.rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    walk(&root, &mut files);
    let read = |file: std::path::PathBuf| {
        let name = file.strip_prefix(&root).unwrap().with_extension("");
        let mut module: Module = name.iter().map(|part| part.to_str().unwrap().to_owned()).collect();
        if matches!(module.last().map(String::as_str), Some("mod" | "lib" | "main")) {
            module.pop();
        }
        let text = std::fs::read_to_string(&file).unwrap();
        let text = text.split("#[cfg(test)]\nmod ").next().unwrap();
        let lines = text.lines().map(|line| line.split("//").next().unwrap());
        (module, lines.collect::<Vec<_>>().join("\n"))
    };
    files.into_iter().filter(|file| !file.ends_with("main.rs")).map(read).collect()
}

/// `a::{b, c::d}` as `a::b`, `a::c::d`.
fn expanded(tree: &str) -> Vec<Module> {
    let (before, inner) = match tree.trim().split_once('{') {
        Some((before, inner)) => (before, inner.trim_end().strip_suffix('}').unwrap()),
        None => {
            let plain = tree.trim().split(" as ").next().unwrap();
            return vec![plain.split("::").map(|part| part.trim().to_owned()).collect()];
        }
    };
    let prefix: Module = before.split("::").map(|p| p.trim().to_owned()).filter(|p| !p.is_empty()).collect();
    let (mut depth, mut pieces) = (0, vec![String::new()]);
    for c in inner.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                pieces.push(String::new());
                continue;
            }
            _ => {}
        }
        pieces.last_mut().unwrap().push(c);
    }
    let pieces = pieces.iter().filter(|piece| !piece.trim().is_empty());
    pieces.flat_map(|piece| expanded(piece)).map(|rest| [prefix.clone(), rest].concat()).collect()
}

struct House {
    sources: BTreeMap<Module, String>,
    /// What a module hands on, by name: more than one where systems have their own.
    handed_on: BTreeMap<(Module, String), BTreeSet<Module>>,
}

impl House {
    fn read() -> Self {
        let mut house = Self { sources: sources(), handed_on: BTreeMap::new() };
        for (module, source) in &house.sources.clone() {
            for path in uses(source, true) {
                let Some(path) = house.absolute(module, &path) else { continue };
                house.handed_on.entry((module.clone(), path.last().unwrap().clone())).or_default().insert(path);
            }
        }
        house
    }

    /// From the root on; None for another crate's.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Module> {
        let mut path: Vec<String> = path.iter().filter(|part| *part != "self").cloned().collect();
        let mut base = module.to_vec();
        if path.first().is_some_and(|first| first == "crate") {
            return Some(path[1..].to_vec());
        }
        let is_relative = path.first().is_some_and(|first| first == "super");
        while path.first().is_some_and(|first| first == "super") {
            path.remove(0);
            base.pop();
        }
        let child = [base.clone(), path.iter().take(1).cloned().collect()].concat();
        (is_relative || self.sources.contains_key(&child)).then(|| [base, path].concat())
    }

    /// The files in which what a path names is defined, after at most so many steps: one, or each system's.
    fn homes(&self, path: &[String], steps: usize) -> BTreeSet<Module> {
        assert!(steps > 0, "{path:?} is handed on in a circle");
        let at = (0..=path.len()).rev().find(|at| self.sources.contains_key(&path[..*at])).unwrap();
        let handed_on = path.get(at).and_then(|name| self.handed_on.get(&(path[..at].to_vec(), name.clone())));
        match handed_on {
            Some(next) if !next.contains(path) => {
                let paths = next.iter().map(|next| [next.clone(), path[at + 1..].to_vec()].concat());
                paths.flat_map(|path| self.homes(&path, steps - 1)).collect()
            }
            _ => BTreeSet::from([path[..at].to_vec()]),
        }
    }

    fn imports(&self, module: &Module) -> BTreeSet<Module> {
        let source = &self.sources[module];
        let mut paths = uses(source, false);
        paths.extend(paths_in(source));
        let absolute = paths.iter().filter_map(|path| self.absolute(module, path));
        absolute.flat_map(|path| self.homes(&path, 8)).filter(|home| home != module).collect()
    }
}

/// The trees of `use` lines: those that hand on (`pub`), or the others.
fn uses(source: &str, handing_on: bool) -> Vec<Module> {
    let (mut found, mut tree) = (Vec::new(), None::<String>);
    for line in source.lines() {
        let line = line.trim();
        let begun = line.strip_prefix("use ").map(|rest| (false, rest)).or_else(|| {
            let (visibility, rest) = line.split_once("use ")?;
            let visibility = visibility.trim_end();
            let is_visibility =
                visibility.starts_with("pub") && !visibility.contains(' ') || visibility.starts_with("pub(in ");
            is_visibility.then_some((true, rest))
        });
        match (&mut tree, begun) {
            (None, Some((hands_on, rest))) if hands_on == handing_on => tree = Some(rest.to_owned()),
            (Some(tree), _) => tree.push_str(line),
            _ => {}
        }
        if let Some(whole) = tree.take_if(|tree| tree.ends_with(';')) {
            found.extend(expanded(whole.trim_end_matches(';')));
        }
    }
    found
}

/// Paths within the code that begin with `crate::` or `super::`.
fn paths_in(source: &str) -> Vec<Module> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    // Who may see something is no import.
    let source = source.replace("pub(in crate::", "pub(in ");
    let words = source.split(|c: char| !is_word(c));
    let ours = words.filter(|word| word.starts_with("crate::") || word.starts_with("super::"));
    let parts =
        ours.map(|word| word.split("::").map(str::to_owned).filter(|part| !part.is_empty()).collect::<Module>());
    parts.filter(|path| path.len() > 1).collect()
}

fn rank(module: &[String]) -> Option<usize> {
    let room = module.first()?;
    Some(ROOMS.iter().position(|row| row.contains(&room.as_str())).unwrap_or_else(|| panic!("{room} is in no row")))
}

#[test]
fn imports_go_down_only() {
    let house = House::read();
    assert!(house.sources.len() > 100, "{}", house.sources.len());
    for module in house.sources.keys().filter(|module| !module.is_empty()) {
        for import in house.imports(module).iter().filter(|import| !import.is_empty()) {
            let is_down = rank(module) < rank(import) || module[0] == import[0];
            assert!(is_down, "{} imports {}", module.join("::"), import.join("::"));
        }
    }
}

/// All that can be reached from each other.
fn circles(house: &House) -> BTreeSet<BTreeSet<Module>> {
    let edges: BTreeMap<_, _> = house.sources.keys().map(|module| (module, house.imports(module))).collect();
    let reached = |from: &Module| {
        let (mut seen, mut next) = (BTreeSet::new(), edges[from].iter().cloned().collect::<Vec<_>>());
        while let Some(module) = next.pop() {
            if seen.insert(module.clone()) {
                next.extend(edges.get(&module).into_iter().flatten().cloned());
            }
        }
        seen
    };
    let all: BTreeMap<&Module, BTreeSet<Module>> = edges.keys().map(|module| (*module, reached(module))).collect();
    let in_circles = all.iter().filter(|(module, reached)| reached.contains(**module));
    let circle = |(module, reached): (&&Module, &BTreeSet<Module>)| {
        reached.iter().filter(|other| all[other].contains(*module)).cloned().collect()
    };
    in_circles.map(circle).collect()
}

#[test]
fn no_file_imports_what_imports_it() {
    let house = House::read();
    assert_eq!(circles(&house), BTreeSet::new());
}

#[test]
fn russh_is_named_in_ssh_only_and_only_the_command_line_prints() {
    for (module, source) in sources() {
        let room = module.first().map_or("", String::as_str);
        assert!(room == "ssh" || !source.contains("russh::"), "{}", module.join("::"));
        for print in ["println!", "eprintln!", "print!(", "eprint!("] {
            assert!(room == "cli" || !source.contains(print), "{} prints", module.join("::"));
        }
    }
}

/// What only one kind of system has is asked for through the platform room, so that the others can be built.
#[test]
fn only_the_platform_room_names_what_one_kind_of_system_has() {
    for (module, source) in sources() {
        for name in
            ["std::os::", "tokio::net::Unix", "signal::unix", "rustix::", " nix::", "signal_hook::", "windows_sys::"]
        {
            let is_allowed =
                module.first().is_some_and(|room| room == "os") || module.iter().any(|part| part == "tests");
            assert!(is_allowed || !source.contains(name), "{}: {name} belongs into src/os", module.join("::"));
        }
    }
}

/// The conditions in a source, as `#[cfg(…)]`, `#[cfg_attr(…)]` or `cfg!(…)` have them.
fn conditions(source: &str) -> Vec<String> {
    let after = ["cfg(", "cfg!(", "cfg_attr("].into_iter().flat_map(|begin| source.split(begin).skip(1));
    let inner = after.map(|rest| {
        let mut depth = 1;
        rest.chars().take_while(move |c| {
            depth += i32::from(*c == '(') - i32::from(*c == ')');
            // What `cfg_attr` adds follows a comma.
            depth > 1 || depth == 1 && *c != ','
        })
    });
    inner.map(Iterator::collect).collect()
}

/// Tests may have such conditions, and CPUs are not systems.
#[test]
fn only_the_platform_room_has_conditions_on_the_system() {
    const ALLOWED: [&str; 7] = ["test", "debug_assertions", "fuzzing", "target_arch", "not", "any", "all"];
    let main = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs")).unwrap();
    let sources = sources().into_iter().chain([(vec!["main".into()], main)]);
    for (module, source) in sources.filter(|(module, _)| !module.iter().any(|part| part == "os" || part == "tests")) {
        for condition in conditions(&source) {
            // Every second part is in quotation marks.
            let unquoted = condition.split('"').step_by(2);
            let words = unquoted.flat_map(|part| part.split(|c: char| !c.is_alphanumeric() && c != '_'));
            let odd = words.filter(|word| !word.is_empty() && !ALLOWED.contains(word)).collect::<Vec<_>>();
            assert!(odd.is_empty(), "{}: cfg({condition}) belongs into src/os", module.join("::"));
        }
    }
    let examples = "#[cfg(all(test, not(unix)))] if cfg!(target_os = \"linux\") {} #[cfg_attr(windows, path = \"x\")]";
    let found = conditions(examples);
    assert_eq!(found, ["all(test, not(unix))", "target_os = \"linux\"", "windows"]);
}
