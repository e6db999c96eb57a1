//! Who may have what: the one question that is asked at every door.
//!
//! A door is wherever something leaves this node: the feed, announcements, provider records, the blob protocol, the
//! read-only HTTP interface, bundles. Each asks here before it lets a byte, a chunk map or a "yes, I have it" out, with
//! the nation that the other side was *proved* to be of, never with one that it claims.
//!
//! | what | who may have it |
//! |---|---|
//! | a release | its producer, and whom it names in `releasableTo`, while that nation is pinned here and an active ally |
//! | its bytes and chunk maps | the same, as far as their bytes came here under releases that let that nation have them (`store/audience.rs`) |
//! | a channel | who may have the release that it points to, and the channel's own nation |
//! | an attestation | who may have the release that it is about, and whoever made it |
//! | a recall, a root | everybody: they only take something away, or are what trust rests on |
//! | a membership statement | nodes of the nation that makes it: whom it trusts how far is its own affair |
//! | a node certificate | nobody: it is shown by the node that it names |

use crate::digest::Digest;
use crate::reference::Nation;
use crate::statement::{File, Kind, Releasable, Release, Standing, Statement};
use crate::store::{Reader, Store, StoreError};

/// Why a nation may not have a release from this node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// It is not known here.
    #[error("the release {0} is not known here; pull it first")]
    Unknown(Digest),
    /// The nation is not pinned.
    #[error("`{0}` is not pinned here; run `steelyard trust add` first")]
    NotPinned(Nation),
    /// The nation is not an active ally.
    #[error("`{0}` is {1} here, not an active ally")]
    NotActive(Nation, Standing),
    /// Its producer does not release it to that nation.
    #[error(
        "{producer} releases it to {to}, not to `{nation}`; ask {producer} for a release that names `{nation}`"
    )]
    NotReleasable {
        /// Who made it.
        producer: Nation,
        /// To whom it is releasable, as people read it.
        to: String,
        /// Who would have it.
        nation: Nation,
    },
    /// A file's bytes came here under a release that is for fewer.
    #[error(
        "the bytes of `{path}` came here under another release, which is not for `{nation}`; fetch them under this release from a node that has it, or ask their producer"
    )]
    Narrower {
        /// The file.
        path: String,
        /// Who would have it.
        nation: Nation,
    },
    /// It is recalled for us.
    #[error(
        "it is recalled, and nobody is given its bytes; with --without-blobs its statements and the recall are written"
    )]
    Recalled,
    /// A rule of our policy about `release` refuses.
    #[error("{0}")]
    Policy(String),
}

/// The release, if a node of `nation` may have it from here: it is releasable to that nation, and so is every byte of it
/// that is here. Recalls are another question.
pub fn release(
    store: &Store,
    digest: &Digest,
    nation: &Nation,
) -> Result<Result<Release, Withheld>, StoreError> {
    let Some(known) = store.release(digest)? else { return Ok(Err(Withheld::Unknown(*digest))) };
    Ok(release_known(store, &known, nation)?.map(|()| known))
}

/// As [`release`], for one that was read already.
pub fn release_known(
    store: &Store,
    known: &Release,
    nation: &Nation,
) -> Result<Result<(), Withheld>, StoreError> {
    if let Err(withheld) = entitled(store, nation) {
        return Ok(Err(withheld));
    }
    if !known.releasable_to(nation) {
        let (producer, to) = (known.model.nation.clone(), known.releasable_to.to_string());
        return Ok(Err(Withheld::NotReleasable { producer, to, nation: nation.clone() }));
    }
    for entry in &known.files {
        if store.has_some(&entry.blake3)? && !file(store, entry, nation)? {
            let path = entry.path.clone();
            return Ok(Err(Withheld::Narrower { path, nation: nation.clone() }));
        }
    }
    Ok(Ok(()))
}

/// Whether `nation` is given anything: it is an active ally, or our own. Whether it is pinned at all is decided where its
/// node is admitted, and again by [`ally`] where no connection stands between.
fn entitled(store: &Store, nation: &Nation) -> Result<(), Withheld> {
    match ally(store, nation) {
        Err(Withheld::NotPinned(_)) => Ok(()),
        other => other,
    }
}

/// Whether `nation` is pinned here and an active ally, or our own, of which nothing else can be said.
pub fn ally(store: &Store, nation: &Nation) -> Result<(), Withheld> {
    let trust = store.trust();
    let Ok(member) = trust.member(nation) else { return Err(Withheld::NotPinned(nation.clone())) };
    match member.standing() {
        Standing::Active => Ok(()),
        standing => Err(Withheld::NotActive(nation.clone(), standing)),
    }
}

/// Whether a node of `nation`, which may have a release that names `file`, may be given the file's bytes and chunk map as
/// they are here.
pub fn file(store: &Store, file: &File, nation: &Nation) -> Result<bool, StoreError> {
    // What our own nation has, it has.
    Ok(*nation == store.own() || store.may_give(&file.blake3, Reader::Nation(nation))?)
}

/// Whether everybody may know that this node has the release, and have it.
pub fn to_everybody(store: &Store, release: &Release) -> Result<bool, StoreError> {
    if !is_open(release) {
        return Ok(false);
    }
    for file in &release.files {
        if !store.may_give(&file.blake3, Reader::Everybody)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the release is for everybody, by what its producer says.
pub fn is_open(release: &Release) -> bool {
    matches!(release.releasable_to, Releasable::All)
}

/// Whether `nation` may learn of a statement. A channel or an attestation whose release is not known here is kept back.
pub fn statement(store: &Store, statement: &Statement, nation: &Nation) -> Result<bool, StoreError> {
    if entitled(store, nation).is_err() {
        return Ok(false);
    }
    let release = |digest: &Digest| {
        Ok::<_, StoreError>(store.release(digest)?.is_some_and(|known| known.releasable_to(nation)))
    };
    match statement {
        Statement::Release(known) => Ok(known.releasable_to(nation)),
        Statement::Channel(channel) => Ok(channel.model.nation == *nation || release(&channel.release)?),
        Statement::Attestation(attestation) => {
            Ok(attestation.nation == *nation || release(&attestation.release)?)
        }
        Statement::Recall(_) | Statement::Root(_) => Ok(true),
        Statement::Membership(said) => Ok(said.nation == *nation),
        Statement::Node(_) => Ok(false),
    }
}

/// Whether a statement may be named to whoever listens.
pub fn statement_to_everybody(store: &Store, statement: &Statement) -> Result<bool, StoreError> {
    let open = |digest: &Digest| Ok::<_, StoreError>(store.release(digest)?.as_ref().is_some_and(is_open));
    match statement {
        Statement::Release(known) => Ok(is_open(known)),
        Statement::Channel(channel) => open(&channel.release),
        Statement::Attestation(attestation) => open(&attestation.release),
        other => Ok(matches!(other.kind(), Kind::Recall | Kind::Root)),
    }
}
