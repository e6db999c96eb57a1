//! CycloneDX bills of materials in JSON.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{MAX_LISTED, Summary, items, text};

/// Most components that are counted: beyond that a count says nothing to people, and the walk must end.
const MAX_COMPONENTS: usize = 100_000;

pub(super) fn describe(value: &Value) -> Result<Summary, String> {
    if text(value, "/bomFormat") != "CycloneDX" {
        return Err("its `bomFormat` is not `CycloneDX`".to_owned());
    }
    let mut licences = BTreeSet::new();
    let (mut components, mut models) = (0, 0);
    let subject = value.pointer("/metadata/component");
    if let Some(subject) = subject {
        collect(subject, &mut licences);
    }
    let mut open: Vec<&Value> = items(value, "/components").iter().collect();
    while let Some(component) = open.pop() {
        components += 1;
        if components > MAX_COMPONENTS {
            return Err(format!("it lists more than {MAX_COMPONENTS} components"));
        }
        if matches!(text(component, "/type").as_str(), "machine-learning-model" | "data") {
            models += 1;
        }
        collect(component, &mut licences);
        open.extend(items(component, "/components"));
    }
    Ok(Summary::Mlbom {
        version: text(value, "/specVersion"),
        subject: subject.map(|subject| text(subject, "/name")).unwrap_or_default(),
        components,
        models,
        licences: licences.into_iter().take(MAX_LISTED).collect(),
    })
}

/// The licences of one component: an SPDX identifier, an expression, or a name.
fn collect(component: &Value, licences: &mut BTreeSet<String>) {
    for licence in items(component, "/licenses") {
        let found = ["/license/id", "/expression", "/license/name"].map(|pointer| text(licence, pointer));
        if let Some(found) = found.into_iter().find(|text| !text.is_empty()) {
            licences.insert(found);
        }
    }
}
