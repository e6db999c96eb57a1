//! Handing the next root to the node, and what follows from it in the node's folder.

use std::fs;
use std::path::{Path, PathBuf};

use node::nation_file::NationFile;
use registry::key::Signer;
use registry::statement::{NodeCertificate, RoleName, Statement};
use registry::trust::peek_root;
use registry::{Digest, Nation, Signed, Timestamp};
use serde::Serialize;

use super::{only_root, own_chain};
use crate::commands::sign::submit;
use crate::context::Context;
use crate::draft::Draft;
use crate::failure::{Exit, Failure};
use crate::keys;
use crate::output::{self, NAME, paint};

#[derive(Serialize)]
struct Published {
    nation: Nation,
    version: u64,
    root: Digest,
    /// Whether this node was certified anew.
    certified: bool,
    /// Whether it must be: no peer believes its certificate.
    uncertified: bool,
}

pub(super) async fn run(context: &Context, file: &Path, folder: Option<&PathBuf>) -> Result<(), Failure> {
    let draft = Draft::load(file)?;
    let (part, root) = only_root(&draft)?;
    submit(context, &draft).await?;
    let chain = own_chain(context).await?;
    let newest = chain.last().ok_or_else(|| Failure::new(Exit::NotFound, "there is no root"))?;
    let certificate = Signed::parse(&fs::read(context.layout.certificate())?)?;
    let believed = certificate.verify(&peek_root(newest)?.role(RoleName::Node)).is_ok();
    let renewed = if believed { None } else { certify(context, newest, &certificate, folder)? };
    if let Some(renewed) = &renewed {
        replace(&context.layout.certificate(), &renewed.to_json())?;
    }
    refresh(context, &chain, &certificate, renewed.as_ref())?;
    let published = Published {
        nation: root.nation.clone(),
        version: root.version,
        root: part.digest(),
        certified: renewed.is_some(),
        uncertified: !believed && renewed.is_none(),
    };
    if context.json {
        return output::json(&published);
    }
    output::line(format!(
        "{} Version {} of the root of {} holds from now on; allies get it from this node.",
        output::mark(true),
        root.version,
        paint(NAME.bold(), &root.nation)
    ))?;
    if published.certified {
        output::warn("this node has a new certificate: start it anew, so that it shows that one");
    }
    if published.uncertified {
        output::warn(
            "no peer believes this node's certificate any more: run `root publish` again with --keys, where node.key is the new node key",
        );
    }
    output::line(
        "The nation's other nodes need a new certificate where their node key was replaced. Give nation.json to new allies.",
    )
}

/// This node's certificate, signed by the new root's node key; nothing where that is not at hand.
fn certify(
    context: &Context,
    newest: &Signed,
    certificate: &Signed,
    folder: Option<&PathBuf>,
) -> Result<Option<Signed>, Failure> {
    let path = folder.map_or_else(|| context.layout.key(RoleName::Node), |folder| folder.join("node.key"));
    let root = peek_root(newest)?;
    let role = root.role(RoleName::Node);
    if !path.exists() || role.threshold > 1 {
        return Ok(None);
    }
    let Statement::Node(old) = certificate.peek().map_err(registry::envelope::EnvelopeError::from)? else {
        return Err(Failure::new(Exit::Verification, "node.json is no node certificate"));
    };
    let key = keys::open(context, &path)?;
    if !role.keys.contains_key(&key.id()) {
        return Ok(None);
    }
    let statement =
        Statement::Node(NodeCertificate { issued: Timestamp::now(), expires: root.expires, ..old });
    statement.check().map_err(anyhow::Error::from)?;
    Ok(Some(Signed::sign_by(&statement, &key)?))
}

/// Brings `nation.json` up to date.
fn refresh(context: &Context, chain: &[Signed], old: &Signed, new: Option<&Signed>) -> Result<(), Failure> {
    let path = context.layout.nation();
    let mut file = NationFile::load(&path)?;
    file.later = chain.iter().skip(1).cloned().collect();
    if let Some(new) = new {
        file.nodes.retain(|node| node.digest() != old.digest());
        file.nodes.push(new.clone());
    }
    replace(&path, &file.to_json()?)
}

fn replace(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let beside = path.with_extension("json.new");
    fs::write(&beside, content)?;
    fs::File::open(&beside)?.sync_all()?;
    Ok(fs::rename(&beside, path)?)
}
