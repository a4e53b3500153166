//! `dtunnel audit`.

use std::fmt::Write as _;

use clap::{Args, ValueEnum};

use super::up::with_name_hint;
use super::{Global, output, prompt};
use crate::audit::{self, Outcome, Report, Severity, State};
use crate::daemon::{ExitCode, Failure};

#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    /// What to look into; nothing is changed, here or there
    #[arg(value_name = "TARGET", add = super::completions::targets())]
    target: String,
    /// The Engine on the host, as for `up`
    #[arg(long, value_name = "ENDPOINT")]
    remote: Option<String>,
    /// Print every check as JSON, for programs
    #[arg(long, conflicts_with = "sarif")]
    json: bool,
    /// Print the findings as SARIF 2.1.0, for CI
    #[arg(long)]
    sarif: bool,
    /// End with exit code 1 where something is found that is as bad as this, or worse
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
    let target = global.resolved(&args.target, &config, args.remote.clone())?;
    let audited = prompt::while_answering(async |prompter| audit::audit(&target, prompter).await)?;
    let report = audited.map_err(|error| with_name_hint(error.into(), &args.target, &config))?;
    if args.json {
        output::print_json(&report)?;
    } else if args.sarif {
        output::print_json(&report.sarif())?;
    } else {
        output::print(&text(&report, global.verbose > 0))?;
    }
    let Some(worst) = args.fail_on.map(Severity::from) else { return Ok(()) };
    match report.findings().filter(|finding| finding.rule.severity >= worst).count() {
        0 => Ok(()),
        1 => Err(Failure::new(ExitCode::Other, format!("1 finding is {worst} or worse"))),
        many => Err(Failure::new(ExitCode::Other, format!("{many} findings are {worst} or worse"))),
    }
}

fn text(report: &Report, all: bool) -> String {
    let mut text = String::new();
    let mut heading = None;
    for finding in report.findings() {
        let severity = finding.rule.severity;
        if heading != Some(severity) {
            heading = Some(severity);
            let _ = writeln!(text, "{}", output::severity(severity));
        }
        let State::Found(evidence) = &finding.state else { continue };
        let cis = finding.rule.cis.map(|cis| format!(" (CIS {cis})")).unwrap_or_default();
        let _ = writeln!(text, "  {}: {}{cis}", finding.rule.id, finding.rule.title);
        for line in evidence.iter().take(if all { usize::MAX } else { MOST_LINES }) {
            let _ =
                writeln!(text, "    · {}", line.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\""));
        }
        if !all && evidence.len() > MOST_LINES {
            let _ = writeln!(text, "    · and {} more (-v shows all)", evidence.len() - MOST_LINES);
        }
        let _ = writeln!(text, "    → {}", finding.remedy);
    }
    let unknown: Vec<(&Outcome, &String)> = report
        .outcomes
        .iter()
        .filter_map(|outcome| match &outcome.state {
            State::Unknown(why) => Some((outcome, why)),
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
        for outcome in report.outcomes.iter().filter(|outcome| outcome.state == State::Passed) {
            let _ = writeln!(text, "  {}", outcome.rule.id);
        }
    }
    let count = |severity| report.findings().filter(|finding| finding.rule.severity == severity).count();
    let counts: Vec<String> =
        Severity::ALL.into_iter().map(|severity| format!("{} {severity}", count(severity))).collect();
    let passed = report.outcomes.iter().filter(|outcome| outcome.state == State::Passed).count();
    let _ = writeln!(
        text,
        "{}: score {}/100: {}; {passed} passed, {} unknown (versions as of {})",
        report.host,
        report.score,
        counts.join(", "),
        unknown.len(),
        report.versions_as_of
    );
    text
}

/// Most lines of evidence that are shown of one finding.
const MOST_LINES: usize = 5;
