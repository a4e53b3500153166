//! `dtunnel audit`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use clap::{Args, ValueEnum};

use super::bring_up::with_name_hint;
use super::global::{Global, WayArgs};
use super::ui::ui;
use super::{output, prompt};
use crate::audit::{self, Evidence, Finding, Outcome, Report, Severity};
use crate::failure::{ExitCode, Failure};
use crate::text;

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// The target to check; nothing is changed, neither here nor on the host
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    target: String,
    #[command(flatten)]
    way: WayArgs,
    /// Print every check as JSON, for programs
    #[arg(long, conflicts_with = "sarif")]
    pub(super) json: bool,
    /// Print the findings as SARIF 2.1.0, for CI
    #[arg(long)]
    pub(super) sarif: bool,
    /// Exit with code 1 at a finding of this severity or higher
    #[arg(long, value_name = "SEVERITY")]
    fail_on: Option<Worst>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Worst {
    Low,
    Medium,
    High,
    Critical,
}

impl From<Worst> for Severity {
    fn from(worst: Worst) -> Self {
        match worst {
            Worst::Low => Self::Low,
            Worst::Medium => Self::Medium,
            Worst::High => Self::High,
            Worst::Critical => Self::Critical,
        }
    }
}

pub(super) fn audit(global: &Global, args: &AuditArgs) -> Result<(), Failure> {
    let config = global.config()?;
    let target = global.resolved(&args.target, &config, &args.way)?;
    audit::check_ignored(&target)?;
    let audited = prompt::while_answering(async |prompter| audit::audit(&target, prompter).await)?;
    let report = audited.map_err(|error| with_name_hint(error.into(), &args.target, &config))?;
    if args.sarif {
        ui().result(&audit::sarif(&report), String::new)?;
    } else {
        ui().result(&report, || report_text(&report, ui().is_verbose()))?;
    }
    let Some(worst) = args.fail_on.map(Severity::from) else { return Ok(()) };
    match report.findings().filter(|finding| finding.rule.severity >= worst).count() {
        0 => Ok(()),
        1 => Err(Failure::new(ExitCode::Other, format!("1 finding is {worst} or worse"))),
        many => Err(Failure::new(ExitCode::Other, format!("{many} findings are {worst} or worse"))),
    }
}

pub(super) fn report_text(report: &Report, all: bool) -> String {
    let mut text = String::new();
    let of_engine: Vec<(&Outcome, Vec<&Evidence>)> = report
        .findings()
        .map(|finding| (finding, evidence(finding).filter(|line| line.container.is_none()).collect()))
        .filter(|(_, lines): &(_, Vec<_>)| !lines.is_empty())
        .collect();
    let mut heading = None;
    for (finding, lines) in of_engine.iter().filter(|(finding, _)| all || finding.rule.severity > Severity::Low) {
        let severity = finding.rule.severity;
        if heading != Some(severity) {
            heading = Some(severity);
            let _ = writeln!(text, "{}", output::severity(severity));
        }
        let _ = writeln!(text, "  {}: {}{}", finding.rule.id, finding.rule.title, cis(finding));
        for line in lines.iter().take(if all { usize::MAX } else { MOST_LINES }) {
            let _ = writeln!(text, "    · {line}");
        }
        if !all && lines.len() > MOST_LINES {
            let _ = writeln!(text, "    · and {} more (-v shows all)", lines.len() - MOST_LINES);
        }
        let _ = writeln!(text, "    → {}", finding.remedy);
    }
    text += &of_containers(report, all);
    let low: Vec<&str> = report.findings().filter(|f| f.rule.severity == Severity::Low).map(|f| f.rule.id).collect();
    if !all && !low.is_empty() {
        let _ = writeln!(text, "{}: {} (-v shows them)", output::severity(Severity::Low), low.join(", "));
    }
    let ignored = report.outcomes.iter().filter_map(|outcome| match &outcome.state {
        Finding::Ignored { reason, evidence } => Some((outcome, reason, evidence)),
        _ => None,
    });
    for (at, (outcome, reason, evidence)) in ignored.enumerate() {
        text += if at == 0 { "ignored\n" } else { "" };
        let reason =
            reason.as_deref().map_or("no reason is given (\"CHECK: REASON\" in audit.ignore)".into(), text::shown);
        let _ = writeln!(text, "  {} ({}): {reason}", outcome.rule.id, outcome.rule.severity);
        for line in evidence.iter().filter(|_| all) {
            let _ = writeln!(text, "    · {line}");
        }
    }
    let unknown: Vec<(&Outcome, &String)> = report
        .outcomes
        .iter()
        .filter_map(|outcome| match &outcome.state {
            Finding::Unknown(why) => Some((outcome, why)),
            _ => None,
        })
        .collect();
    if !unknown.is_empty() {
        text += "unknown\n";
        for (outcome, why) in &unknown {
            let _ = writeln!(text, "  {}: {why}", outcome.rule.id);
        }
    }
    if all {
        text += "passed\n";
        for outcome in report.outcomes.iter().filter(|outcome| outcome.state == Finding::Passed) {
            let _ = writeln!(text, "  {}", outcome.rule.id);
        }
    }
    let count = |severity| report.findings().filter(|finding| finding.rule.severity == severity).count();
    let counts: Vec<String> =
        Severity::ALL.into_iter().map(|severity| format!("{} {severity}", count(severity))).collect();
    let passed = report.outcomes.iter().filter(|outcome| outcome.state == Finding::Passed).count();
    let ignored = report.outcomes.iter().filter(|outcome| matches!(outcome.state, Finding::Ignored { .. })).count();
    let ignored = if ignored == 0 { String::new() } else { format!("{ignored} ignored, ") };
    let _ = writeln!(
        text,
        "{}: score {}/100: {}; {passed} passed, {ignored}{} unknown (versions as of {})",
        report.host,
        report.score,
        counts.join(", "),
        unknown.len(),
        report.versions_as_of
    );
    text
}

/// Findings by container; each remedy is printed once.
fn of_containers(report: &Report, all: bool) -> String {
    let mut containers: BTreeMap<&str, Vec<(&Outcome, &Evidence)>> = BTreeMap::new();
    for finding in report.findings() {
        for line in evidence(finding) {
            if let Some(container) = &line.container {
                containers.entry(container).or_default().push((finding, line));
            }
        }
    }
    // Sorted by their worst severity, then by name.
    let mut containers: Vec<_> = containers.into_iter().collect();
    let worst = |found: &[(&Outcome, &Evidence)]| found.first().map(|(finding, _)| finding.rule.severity);
    containers.sort_by_key(|(_, found)| std::cmp::Reverse(worst(found)));
    let shown = |(finding, _): &&(&Outcome, &Evidence)| all || finding.rule.severity > Severity::Low;
    containers.retain(|(_, found)| found.iter().any(|line| shown(&line)));
    let mut text = String::new();
    let mut remedies: Vec<&Outcome> = Vec::new();
    let most = if all { usize::MAX } else { MOST_CONTAINERS };
    for (container, found) in containers.iter().take(most) {
        let _ = writeln!(text, "container {container}");
        for (finding, line) in found.iter().filter(shown) {
            let details = if line.text.is_empty() { String::new() } else { format!(": {}", line.text) };
            let (severity, id) = (output::severity(finding.rule.severity), finding.rule.id);
            let _ = writeln!(text, "  {severity} {id}{details}");
            if !remedies.iter().any(|known| known.rule.id == id) {
                remedies.push(finding);
            }
        }
    }
    if containers.len() > most {
        let _ = writeln!(text, "and {} containers more (-v shows all)", containers.len() - most);
    }
    for finding in remedies {
        let _ = writeln!(text, "  {}: {}{}", finding.rule.id, finding.rule.title, cis(finding));
        let _ = writeln!(text, "    → {}", finding.remedy);
    }
    text
}

fn evidence(finding: &Outcome) -> impl Iterator<Item = &Evidence> {
    let lines = match &finding.state {
        Finding::Found(evidence) => evidence.as_slice(),
        _ => &[],
    };
    lines.iter()
}

fn cis(finding: &Outcome) -> String {
    finding.rule.cis.map(|cis| format!(" (CIS {cis})")).unwrap_or_default()
}

/// Limit of evidence lines shown per finding.
const MOST_LINES: usize = 5;
/// Limit of containers shown.
const MOST_CONTAINERS: usize = 10;
