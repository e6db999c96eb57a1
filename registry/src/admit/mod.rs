//! The only maker of [`Admitted`]: signatures, policy, bytes, record.
//!
//! Nothing is taken from an earlier decision. Each admission holds the release's signatures against the trust of that moment
//! (that a key made one is remembered, whether the key counts is not), asks the policy, and looks for every blob. A blob's content was hashed when it entered the store, and is
//! hashed again by [`verify`] and by the worker that maps it.

mod adapter;
mod door;
mod verify;

use std::fs::File;

pub use adapter::{AdapterError, adapter, bases};
pub use door::{Door, Permission};
pub use verify::{Damage, MAX_DAMAGE, VerifyReport, verify};

use crate::admitted::Admitted;
use crate::digest::Digest;
use crate::envelope::{Signed, Verified};
use crate::format::{FormatError, Safety, detect, inspect};
use crate::log::Logged;
use crate::policy::{self, Action, Decision, Evidence, Facts, UnsafeFile};
use crate::reference::Nation;
use crate::statement::{self, Attestation, Kind, Recall, Release, Statement};
use crate::store::{Store, StoreError, better, io};
use crate::timestamp::Timestamp;
use crate::trust::TrustError;

/// A file of a release whose bytes are not all here.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Missing {
    /// Path in the release.
    pub path: String,
    /// The blob, or its chunk map where that is what is missing.
    pub blob: Digest,
}

/// Why a release is not admitted.
#[derive(Debug, thiserror::Error)]
pub enum AdmitError {
    /// No such release.
    #[error("the release {0} is not known here; pull it first")]
    NotFound(Digest),
    /// Something else has this digest.
    #[error("{digest} is a {kind}, not a release")]
    NotARelease {
        /// The digest.
        digest: Digest,
        /// What it names.
        kind: Kind,
    },
    /// Bytes are missing.
    #[error("{} of the release {release} are not here, `{}` first; pull it", count(.missing.len()), first(.missing))]
    Incomplete {
        /// The release.
        release: Digest,
        /// What is missing.
        missing: Vec<Missing>,
    },
    /// A chunk map speaks of another file.
    #[error(
        "the chunk map {map} that the release names for `{path}` is of another file; its publisher must sign anew"
    )]
    WrongMap {
        /// Path in the release.
        path: String,
        /// The map.
        map: Digest,
    },
    /// The policy refuses.
    #[error("the release {release} is refused: {}", reasons(.decision))]
    Refused {
        /// The release.
        release: Digest,
        /// Every rule's answer.
        decision: Decision,
    },
    /// The signatures are not believed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn count(files: usize) -> String {
    if files == 1 { "1 file".to_owned() } else { format!("{files} files") }
}

fn first(missing: &[Missing]) -> &str {
    missing.first().map_or("", |missing| &missing.path)
}

/// The refusals as one line.
pub(crate) fn reasons(decision: &Decision) -> String {
    let refusals: Vec<String> =
        decision.refusals().map(|check| format!("{}: {}", check.rule, check.detail)).collect();
    refusals.join("; ")
}

/// Decides about a release without asking for its bytes: files that are not here yet are judged by their names alone.
pub fn decide(
    store: &Store,
    release: &Digest,
    now: Timestamp,
) -> Result<(Verified<Release>, Decision), AdmitError> {
    decide_for(store, Action::Admit, &store.own(), release, now)
}

/// Decides whether `nation` may get a release, or, for every action but [`Action::Release`], whether we may do that with
/// it (see [`decide`]).
pub fn decide_for(
    store: &Store,
    action: Action,
    nation: &Nation,
    release: &Digest,
    now: Timestamp,
) -> Result<(Verified<Release>, Decision), AdmitError> {
    let (verified, facts) = facts(store, nation, release, now)?;
    Ok((verified, store.policy().decide(action, &facts)))
}

/// Everything that a decision about a release rests on, as `steelyard policy explain` shows it.
pub fn facts(
    store: &Store,
    nation: &Nation,
    release: &Digest,
    now: Timestamp,
) -> Result<(Verified<Release>, Facts), AdmitError> {
    let signed = store.statement(release)?.ok_or(AdmitError::NotFound(*release))?;
    let verified = believe(store, &signed, now)?;
    let facts = gather(store, nation, &verified, &Brought::default(), now, |file| {
        if store.has_blob(&file.blake3) { store.open_blob(&file.blake3).map(Some) } else { Ok(None) }
    })?;
    Ok((verified, facts))
}

/// What is known besides what the store knows.
#[derive(Default)]
pub(crate) struct Brought<'a> {
    /// Believed recalls.
    pub(crate) recalls: &'a [Recall],
    /// Believed attestations.
    pub(crate) attestations: &'a [Attestation],
    /// What is proved of the release's place in its nation's log.
    pub(crate) logged: Option<&'a Logged>,
}

/// Verifies a release's signatures against the trust of this moment, and the log order where its keys were replaced. The
/// standing of its nation is left to the policy.
pub(crate) fn believe(
    store: &Store,
    signed: &Signed,
    now: Timestamp,
) -> Result<Verified<Release>, AdmitError> {
    let verified: Verified<Statement> = store.verify_kept::<AdmitError>(signed, now)?;
    let (digest, kind) = (verified.digest(), verified.kind());
    verified.into_release().ok_or(AdmitError::NotARelease { digest, kind })
}

/// Asks the policy about a believed release; `open` yields a file's content where it is here.
pub(crate) fn judge(
    store: &Store,
    release: &Verified<Release>,
    brought: &Brought<'_>,
    now: Timestamp,
    open: impl Fn(&statement::File) -> Result<Option<File>, StoreError>,
) -> Result<Decision, StoreError> {
    let facts = gather(store, &store.own(), release, brought, now, open)?;
    Ok(store.policy().decide(Action::Admit, &facts))
}

fn gather(
    store: &Store,
    nation: &Nation,
    release: &Verified<Release>,
    brought: &Brought<'_>,
    now: Timestamp,
    open: impl Fn(&statement::File) -> Result<Option<File>, StoreError>,
) -> Result<Facts, StoreError> {
    let mut unsafe_files = Vec::new();
    for file in &release.files {
        if let Some(why) = objection(file, open(file)?)? {
            unsafe_files.push(UnsafeFile { path: file.path.clone(), why });
        }
    }
    let ancestors = store.ancestors_of(release.derived_from.iter().map(|base| base.release))?;
    let digest = release.digest();
    let mut recalls: Vec<Recall> =
        store.recalls_about(&digest, &ancestors)?.into_iter().map(|(_, recall)| recall).collect();
    recalls.extend_from_slice(brought.recalls);
    let mut attestations = attestations(store, &digest, now)?;
    attestations.extend_from_slice(brought.attestations);
    let logged = better(store.logged_of(&release.model.nation, &digest, now)?, brought.logged.cloned());
    let evidence = Evidence {
        release,
        recalls: &recalls,
        ancestors: &ancestors,
        unsafe_files: &unsafe_files,
        logged: logged.as_ref(),
        attestations: &attestations,
        admitted: store.is_admitted(&digest)?,
        lease_age: store.lease_age(&release.model.nation),
    };
    Ok(Facts::gather(&evidence, nation, &store.trust(), store.policy().witnesses(), now))
}

/// The attestations about a release that the trust of this moment believes.
pub fn attestations(store: &Store, release: &Digest, now: Timestamp) -> Result<Vec<Attestation>, StoreError> {
    let mut believed = Vec::new();
    for signed in store.attested(release)? {
        if let Ok(verified) = store.verify::<AdmitError>(&signed, now)
            && let Statement::Attestation(attestation) = verified.get()
        {
            believed.push(attestation.clone());
        }
    }
    Ok(believed)
}

/// Why a file does not belong into a release that is served, by name and, where it is here, by content.
fn objection(file: &statement::File, content: Option<File>) -> Result<Option<String>, StoreError> {
    let Some(content) = content else {
        let kind = detect(&file.path, &[]);
        let dangerous = kind.safety() == Safety::MayRunCode;
        return Ok(kind.objection().filter(|_| dangerous).map(str::to_owned));
    };
    match inspect(&file.path, &content, file.size) {
        Ok(inspection) => Ok(inspection.kind.objection().map(str::to_owned)),
        Err(FormatError::Io(source)) => Err(io("could not read", std::path::Path::new(&file.path))(source)),
        Err(error) => Ok(Some(error.to_string())),
    }
}

/// Admits a release to be served here, and records the decision durably. An earlier admission of a release that is now
/// refused is withdrawn.
pub fn admit(store: &Store, release: &Digest, now: Timestamp) -> Result<Admitted, AdmitError> {
    // From here on no blob of it is collected, so what is found complete stays so until it is recorded.
    let _lease = store.lease([*release]);
    let (verified, decision) = match decide(store, release, now) {
        // A root that has ended may be followed by the next one, and a log may yet show an order: until then the release is
        // not served, and what was decided stands.
        Err(error @ AdmitError::Trust(TrustError::RootExpired { .. } | TrustError::Unordered { .. })) => {
            return Err(error);
        }
        Err(error @ AdmitError::Trust(_)) => {
            store.withdraw_admission(release)?;
            return Err(error);
        }
        other => other?,
    };
    if !decision.allowed {
        store.withdraw_admission(release)?;
        return Err(AdmitError::Refused { release: *release, decision });
    }
    complete(store, *release, &verified)?;
    let blobs: Vec<Digest> = verified.files.iter().flat_map(|file| [file.blake3, file.chunk_map]).collect();
    store.put_admission(release, now, &decision, &blobs)?;
    Ok(Admitted::new(&verified, now, |blob| store.blob_path(blob)))
}

/// What a worker needs to serve a release: it is admitted, now or before, and the policy lets it be given to users. What
/// was admitted goes on being served when its producer is an ally no more; a recall ends that, or a rule about `serve`.
pub fn serve(store: &Store, release: &Digest, now: Timestamp) -> Result<Admitted, AdmitError> {
    let _lease = store.lease([*release]);
    if store.admission(release)?.is_none() {
        admit(store, release, now)?;
    }
    let (verified, decision) = decide_for(store, Action::Serve, &store.own(), release, now)?;
    if !decision.allowed {
        return Err(AdmitError::Refused { release: *release, decision });
    }
    complete(store, *release, &verified)?;
    Ok(Admitted::new(&verified, now, |blob| store.blob_path(blob)))
}

/// The same for a release whose bytes are still coming: whether it would be admitted and given to users, from its signed
/// statement and whatever of it is here. Nothing is recorded. A worker that is started with it must not answer before this was
/// asked once more with every file here that it computes on, since some files are judged by their content.
pub fn serve_ahead(store: &Store, release: &Digest, now: Timestamp) -> Result<Admitted, AdmitError> {
    let mut believed = None;
    for action in [Action::Admit, Action::Serve] {
        let (verified, decision) = decide_for(store, action, &store.own(), release, now)?;
        if !decision.allowed {
            return Err(AdmitError::Refused { release: *release, decision });
        }
        believed = Some(verified);
    }
    let verified = believed.ok_or(AdmitError::NotFound(*release))?;
    Ok(Admitted::new(&verified, now, |blob| store.blob_path(blob)))
}

/// Checks that every blob and chunk map is here and that they belong together.
pub(crate) fn complete(store: &Store, digest: Digest, release: &Release) -> Result<(), AdmitError> {
    let mut missing = Vec::new();
    for file in &release.files {
        let mut lacks = |blob| missing.push(Missing { path: file.path.clone(), blob });
        if store.blob_size(&file.blake3)? != Some(file.size) {
            lacks(file.blake3);
            continue;
        }
        match store.chunk_map(&file.chunk_map)? {
            None => lacks(file.chunk_map),
            Some(map) if map.blob() == file.blake3 && map.size() == file.size => {}
            Some(_) => return Err(AdmitError::WrongMap { path: file.path.clone(), map: file.chunk_map }),
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(AdmitError::Incomplete { release: digest, missing }) }
}

/// The first known recall that binds this node for `release`, with its statement's digest. Nothing when the release
/// itself is not known here.
pub fn binding_recall(store: &Store, release: &Digest) -> Result<Option<(Digest, Recall)>, StoreError> {
    let Some(known) = store.release(release)? else { return Ok(None) };
    let ancestors = store.ancestors_of(known.derived_from.iter().map(|base| base.release))?;
    let recalls = store.recalls_about(release, &ancestors)?;
    let (own, producer): (Nation, Nation) = (store.own(), known.model.nation);
    Ok(recalls
        .into_iter()
        .find(|(_, recall)| policy::recall_binds(recall, &own, &producer, *release, &ancestors)))
}

/// Withdraws the admission of each release that a recall binds this node to; those releases.
pub fn withdraw_recalled(store: &Store) -> Result<Vec<Digest>, StoreError> {
    let mut withdrawn = Vec::new();
    for admission in store.admissions()? {
        if binding_recall(store, &admission.release)?.is_some()
            && store.withdraw_admission(&admission.release)?
        {
            withdrawn.push(admission.release);
        }
    }
    Ok(withdrawn)
}
