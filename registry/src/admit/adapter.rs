//! Whether an adapter goes with a model: by the lineage that its publisher signed, never by what its files claim.

use std::collections::BTreeSet;

use super::{AdmitError, serve};
use crate::admitted::Admitted;
use crate::digest::Digest;
use crate::statement::{Relation, Release};
use crate::store::{Store, StoreError};
use crate::timestamp::Timestamp;

/// Most releases that are looked at between a model that is served and the one that an adapter was made for: a quantisation of a
/// quantisation is rare already.
const MAX_BETWEEN: usize = 16;

/// Why an adapter is not served with a model.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// Its lineage names no base as an adapter's.
    #[error(
        "{adapter} is not an adapter: its lineage names no release with the relation `adapter`. It may be a model by itself"
    )]
    NotAnAdapter {
        /// The release, by its name.
        adapter: String,
    },
    /// It was made for another model.
    #[error(
        "{adapter} was made for {made_for}, and {served} is neither that release nor a quantisation of it. Serve that one, or an adapter for this one"
    )]
    OtherBase {
        /// The adapter, by its name.
        adapter: String,
        /// What it was made for.
        made_for: String,
        /// What is to be served.
        served: String,
    },
    /// It may not be served at all.
    #[error(transparent)]
    Admit(#[from] AdmitError),
}

impl From<StoreError> for AdapterError {
    fn from(error: StoreError) -> Self {
        Self::Admit(error.into())
    }
}

/// The releases that a release is an adapter for; none if it is a model by itself.
pub fn bases(release: &Release) -> Vec<Digest> {
    edges(release, Relation::Adapter).collect()
}

/// What a worker needs to serve `adapter` with the release `served`: it is admitted and may be served ([`serve`]), and its lineage
/// names `served`, or what `served` is a quantisation of.
pub fn adapter(
    store: &Store,
    adapter: &Digest,
    served: &Digest,
    now: Timestamp,
) -> Result<Admitted, AdapterError> {
    let known = store.release(adapter)?.ok_or(AdmitError::NotFound(*adapter))?;
    let made_for = bases(&known);
    if made_for.is_empty() {
        return Err(AdapterError::NotAnAdapter { adapter: named(&known) });
    }
    if !is_made_from(store, served, &made_for)? {
        let name = |digest: &Digest| -> Result<String, StoreError> {
            Ok(store.release(digest)?.map_or_else(|| digest.to_string(), |release| named(&release)))
        };
        let names: Vec<String> = made_for.iter().map(name).collect::<Result<_, _>>()?;
        return Err(AdapterError::OtherBase {
            adapter: named(&known),
            made_for: names.join(", "),
            served: name(served)?,
        });
    }
    Ok(serve(store, adapter, now)?)
}

fn named(release: &Release) -> String {
    format!("{}@{}", release.model, release.version)
}

fn edges(release: &Release, relation: Relation) -> impl Iterator<Item = Digest> + '_ {
    let of_kind = release.derived_from.iter().filter(move |edge| edge.relation == relation);
    of_kind.map(|edge| edge.release)
}

/// Whether `served` is one of `bases`, or a quantisation of one.
fn is_made_from(store: &Store, served: &Digest, bases: &[Digest]) -> Result<bool, StoreError> {
    let (mut seen, mut next) = (BTreeSet::new(), vec![*served]);
    while let Some(digest) = next.pop() {
        if bases.contains(&digest) {
            return Ok(true);
        }
        if seen.len() < MAX_BETWEEN
            && seen.insert(digest)
            && let Some(release) = store.release(&digest)?
        {
            next.extend(edges(&release, Relation::Quantisation));
        }
    }
    Ok(false)
}
