//! Functions of the table's rows that judge the queries of single operations.

use super::query::Query;
use super::{bodies, ps};

/// Checks a build's query under `no-privileged`.
pub(super) fn unprivileged_build(query: &Query) -> Result<(), String> {
    for name in query.names() {
        bodies::judge_build(name, query.text(name).ok_or_else(|| format!("its {name} is not text"))?)?;
    }
    Ok(())
}

/// Restricts the `ps_args` of `top` to those that show only a list of processes.
pub(super) fn harmless_ps(query: &mut Query) -> Result<(), String> {
    let args = ps::harmless(query.text("ps_args").ok_or("its ps_args are no text")?)?;
    query.replace("ps_args", args);
    Ok(())
}
