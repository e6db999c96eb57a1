//! What the store knows, as the interface shows it. Everything here blocks.

use std::collections::{BTreeMap, BTreeSet};

use registry::policy::recall_binds;
use registry::statement::{Channel, Recall, RecallTarget, Release, RoleName, Statement, Verdict};
use registry::store::{Pin, Store, StoreError};
use registry::trust::TrustError;
use registry::{Digest, Model, Nation, Reference, Timestamp};

use super::Access;
use super::types::{
    AttestationEntry, ChannelEntry, Evidence, FileEntry, ModelEntry, PinEntry, Presence, RecallEntry,
    ReleaseDetail, ReleaseEntry, Resolved, RolledBack, SignedEntry,
};
use crate::error::{Code, Problem};
use crate::events::Event;

/// One reading of the store's lists, so that an answer about many releases reads each list once.
pub(super) struct Catalogue<'a> {
    store: &'a Store,
    releases: BTreeMap<Digest, Release>,
    channels: Vec<(Digest, Channel)>,
    recalls: Vec<(Digest, Recall)>,
    admitted: BTreeSet<Digest>,
    pins: BTreeMap<Digest, Pin>,
    mirrored: BTreeMap<Digest, String>,
}

/// Most log proofs in one answer: each takes some reads of tiles, and roots, the release and its channels come first.
const MAX_PROOFS: usize = 64;

/// Whether whoever has `access` may learn of an event: the same as may read the lists, so that nothing is told by the way of
/// which a list says nothing.
pub(super) fn may_see(store: &Store, access: Access, event: &Event) -> Result<bool, StoreError> {
    if access == Access::Local {
        return Ok(true);
    }
    let own = store.own();
    let open = |release: &Digest| {
        Ok::<_, StoreError>(store.release(release)?.is_none_or(|release| release.releasable_to(&own)))
    };
    match event {
        Event::Statement { digest, .. } => {
            let statement = store.statement(digest)?.and_then(|signed| signed.peek().ok());
            match statement {
                Some(Statement::Release(release)) => Ok(release.releasable_to(&own)),
                Some(Statement::Channel(channel)) => open(&channel.release),
                Some(Statement::Attestation(attestation)) => open(&attestation.release),
                Some(Statement::Recall(_) | Statement::Root(_)) => Ok(true),
                // What our nation says of others is its own affair, and listed for it alone.
                Some(Statement::Membership(_) | Statement::Node(_)) | None => Ok(false),
            }
        }
        Event::Channel { release, .. } | Event::Admitted { release, .. } => open(release),
        Event::Transfer(transfer) => transfer.release.as_ref().map_or(Ok(true), open),
        Event::Worker(worker) => open(&worker.release),
        Event::PeerUp { .. }
        | Event::PeerDown { .. }
        | Event::Recall { .. }
        | Event::Trust { .. }
        | Event::Policy { .. }
        | Event::Alert { .. } => Ok(true),
    }
}

impl<'a> Catalogue<'a> {
    fn read(store: &'a Store) -> Result<Self, Problem> {
        let admitted = store.admissions()?.into_iter().filter(|admission| admission.decision.allowed);
        let mirrored = store.mirrored()?.into_iter().filter(|it| it.kept);
        Ok(Self {
            store,
            releases: store.releases()?.into_iter().collect(),
            channels: store.channels()?,
            recalls: store.recalls()?,
            admitted: admitted.map(|admission| admission.release).collect(),
            pins: store.pins()?.into_iter().map(|pin| (pin.release, pin)).collect(),
            mirrored: mirrored.map(|it| (it.release, it.rule)).collect(),
        })
    }

    /// The same as whoever has `access` may read it ([`may_see`] says it of events).
    pub(super) fn read_for(store: &'a Store, access: Access) -> Result<Self, Problem> {
        let mut all = Self::read(store)?;
        if access == Access::Public {
            let own = store.own();
            let withheld: BTreeSet<Digest> = all
                .releases
                .iter()
                .filter(|(_, it)| !it.releasable_to(&own))
                .map(|(digest, _)| *digest)
                .collect();
            all.releases.retain(|digest, _| !withheld.contains(digest));
            all.channels.retain(|(_, channel)| !withheld.contains(&channel.release));
        }
        Ok(all)
    }

    /// Every model, by name.
    pub(super) fn models(&self) -> Result<Vec<ModelEntry>, Problem> {
        let mut models: BTreeMap<Model, ModelEntry> = BTreeMap::new();
        let empty =
            |model: &Model| ModelEntry { model: model.clone(), channels: Vec::new(), releases: Vec::new() };
        for (digest, release) in &self.releases {
            let entry = models.entry(release.model.clone()).or_insert_with(|| empty(&release.model));
            entry.releases.push(self.entry(digest, release)?);
        }
        for (_, channel) in &self.channels {
            let entry = models.entry(channel.model.clone()).or_insert_with(|| empty(&channel.model));
            entry.channels.push(self.channel(channel)?);
        }
        for entry in models.values_mut() {
            entry.releases.sort_by(|a, b| (b.issued, &b.version).cmp(&(a.issued, &a.version)));
            entry.channels.sort_by(|a, b| a.channel.cmp(&b.channel));
        }
        Ok(models.into_values().collect())
    }

    fn channel(&self, channel: &Channel) -> Result<ChannelEntry, Problem> {
        let rolled_back_from = self
            .store
            .rolled_back_from(channel)?
            .filter(|(release, _)| self.releases.contains_key(release))
            .map(|(release, left)| RolledBack { release, version: left.version });
        Ok(ChannelEntry {
            channel: channel.channel.clone(),
            sequence: channel.sequence,
            release: channel.release,
            version: self.releases.get(&channel.release).map(|release| release.version.clone()),
            reason: channel.reason.clone(),
            issued: channel.issued,
            rolled_back_from,
        })
    }

    fn entry(&self, digest: &Digest, release: &Release) -> Result<ReleaseEntry, Problem> {
        let here: Vec<u64> = release
            .files
            .iter()
            .filter(|file| self.store.has_blob(&file.blake3))
            .map(|file| file.size)
            .collect();
        let presence = match here.len() {
            0 => Presence::Known,
            n if n == release.files.len() => Presence::Complete,
            _ => Presence::Partial,
        };
        let ancestors = self.store.ancestors(digest)?;
        let own = self.store.own();
        let recalled = self
            .recalls
            .iter()
            .any(|(_, recall)| recall_binds(recall, &own, &release.model.nation, *digest, &ancestors));
        Ok(ReleaseEntry {
            release: *digest,
            model: release.model.clone(),
            version: release.version.clone(),
            format: release.format.clone(),
            licence: release.licence.clone(),
            size: release.size(),
            files: release.files.len(),
            issued: release.issued,
            presence,
            bytes_here: here.iter().sum(),
            admitted: self.admitted.contains(digest) && !recalled,
            recalled,
            pinned: self.pins.contains_key(digest),
            mirrored: self.mirrored.get(digest).cloned(),
        })
    }

    /// Everything about one release, with the decision as it is now.
    pub(super) fn detail(&self, digest: &Digest) -> Result<ReleaseDetail, Problem> {
        let release = self.releases.get(digest).ok_or_else(|| unknown_release(digest))?;
        let ancestors = self.store.ancestors(digest)?;
        let trust = self.store.trust();
        let threshold = trust
            .member(&release.model.nation)
            .ok()
            .map(|member| member.root.role(RoleName::Release).threshold);
        let (signers, decision, distrust) =
            match registry::admit::decide(self.store, digest, Timestamp::now()) {
                Ok((verified, decision)) => (verified.signers().to_vec(), Some(decision), None),
                Err(error) => (Vec::new(), None, Some(error.to_string())),
            };
        let named = |recall: &Recall| match recall.target {
            RecallTarget::Release(target) => target == *digest,
            RecallTarget::Lineage(target) => target == *digest || ancestors.contains_key(&target),
        };
        Ok(ReleaseDetail {
            entry: self.entry(digest, release)?,
            file_list: release
                .files
                .iter()
                .map(|file| FileEntry { here: self.store.has_blob(&file.blake3), file: file.clone() })
                .collect(),
            releasable_to: release.releasable_to.to_string(),
            derived_from: release.derived_from.clone(),
            model_card: release.model_card.clone(),
            signers,
            threshold,
            channels: self
                .channels
                .iter()
                .filter(|(_, channel)| channel.release == *digest)
                .map(|(_, channel)| self.channel(channel))
                .collect::<Result<_, _>>()?,
            recalls: self
                .recalls
                .iter()
                .filter(|(_, recall)| named(recall))
                .map(|(id, recall)| self.recall(id, recall))
                .collect(),
            attestations: self.attestations(digest, &release.model.nation)?,
            decision,
            distrust,
            pin: self.pins.get(digest).map(|pin| pin.reason.clone()),
        })
    }

    /// What nations attest about a release, and whether each counts now.
    fn attestations(&self, release: &Digest, producer: &Nation) -> Result<Vec<AttestationEntry>, Problem> {
        let now = Timestamp::now();
        let believed = registry::admit::attestations(self.store, release, now)?;
        let mut entries = Vec::new();
        for (id, attestation) in self.store.attestations(release)? {
            let why = if attestation.valid_until <= now {
                Some("it has expired".to_owned())
            } else if !believed.contains(&attestation) {
                Some(format!("`{}` is not believed here now", attestation.nation))
            } else if attestation.nation == *producer && attestation.verdict == Verdict::Pass {
                Some("a producer does not vouch for itself".to_owned())
            } else {
                None
            };
            entries.push(AttestationEntry {
                attestation: id,
                nation: attestation.nation,
                suite: attestation.suite,
                verdict: attestation.verdict,
                results: attestation.results,
                summary: attestation.summary,
                issued: attestation.issued,
                valid_until: attestation.valid_until,
                counts: why.is_none(),
                why,
            });
        }
        Ok(entries)
    }

    fn recall(&self, id: &Digest, recall: &Recall) -> RecallEntry {
        let release = recall.target.digest();
        let known = self.releases.get(&release);
        RecallEntry {
            recall: *id,
            nation: recall.nation.clone(),
            release,
            lineage: matches!(recall.target, RecallTarget::Lineage(_)),
            model: known.map(|release| release.model.clone()),
            version: known.map(|release| release.version.clone()),
            reason: recall.reason.clone(),
            severity: recall.severity,
            sequence: recall.sequence,
            issued: recall.issued,
        }
    }

    /// Every recall, the newest first.
    pub(super) fn recalls(&self) -> Vec<RecallEntry> {
        let mut recalls: Vec<_> = self.recalls.iter().map(|(id, recall)| self.recall(id, recall)).collect();
        recalls.sort_by_key(|recall| std::cmp::Reverse(recall.issued));
        recalls
    }

    /// Every pin.
    pub(super) fn pins(&self) -> Vec<PinEntry> {
        let entry = |(digest, pin): (&Digest, &Pin)| {
            let known = self.releases.get(digest);
            PinEntry {
                release: *digest,
                model: known.map(|release| release.model.clone()),
                version: known.map(|release| release.version.clone()),
                reason: pin.reason.clone(),
                at: pin.at,
            }
        };
        self.pins.iter().map(entry).collect()
    }

    /// Every signed statement that a decision about `digest` rests on.
    pub(super) fn evidence(&self, digest: &Digest) -> Result<Evidence, Problem> {
        let release = self.releases.get(digest).ok_or_else(|| unknown_release(digest))?;
        let mut statements = Vec::new();
        if let Ok(member) = self.store.trust().member(&release.model.nation) {
            statements.extend(member.root.roots().map(registry::Verified::proven));
        }
        let ancestors = self.store.ancestors(digest)?;
        let channels = self.channels.iter().filter(|(_, c)| c.release == *digest).map(|(id, _)| id);
        let recalls = self.recalls.iter().filter(|(_, recall)| {
            let target = recall.target.digest();
            target == *digest || ancestors.contains_key(&target)
        });
        let attestations = self.store.attestations(digest)?;
        let attested = attestations.iter().map(|(id, _)| id);
        for id in [digest].into_iter().chain(channels).chain(recalls.map(|(id, _)| id)).chain(attested) {
            statements.extend(self.store.statement(id)?);
        }
        let mut proofs = MAX_PROOFS;
        let entry = |signed: registry::Signed| -> Result<SignedEntry, Problem> {
            let internal = |error: &dyn std::fmt::Display| Problem::new(Code::Internal, error);
            let statement: Statement = signed.peek().map_err(|error| internal(&error))?;
            let envelopes = serde_json::from_slice(&signed.to_json()).map_err(|error| internal(&error))?;
            let (digest, kind, nation) = (signed.digest(), statement.kind(), statement.nation().clone());
            let proof = match proofs {
                0 => None,
                // Notes are text, so that proofs are too.
                _ => self
                    .store
                    .log_proof(&nation, &digest)?
                    .and_then(|proof| String::from_utf8(proof.to_text()).ok()),
            };
            proofs = proofs.saturating_sub(1);
            Ok(SignedEntry { digest, kind, nation, envelopes, proof })
        };
        Ok(Evidence {
            release: *digest,
            made: Timestamp::now(),
            statements: statements.into_iter().map(entry).collect::<Result<_, _>>()?,
        })
    }
}

fn unknown_release(digest: &Digest) -> Problem {
    Problem::new(Code::NotFound, format!("the release {digest} is not known here"))
        .hint("`steelyard pull` asks the peers for it; `steelyard ls` lists what is known")
}

/// Reads a reference that a person typed.
pub(super) fn parse(text: &str) -> Result<Reference, Problem> {
    text.parse::<Reference>().map_err(|error| {
        Problem::new(Code::Usage, error)
            .hint("name a release as nation/name, nation/name:channel, nation/name@version or b3:…")
    })
}

/// The release that `text` means here.
pub(super) fn resolve(store: &Store, text: &str) -> Result<Resolved, Problem> {
    let reference = parse(text)?;
    let found = match store.resolve(&reference)? {
        Some(digest) => store.release(&digest)?.map(|release| (digest, release)),
        None => None,
    };
    match found {
        Some((digest, release)) => Ok(Resolved {
            reference: reference.to_string(),
            release: digest,
            model: release.model,
            version: release.version,
        }),
        None => Err(not_known(store, &reference)),
    }
}

/// The same for whoever has `access`: what that one may not read is not known.
pub(super) fn resolve_for(store: &Store, text: &str, access: Access) -> Result<Resolved, Problem> {
    let found = resolve(store, text)?;
    let own = store.own();
    match store.release(&found.release)? {
        Some(release) if access == Access::Public && !release.releasable_to(&own) => {
            Err(Problem::new(Code::NotFound, format!("`{}` is not known here", parse(text)?)))
        }
        _ => Ok(found),
    }
}

/// Says why `reference` means nothing here, as exactly as can be known.
fn not_known(store: &Store, reference: &Reference) -> Problem {
    let problem = Problem::new(Code::NotFound, format!("`{reference}` is not known here"));
    let Some(model) = reference.model() else {
        return problem.hint("`steelyard pull` asks the peers for it");
    };
    if let Err(TrustError::NotPinned(nation)) = store.trust().member(&model.nation) {
        return problem.hint(format!(
            "the nation `{nation}` is not pinned here; get its nation.json and run `steelyard trust add`"
        ));
    }
    let known: Vec<String> = store
        .releases()
        .unwrap_or_default()
        .into_iter()
        .filter(|(_, release)| release.model == *model)
        .map(|(_, release)| format!("{model}@{}", release.version))
        .take(8)
        .collect();
    if known.is_empty() {
        problem.hint(format!("`steelyard pull {reference}` asks the peers for it"))
    } else {
        problem.hint(format!("known here: {}; `steelyard pull {reference}` asks the peers", known.join(", ")))
    }
}
