//! Changes to `config.toml` that keep what people wrote around them.

use std::io::Write;
use std::path::Path;

use toml_edit::{DocumentMut, Item, Table, value};

use super::file::ConfigFile;
use super::{Error, Profile, is_profile_name};
use crate::os::private;

/// A profile to be added.
#[derive(Debug, Clone)]
pub struct NewProfile {
    pub name: String,
    pub profile: Profile,
}

/// Adds a profile to the file at `path`, which is created if it is missing. Comments and layout of
/// the rest stay as they are.
///
/// # Errors
/// [`Error::ProfileName`], [`Error::ProfileExists`], [`Error::File`], and the file's own faults.
pub fn add_profile(path: &Path, new: &NewProfile) -> Result<(), Error> {
    if !is_profile_name(&new.name) {
        return Err(Error::ProfileName { name: new.name.clone() });
    }
    edit(path, |document, config| {
        if config.profiles.contains_key(&new.name) {
            return Err(Error::ProfileExists { name: new.name.clone(), path: path.into() });
        }
        let nothing_but_comments = document.is_empty();
        let comments = document.trailing().as_str().unwrap_or_default().to_owned();
        if nothing_but_comments {
            document.set_trailing("");
        }
        let profiles = document.entry("profiles").or_insert_with(|| {
            let mut table = Table::new();
            table.set_implicit(true);
            Item::Table(table)
        });
        let mut table = table_of(&new.profile);
        // A file of nothing but comments has them behind its (absent) content: they stay on top.
        if nothing_but_comments {
            table.decor_mut().set_prefix(comments);
        }
        profiles[&new.name] = Item::Table(table);
        Ok(())
    })
}

/// Removes a profile from the file at `path`, with the comments directly above it.
///
/// # Errors
/// [`Error::NoProfile`], [`Error::File`], and the file's own faults.
pub fn remove_profile(path: &Path, name: &str) -> Result<(), Error> {
    edit(path, |document, config| {
        config.profile(name)?;
        if let Some(profiles) = document.get_mut("profiles").and_then(Item::as_table_like_mut) {
            profiles.remove(name);
        }
        Ok(())
    })
}

fn table_of(profile: &Profile) -> Table {
    let mut table = Table::new();
    // By way of serde, so that a key added to the struct cannot be forgotten here.
    if let Ok(serde_json::Value::Object(fields)) = serde_json::to_value(profile) {
        for (key, field) in fields {
            match field {
                serde_json::Value::String(text) => table[&key] = value(text),
                serde_json::Value::Number(number) => table[&key] = value(number.as_i64().unwrap_or_default()),
                serde_json::Value::Array(items) => {
                    let texts = items.iter().filter_map(|item| item.as_str());
                    table[&key] = value(texts.collect::<toml_edit::Array>());
                }
                serde_json::Value::Bool(flag) => table[&key] = value(flag),
                serde_json::Value::Null | serde_json::Value::Object(_) => {}
            }
        }
    }
    table
}

fn edit(path: &Path, change: impl FnOnce(&mut DocumentMut, &ConfigFile) -> Result<(), Error>) -> Result<(), Error> {
    let failed = |action, source| Error::File { action, path: path.into(), source };
    let config = ConfigFile::load(path, false)?;
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(failed("read", e)),
    };
    let mut document: DocumentMut = text.parse().map_err(|e: toml_edit::TomlError| Error::Syntax {
        path: path.into(),
        line: 1,
        column: 1,
        message: e.message().into(),
    })?;
    change(&mut document, &config)?;
    let text = document.to_string();
    // Checks that the written file can be read again.
    ConfigFile::parse(&text, path)?;
    replace_file(path, &text).map_err(|e| failed("write", e))
}

/// Writes a whole new file beside the old one and renames it over it, so that no reader and no
/// full disk ever sees half of it. A symbolic link stays one; a file's mode is kept.
pub(crate) fn replace_file(path: &Path, text: &str) -> std::io::Result<()> {
    let path = &std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    let dir = path.parent().unwrap_or(Path::new("."));
    private::create_dirs(dir)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}", std::process::id()));
    let write = || {
        let mut options = std::fs::OpenOptions::new();
        let mut file = private::as_is(options.write(true).create_new(true), path).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        let _ = std::fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_and_removing_keeps_comments_and_layout() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("config.toml");
        let before = "# mine\nssh_config   =  \"none\" # as is\n\n[profiles.a] # first\nhost = 'x'\n\n# the end\n[defaults]\nkeepalive = \"5s\"\n";
        std::fs::write(&path, before).expect("written");
        let profile = Profile {
            host: Some("h".into()),
            port: Some(2222),
            identity_files: Some(vec!["~/k".into()]),
            ..Profile::default()
        };
        let new = NewProfile { name: "b".into(), profile: profile.clone() };
        add_profile(&path, &new).expect("added");
        let config = ConfigFile::load(&path, true).expect("valid");
        assert_eq!(config.profiles["b"], profile);
        assert!(matches!(add_profile(&path, &new), Err(Error::ProfileExists { .. })));
        remove_profile(&path, "b").expect("removed");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), before);
        assert!(matches!(remove_profile(&path, "b"), Err(Error::NoProfile { .. })));
    }

    #[test]
    fn the_first_profile_makes_the_file_and_its_directory() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("deep/er/config.toml");
        let profile = Profile { host: Some("h".into()), ..Profile::default() };
        add_profile(&path, &NewProfile { name: "a".into(), profile }).expect("added");
        assert_eq!(std::fs::read_to_string(&path).expect("read"), "[profiles.a]\nhost = \"h\"\n");
    }
}
