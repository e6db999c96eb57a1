//! Showing roots.

use std::path::Path;

use node::nation_file::NationFile;
use registry::key::KeyId;
use registry::statement::{RoleName, Root};
use registry::trust::{Ending, peek_root, spoken};
use registry::{Digest, Nation, Signed, Timestamp};
use serde::Serialize;

use super::{only_root, own_chain_if_any};
use crate::commands::sign::missing;
use crate::context::Context;
use crate::draft::{Draft, Part};
use crate::failure::Failure;
use crate::human;
use crate::output::{self, BOLD, DIM, GOOD, NAME, WARN, paint};

#[derive(Serialize)]
struct Shown<'a> {
    nation: &'a Nation,
    version: u64,
    root: Digest,
    digits: String,
    previous: Option<Digest>,
    issued: Timestamp,
    expires: Timestamp,
    ending: Ending,
    roles: &'a std::collections::BTreeMap<RoleName, registry::statement::RoleKeys>,
    signers: Vec<KeyId>,
    missing: Vec<String>,
}

/// The roots in a nation.json, the first one first, or the one in a file of envelopes.
pub(super) fn chain_of(path: &Path) -> Result<Vec<Signed>, Failure> {
    if let Ok(file) = NationFile::load(path) {
        return Ok(std::iter::once(file.root).chain(file.later).collect());
    }
    let draft = Draft::load(path)?;
    only_root(&draft)?;
    Ok(draft.parts.into_iter().filter_map(|part| part.signed).collect())
}

/// Shows the root in a file; `previous` is where the one before it is found, by default in this node's folder.
pub(super) async fn file(context: &Context, path: &Path, previous: Option<&Path>) -> Result<(), Failure> {
    if let Ok(file) = NationFile::load(path) {
        let roots: Vec<Signed> = std::iter::once(file.root).chain(file.later).collect();
        return chain(context, &roots);
    }
    let draft = Draft::load(path)?;
    let (_, root) = only_root(&draft)?;
    let known = match (previous, root.previous) {
        (Some(path), _) => chain_of(path)?,
        (None, Some(_)) => own_chain_if_any(context).await,
        (None, None) => Vec::new(),
    };
    let before = known.iter().find(|signed| Some(signed.digest()) == root.previous);
    with(context, path, before).await
}

/// Shows the draft in `path`, which follows `before`.
pub(super) async fn with(context: &Context, path: &Path, before: Option<&Signed>) -> Result<(), Failure> {
    let draft = Draft::load(path)?;
    let (part, root) = only_root(&draft)?;
    let before = before.map(peek_root).transpose()?;
    let mut missing = missing(part, root, before.as_ref());
    if root.previous.is_some() && before.is_none() {
        missing.push("the version before it is not at hand: name it with --previous".to_owned());
    }
    one(context, part, root, missing)
}

/// Shows a chain by its newest root.
pub(super) fn chain(context: &Context, roots: &[Signed]) -> Result<(), Failure> {
    let Some(newest) = roots.last() else { return Ok(()) };
    let first = roots.first().map(Signed::digest).unwrap_or(newest.digest());
    let root = peek_root(newest)?;
    let before = roots.len().checked_sub(2).and_then(|at| roots.get(at)).map(peek_root).transpose()?;
    let part = Part::of(newest.clone())?;
    let missing = missing(&part, &root, before.as_ref());
    if !context.json && roots.len() > 1 {
        let [one, two] = human::fingerprint(&first);
        output::print(&output::facts(&[(
            "the nation's fingerprint",
            format!("{}\n{}\n{}", paint(BOLD, one), paint(BOLD, two), paint(BOLD, spoken(&first))),
        )]))?;
        output::line(paint(DIM, "It is that of its first root and stays. The newest root:"))?;
    }
    one(context, &part, &root, missing)
}

fn one(context: &Context, part: &Part, root: &Root, missing: Vec<String>) -> Result<(), Failure> {
    let (digest, now) = (part.digest(), Timestamp::now());
    let signers: Vec<KeyId> =
        part.signed.iter().flat_map(|signed| signed.envelopes().iter().map(|one| one.key())).collect();
    if context.json {
        return output::json(&Shown {
            nation: &root.nation,
            version: root.version,
            root: digest,
            digits: spoken(&digest),
            previous: root.previous,
            issued: root.issued,
            expires: root.expires,
            ending: Ending::of(root.expires, now),
            roles: &root.roles,
            signers,
            missing,
        });
    }
    let [first, second] = human::fingerprint(&digest);
    let roles: Vec<String> = root
        .roles
        .iter()
        .map(|(name, role)| {
            let key = |id: &KeyId| {
                if signers.contains(id) { paint(GOOD, id.short()) } else { paint(DIM, id.short()) }
            };
            let keys: Vec<String> = role.keys.iter().map(key).collect();
            format!("{name:<8} {} of {}  {}", role.threshold, role.keys.len(), keys.join(" "))
        })
        .collect();
    let signed: Vec<String> = signers.iter().map(KeyId::short).collect();
    let state = if missing.is_empty() { paint(GOOD, "complete") } else { paint(WARN, missing.join("\n")) };
    output::print(&output::facts(&[
        ("nation", paint(NAME.bold(), &root.nation)),
        ("version", root.version.to_string()),
        ("fingerprint", format!("{}\n{}", paint(BOLD, first), paint(BOLD, second))),
        ("read aloud", paint(BOLD, spoken(&digest))),
        ("valid until", format!("{} ({})", root.expires, human::relative(root.expires, now))),
        ("roles", roles.join("\n")),
        ("signed by", if signed.is_empty() { paint(DIM, "nobody yet") } else { signed.join(", ") }),
        (if missing.is_empty() { "signatures" } else { "missing" }, state),
    ]))
}
