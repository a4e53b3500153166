//! LogConfig: the destination of a container's output. Log drivers run in the host's daemon, as root.

use std::collections::BTreeMap;

use super::Reference;
use super::json::shown;
use super::text::{Text, body, is_name, only, rules};

body! {
    /// Part of HostConfig.
    LogConfig {
        kind = "Type": Text<Driver>,
        config: BTreeMap<String, String>,
    }
}

rules! {
    // A driver given by path may be the client's own program (moby: plugins are found by file).
    Driver = |text| only(text.is_empty() || is_name(text));
}

/// Options that limit the stored output. Drivers that send it elsewhere ignore them.
const BOUNDS: &[&str] = &["compress", "max-buffer-size", "max-file", "max-size", "mode"];
/// Further options of drivers that write the Engine's own files: they add data to the output.
const MARKS: &[&str] = &["env", "env-regex", "labels", "labels-regex", "tag"];

/// Whether this driver writes for the container alone. Others connect to configured addresses or write the container's
/// text to the host's log; they pass only if they are the Engine's default, and with options of [`BOUNDS`] only.
pub(in crate::tunnel::guard) fn is_private(driver: &str) -> bool {
    matches!(driver, "json-file" | "local" | "none")
}

impl LogConfig {
    /// # Errors
    /// What is not allowed.
    pub(super) fn judge(&self) -> Result<(), String> {
        let driver = self.kind.as_deref().unwrap_or_default();
        for (name, value) in self.config.iter().flatten() {
            // Whether the Engine's default driver may have them is checked at the Engine.
            let is_mark = (driver.is_empty() || is_private(driver)) && MARKS.contains(&name.as_str());
            if !is_mark && !BOUNDS.contains(&name.as_str()) {
                return Err(format!("Config.{} is not allowed for the log driver {}", shown(name), named(driver)));
            }
            if value.chars().any(char::is_control) || !is_plain_template(value) {
                return Err(format!("Config.{name} {} is not allowed", shown(value)));
            }
        }
        Ok(())
    }

    /// What must be checked at the Engine: whether the named driver is its default, or whether its default
    /// driver may have these options.
    pub(super) fn reference(&mut self) -> Option<Reference<'_>> {
        let driver = self.kind.as_deref().unwrap_or_default();
        if !driver.is_empty() {
            return (!is_private(driver)).then(|| Reference::LogDriver(driver.to_owned()));
        }
        let mark = self.config.iter().flatten().find(|(name, _)| MARKS.contains(&name.as_str()))?.0.clone();
        let kind = &mut self.kind;
        Some(Reference::DefaultLog { option: mark, set: Box::new(|driver| *kind = Text::new(driver)) })
    }
}

fn named(driver: &str) -> &str {
    if driver.is_empty() { "that is the Engine's default" } else { driver }
}

/// Whether a template only names fields (`{{.Name}}`). The daemon executes templates, which may also call functions.
fn is_plain_template(text: &str) -> bool {
    text.split("{{").skip(1).all(|action| {
        let inner = action.split_once("}}").map(|(inner, _)| inner.trim());
        inner.and_then(|inner| inner.strip_prefix('.')).is_some_and(|n| n.chars().all(|c| c.is_ascii_alphabetic()))
    })
}
