//! What the queries of single operations may say: the functions in the table's rows.

use super::query::Query;
use super::{bodies, ps};

/// What a build's query may say under `no-privileged`.
pub(super) fn unprivileged_build(query: &Query) -> Result<(), String> {
    for name in query.names() {
        bodies::judge_build(name, query.text(name).ok_or_else(|| format!("its {name} is not text"))?)?;
    }
    Ok(())
}

/// Has `top` give the host's ps only what shows nothing more than a list of processes.
pub(super) fn harmless_ps(query: &mut Query) -> Result<(), String> {
    let args = ps::harmless(query.text("ps_args").ok_or("its ps_args are no text")?)?;
    query.replace("ps_args", args);
    Ok(())
}
