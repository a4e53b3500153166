//! The table of versions, built into dtunnel, so that no network access is needed. Results show its date.

/// The date of this table.
pub(super) const AS_OF: &str = "2026-08-23";

/// Maintained branches of Docker Engine (project/BRANCHES-AND-TAGS.md of moby).
const ENGINE: &[&str] = &["29", "25.0"];
/// The newest major version in the table; later ones are not judged.
const ENGINE_NEWEST: u32 = 29;

/// containerd's branches and the end of their support (RELEASES.md of containerd).
const CONTAINERD: &[(&str, &str)] = &[
    ("1.0", "2018-12-05"),
    ("1.1", "2019-10-23"),
    ("1.2", "2020-10-15"),
    ("1.3", "2021-03-04"),
    ("1.4", "2022-03-03"),
    ("1.5", "2023-02-28"),
    ("1.6", "2025-08-23"),
    ("1.7", "2026-09-30"),
    ("2.0", "2025-11-07"),
    ("2.1", "2026-05-05"),
    ("2.2", "2026-11-06"),
    ("2.3", "2028-04-27"),
];

/// The first version of each runc branch without CVE-2024-21626, CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881.
/// Earlier branches have no fixed version.
const RUNC: &[(&str, [u32; 3])] = &[("1.2", [1, 2, 8]), ("1.3", [1, 3, 3])];
const RUNC_FIRST: [u32; 3] = [1, 2, 8];

/// Kernel series and the end of their support (kernel.org, longterm releases).
const KERNEL: &[(&str, &str)] = &[
    ("3.10", "2017-11-05"),
    ("3.16", "2020-06-11"),
    ("4.4", "2022-02-03"),
    ("4.9", "2023-01-07"),
    ("4.14", "2024-01-10"),
    ("4.19", "2024-12-05"),
    ("5.4", "2025-12-03"),
    ("5.10", "2026-12-31"),
    ("5.15", "2026-12-31"),
    ("6.1", "2027-12-31"),
    ("6.6", "2026-12-31"),
    ("6.12", "2026-12-31"),
    ("6.18", "2027-12-31"),
];

/// Parses a version such as `20.10.24+dfsg1`.
fn numbers(version: &str) -> Option<[u32; 3]> {
    let plain = version.trim_start_matches('v').split(['-', '+', '~', ' ']).next()?;
    let mut parts = plain.split('.').map(|part| part.parse::<u32>().ok());
    Some([parts.next()??, parts.next().flatten()?, parts.next().flatten().unwrap_or(0)])
}

/// The branch of a version, such as `20.10`; None if it has no numbers.
fn branch(version: &str) -> Option<String> {
    numbers(version).map(|[major, minor, _]| format!("{major}.{minor}"))
}

/// The fault of an Engine's version, if any. Err if it cannot be judged.
pub(super) fn engine(version: &str) -> Result<Option<String>, String> {
    let [major, minor, _] = numbers(version).ok_or_else(|| format!("{version} is not a known version"))?;
    let maintained = ENGINE.iter().any(|branch| *branch == major.to_string() || *branch == format!("{major}.{minor}"));
    if maintained || major > ENGINE_NEWEST {
        return Ok(None);
    }
    Ok(Some(format!(
        "Docker Engine {version}: its branch is not maintained (as of {AS_OF}; {} are)",
        ENGINE.join(", ")
    )))
}

/// The fault of an Engine's newest API version, if any: Docker 29's own client requires 1.44.
pub(super) fn api(version: &str) -> Result<Option<String>, String> {
    let [major, minor, _] = numbers(version).ok_or_else(|| format!("{version} is not a known version"))?;
    Ok(((major, minor) < (1, 44)).then(|| format!("the newest API is {version}; docker 29 needs at least 1.44")))
}

/// The fault of containerd's version on this day, if any.
pub(super) fn containerd(version: &str, today: &str) -> Result<Option<String>, String> {
    ended("containerd", version, CONTAINERD, today)
}

/// The fault of a kernel's version on this day, if any. Distributions maintain series of their own.
pub(super) fn kernel(version: &str, today: &str) -> Result<Option<String>, String> {
    let known = branch(version).is_some_and(|branch| KERNEL.iter().any(|(known, _)| *known == branch));
    if !known {
        return Err(format!("Linux {version}: this series is not known (as of {AS_OF})"));
    }
    ended("Linux", version, KERNEL, today)
}

fn ended(what: &str, version: &str, known: &[(&str, &str)], today: &str) -> Result<Option<String>, String> {
    let branch = branch(version).ok_or_else(|| format!("{version} is not a known version of {what}"))?;
    let Some((_, end)) = known.iter().find(|(name, _)| *name == branch) else {
        return Err(format!("{what} {version}: this branch is not known (as of {AS_OF})"));
    };
    // Dates of this form sort as text.
    Ok((*end < today).then(|| format!("{what} {version}: support ended on {end} (as of {AS_OF})")))
}

/// The fault of runc's version, if any.
pub(super) fn runc(version: &str) -> Result<Option<String>, String> {
    let now = numbers(version).ok_or_else(|| format!("{version} is not a known version of runc"))?;
    let first = RUNC.iter().find(|(name, _)| branch(version).as_deref() == Some(*name)).map_or(RUNC_FIRST, |(_, v)| *v);
    let [major, minor, patch] = first;
    Ok((now < first).then(|| {
        format!(
            "runc {version}: upstream fixed CVE-2025-31133 and others in {major}.{minor}.{patch} (as of {AS_OF}; \
             distributions fix older versions, so look at your package's changes)"
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_judged_by_what_is_known() {
        for (version, bad) in
            [("20.10.24+dfsg1", true), ("28.5.1", true), ("29.1.2", false), ("25.0.14", false), ("31.0.0", false)]
        {
            assert_eq!(engine(version).expect("known").is_some(), bad, "{version}");
        }
        assert!(engine("dev").is_err());
        for (version, bad) in
            [("1.1.5+ds1", true), ("1.2.7", true), ("1.2.8", false), ("1.3.2", true), ("1.4.0", false)]
        {
            assert_eq!(runc(version).expect("known").is_some(), bad, "{version}");
        }
        assert!(containerd("v1.6.20~ds1", "2026-11-24").expect("known").is_some());
        assert!(containerd("2.3.1", "2026-11-24").expect("known").is_none());
        assert!(containerd("9.9.9", "2026-11-24").is_err());
        assert!(kernel("4.19.0-27-amd64", "2026-11-24").expect("known").is_some());
        assert!(kernel("6.1.0-40-amd64", "2026-11-24").expect("known").is_none());
        assert!(api("1.41").expect("known").is_some() && api("1.51").expect("known").is_none());
    }
}
