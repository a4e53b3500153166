//! Programs by their names.

use std::path::PathBuf;

use super::files::programs_named;

/// Where the program `name` may be, by `$PATH`: the first first. There need be no file.
/// None where it is not set.
pub fn places_of(name: &str) -> impl Iterator<Item = PathBuf> {
    let path = std::env::var_os("PATH");
    let dirs: Vec<PathBuf> = path.iter().flat_map(std::env::split_paths).collect();
    dirs.into_iter().flat_map(move |dir| programs_named(&dir, name))
}
