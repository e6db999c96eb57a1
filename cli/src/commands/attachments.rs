//! What `show` says of a release's attachments.

use node::api::types::AttachmentEntry;
use registry::attachment::Summary;

use crate::failure::Failure;
use crate::human;
use crate::output::{self, Cell, DIM, Table, WARN, cell};

/// The attachments, each with its essentials; nothing when there are none.
pub(super) fn show(entries: &[AttachmentEntry]) -> Result<(), Failure> {
    if entries.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&["attachment", "kind", "size", "what it says, unchecked"]);
    for entry in entries {
        let said = match (&entry.summary, &entry.problem) {
            (Some(summary), _) => cell(DIM, essentials(summary)),
            (None, why) => cell(WARN, why.as_deref().unwrap_or("nothing")),
        };
        table.row([
            entry.path.as_str().into(),
            entry.attachment.as_str().into(),
            Cell::from(human::bytes(entry.size)).right(),
            said,
        ]);
    }
    output::line("")?;
    output::print(&table.render())
}

fn essentials(summary: &Summary) -> String {
    let or = |text: &str| if text.is_empty() { "nobody named".to_owned() } else { text.to_owned() };
    match summary {
        Summary::Oms { signer, files, matching, .. } => {
            let signer: String = signer.chars().take(12).collect();
            format!("signed by key {}…, {matching} of its {files} files are these", or(&signer))
        }
        Summary::Slsa { builder, materials, subjects, matching, .. } => format!(
            "built by {}, {}, {matching} of its {} these",
            or(builder),
            human::count(*materials as u64, "material"),
            human::count(*subjects as u64, "subject"),
        ),
        Summary::Mlbom { components, models, licences, .. } => {
            let licences = if licences.is_empty() { "none".to_owned() } else { licences.join(", ") };
            format!(
                "{}, {models} of them models or data; licences: {licences}",
                human::count(*components as u64, "component")
            )
        }
        Summary::Import { nation, signer, name, format } if signer.is_empty() => {
            format!("imported by {} from {}, called {name} there", or(nation), or(format))
        }
        Summary::Import { nation, signer, name, .. } => {
            let signer: String = signer.chars().take(12).collect();
            format!("imported by {} as signed by key {}…, called {name} there", or(nation), or(&signer))
        }
    }
}
