//! Findings as SARIF 2.1.0 (OASIS), for programs that collect them from many tools.

use serde_json::{Value, json};

use super::finding::Finding;
use super::report::Report;
use super::rule::Severity;

/// An audit as SARIF 2.1.0.
pub fn document(report: &Report) -> Value {
    let rules: Vec<Value> = report
        .outcomes
        .iter()
        .map(|outcome| {
            let rule = outcome.rule;
            json!({
                "id": rule.id,
                "shortDescription": { "text": rule.title },
                "help": { "text": outcome.remedy },
                "defaultConfiguration": { "level": level(rule.severity) },
                "properties": {
                    "security-severity": security_severity(rule.severity),
                    "tags": rule.cis.map(|cis| format!("CIS Docker Benchmark 1.6.0: {cis}")).into_iter().collect::<Vec<_>>(),
                },
            })
        })
        .collect();
    let results: Vec<Value> = report
        .outcomes
        .iter()
        .enumerate()
        .filter_map(|(index, outcome)| {
            let (evidence, suppressed) = match &outcome.state {
                Finding::Found(evidence) => (evidence, None),
                Finding::Ignored { reason, evidence } => (evidence, Some(reason)),
                Finding::Passed | Finding::Unknown(_) => return None,
            };
            let evidence: Vec<String> = evidence.iter().map(ToString::to_string).collect();
            // Section 3.27.23: an empty list says that it is not suppressed.
            let suppressions: Vec<Value> = suppressed
                .map(|reason| json!({ "kind": "external", "justification": reason.as_deref().unwrap_or_default() }))
                .into_iter()
                .collect();
            Some(json!({
                "suppressions": suppressions,
                "ruleId": outcome.rule.id,
                "ruleIndex": index,
                "level": level(outcome.rule.severity),
                "message": { "text": format!("{}: {}", outcome.rule.title, evidence.join("; ")) },
                "locations": [{ "logicalLocations": [{ "fullyQualifiedName": report.host, "kind": "resource" }] }],
            }))
        })
        .collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "dtunnel audit",
                "version": env!("CARGO_PKG_VERSION"),
                "informationUri": "https://docs.docker.com/engine/security/protect-access/",
                "rules": rules,
            } },
            "results": results,
        }],
    })
}

fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low => "note",
    }
}

/// A number between 0 and 10, as code scanners sort by.
fn security_severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => "9.5",
        Severity::High => "8.0",
        Severity::Medium => "5.0",
        Severity::Low => "2.0",
    }
}
