//! The keys of the configuration file, and their positions in it.

use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::nearest::nearest;
use super::{Error, is_profile_name};

/// Where settings stand, by table (`defaults`, or a profile's name after `profiles.`) and key.
pub(super) type Places = BTreeMap<(String, String), String>;

/// The keys of each table, for the check that names the nearest one. A test holds them against
/// the JSON Schema, and so against the structs.
pub(super) const TOP_KEYS: &[&str] = &["ssh_config", "default", "defaults", "profiles"];
pub(super) const DEFAULTS_KEYS: &[&str] = &[
    "remote",
    "keepalive",
    "keepalive_count",
    "max_connections",
    "spill",
    "connect_timeout",
    "drain",
    "wait",
    "lazy",
    "idle_timeout",
    "api",
    "eager_ping",
    "server_nodelay",
    "carrier",
    "access",
    "audit",
];
pub(super) const AUDIT_KEYS: &[&str] = &["ignore"];
/// A profile has the keys of `[defaults]` and these.
pub(super) const PROFILE_KEYS: &[&str] = &[
    "host",
    "user",
    "port",
    "identity_files",
    "jump",
    "local",
    "allow",
    "allowed_binds",
    "ports",
    "ports_fallback",
    "ports_conflict",
    "ports_address",
    "mounts",
    "mounts_max",
    "description",
];

pub(super) fn section(profile: Option<&str>) -> String {
    profile.map_or_else(|| "defaults".into(), |name| format!("profiles.{name}"))
}

pub(super) fn places(text: &str, path: &Path, top: &DeTable<'_>) -> Places {
    let mut places = Places::new();
    let mut note = |section: String, table: &DeTable<'_>| {
        for (key, value) in table {
            let (line, column) = position(text, value.span().start);
            let place = format!("{}:{line}:{column}", path.display());
            places.insert((section.clone(), key.get_ref().to_string()), place);
        }
    };
    if let Some(DeValue::Table(defaults)) = top.get("defaults").map(|v| v.get_ref()) {
        note(section(None), defaults);
    }
    if let Some(DeValue::Table(profiles)) = top.get("profiles").map(|v| v.get_ref()) {
        for (name, profile) in profiles {
            if let DeValue::Table(profile) = profile.get_ref() {
                note(section(Some(name.get_ref())), profile);
            }
        }
    }
    places
}

pub(super) fn check_keys(text: &str, path: &Path, top: &DeTable<'_>) -> Result<(), Error> {
    let check = |table: &DeTable<'_>, known: &[&str], section: &str| -> Result<(), Error> {
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if !known.contains(&name) {
                let (line, column) = position(text, key.span().start);
                return Err(Error::UnknownKey {
                    path: path.into(),
                    line,
                    column,
                    key: name.into(),
                    section: section.into(),
                    nearest: nearest(name, known.iter().copied()),
                });
            }
        }
        Ok(())
    };
    let check_audit = |table: &DeTable<'_>, section: &str| match table.get("audit").map(|v| v.get_ref()) {
        Some(DeValue::Table(audit)) => check(audit, AUDIT_KEYS, section),
        _ => Ok(()),
    };
    check(top, TOP_KEYS, "the top level")?;
    // `[default]` is a misspelt `[defaults]`, though there is a key of that name.
    if let Some((key, value)) = top.iter().find(|(key, _)| key.get_ref() == "default")
        && let DeValue::Table(_) = value.get_ref()
    {
        let (line, column) = position(text, key.span().start);
        let (key, section) = ("default".into(), "the top level".into());
        return Err(Error::UnknownKey {
            path: path.into(),
            line,
            column,
            key,
            section,
            nearest: Some("defaults".into()),
        });
    }
    if let Some(DeValue::Table(defaults)) = top.get("defaults").map(|v| v.get_ref()) {
        check(defaults, DEFAULTS_KEYS, "[defaults]")?;
        check_audit(defaults, "[defaults.audit]")?;
    }
    if let Some(DeValue::Table(profiles)) = top.get("profiles").map(|v| v.get_ref()) {
        let known = [PROFILE_KEYS, DEFAULTS_KEYS].concat();
        for (name, profile) in profiles {
            if !is_profile_name(name.get_ref()) {
                let (line, column) = position(text, name.span().start);
                let message = Error::ProfileName { name: name.get_ref().to_string() }.to_string();
                return Err(Error::Syntax { path: path.into(), line, column, message });
            }
            if let DeValue::Table(profile) = profile.get_ref() {
                check(profile, &known, &format!("[profiles.{}]", name.get_ref()))?;
                check_audit(profile, &format!("[profiles.{}.audit]", name.get_ref()))?;
            }
        }
    }
    Ok(())
}

/// 1-based line and column (in characters) of a byte offset.
pub(super) fn position(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset.min(text.len())).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}
