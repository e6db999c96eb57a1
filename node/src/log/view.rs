//! What people and programs are shown of logs.

use std::collections::BTreeSet;

use registry::statement::Statement;
use registry::store::{OwnLog, Store, StoreError};
use registry::{Digest, Nation, Signed, Timestamp};

use super::{append, book};
use crate::api::types::{
    EvidenceEntry, LogEntry, LogInfo, LogPage, LogPlace, LogStatus, Monitored, Unlogged,
};
use crate::error::{Code, Problem};
use crate::node::{Node, blocking};

/// Entries read from the store at a time.
const STEP: u64 = 4096;

/// Every log, and how our own stands.
pub(crate) async fn status(node: &Node) -> Result<LogStatus, Problem> {
    let looking = node.clone();
    let (logs, pending) = blocking(move || {
        let store = looking.store();
        Ok::<_, StoreError>((infos(store)?, looking.logs().waiting(store)?.len() as u64))
    })
    .await?;
    let own = node.store().own_log();
    let mut problems = node.logs().unusable.clone();
    let behind = match own {
        OwnLog::Behind { known } => {
            let who = node.logs().ahead().filter(|(size, _)| *size >= known).and_then(|(_, nation)| nation);
            problems.push(append::behind_text(known, who.as_ref()));
            Some(known)
        }
        OwnLog::Unconfirmed | OwnLog::Confirmed => None,
    };
    for log in logs.iter().filter(|log| log.disputed) {
        problems.push(format!(
            "the log of `{}` was proved to lie: `steelyard evidence ls`; nothing more of it is accepted here",
            log.nation
        ));
    }
    let waiting = (pending > 0).then(|| why_waiting(node, own, &logs));
    let (appends, witness) = (node.logs().appends(), node.logs().witnesses());
    Ok(LogStatus { logs, appends, witness, pending, waiting, behind, problems })
}

fn why_waiting(node: &Node, own: OwnLog, logs: &[LogInfo]) -> String {
    if !node.logs().appends() {
        return "they wait for the node of this nation that holds the log key".to_owned();
    }
    if logs.iter().any(|log| log.own && log.disputed) {
        return "our log was proved to lie; nothing is appended to it".to_owned();
    }
    match own {
        OwnLog::Behind { .. } => "this node knows less of our log than an ally: `steelyard log recover`".to_owned(),
        OwnLog::Unconfirmed if !node.is_online() => "they are logged when the node runs".to_owned(),
        OwnLog::Unconfirmed => {
            "no ally could be asked yet whether it knows more of our log; `log.standalone` in the settings does without"
                .to_owned()
        }
        OwnLog::Confirmed => "they are being logged".to_owned(),
    }
}

fn infos(store: &Store) -> Result<Vec<LogInfo>, StoreError> {
    let own = store.own();
    let mut infos = Vec::new();
    for nation in book::nations(store) {
        let head = book::head(store, &nation)?;
        let disputed = book::is_disputed(store, &nation)?;
        if head.is_none() && !disputed && nation != own {
            continue;
        }
        infos.push(LogInfo {
            own: nation == own,
            size: head.as_ref().map_or(0, |head| head.size),
            root: head.as_ref().map(|head| data_encoding::BASE64.encode(&head.root)),
            witnesses: head.as_ref().map(|head| head.witnesses.clone()).unwrap_or_default(),
            witnessed: head.and_then(|head| head.witnessed),
            disputed,
            nation,
        });
    }
    infos.sort_by_key(|info| (!info.own, info.nation.clone()));
    Ok(infos)
}

/// Some entries of a log.
pub(crate) fn page(store: &Store, nation: &Nation, from: u64, limit: u64) -> Result<LogPage, Problem> {
    let Some(head) = book::head(store, nation)? else {
        store.trust().member(nation)?;
        return Ok(LogPage { nation: nation.clone(), size: 0, entries: Vec::new() });
    };
    let to = head.size.min(from.saturating_add(limit));
    let mut entries = Vec::new();
    for (offset, entry) in book::entries(store, nation, from.min(to), to)?.iter().enumerate() {
        entries.push(shown(store, from + offset as u64, entry)?);
    }
    Ok(LogPage { nation: nation.clone(), size: head.size, entries })
}

fn shown(store: &Store, index: u64, entry: &[u8; 33]) -> Result<LogEntry, StoreError> {
    let digest = book::digest_of(entry);
    let statement = store.statement(&digest)?.and_then(|signed| signed.peek().ok());
    Ok(LogEntry {
        index,
        digest,
        kind: statement.as_ref().map(Statement::kind),
        issued: statement.as_ref().map(Statement::issued),
        about: statement.as_ref().map(about),
    })
}

/// A statement in a few words.
pub(crate) fn about(statement: &Statement) -> String {
    match statement {
        Statement::Release(release) => format!("{}@{}", release.model, release.version),
        Statement::Channel(channel) => {
            format!("{}:{} move {}", channel.model, channel.channel, channel.sequence)
        }
        Statement::Recall(recall) => format!("of {}", recall.target.digest()),
        Statement::Root(root) => format!("version {}", root.version),
        Statement::Node(node) => format!("of {}", node.peer_id),
        Statement::Attestation(attestation) => {
            format!("{} {} of {}", attestation.suite.name, attestation.verdict, attestation.release)
        }
        Statement::Membership(membership) => format!("{} is {}", membership.member, membership.standing),
    }
}

/// Everything signed in our name, as the log has it and as this node knows it.
pub(crate) fn monitor(node: &Node) -> Result<Monitored, Problem> {
    let store = node.store();
    let own = store.own();
    let size = book::head(store, &own)?.map_or(0, |head| head.size);
    let mut entries = Vec::new();
    let mut from = 0;
    while from < size {
        let to = size.min(from + STEP);
        for (offset, entry) in book::entries(store, &own, from, to)?.iter().enumerate() {
            entries.push(shown(store, from + offset as u64, entry)?);
        }
        from = to;
    }
    let unknown = entries.iter().filter(|entry| entry.kind.is_none()).map(|entry| entry.index).collect();
    let mut unlogged = Vec::new();
    for digest in node.logs().waiting(store)? {
        let statement = store.statement(&digest)?.and_then(|signed: Signed| signed.peek().ok());
        unlogged.push(Unlogged {
            digest,
            kind: statement.as_ref().map(Statement::kind),
            issued: statement.as_ref().map(Statement::issued),
            about: statement.as_ref().map(about),
        });
    }
    let known = entries.iter().map(|entry| entry.digest).chain(unlogged.iter().map(|entry| entry.digest));
    let elsewhere = known.filter(|digest| store.get_meta(&elsewhere_key(digest)).is_some()).collect();
    Ok(Monitored { nation: own, size, entries, unknown, unlogged, elsewhere })
}

/// The note that says that another nation's node brought a statement of ours before this nation's nodes had it.
pub(crate) fn elsewhere_key(digest: &Digest) -> String {
    format!("log/elsewhere/{}", digest.to_hex())
}

/// A statement's place in its nation's log.
pub(crate) async fn place(node: &Node, digest: &Digest) -> Result<LogPlace, Problem> {
    let (store, wanted) = (node.store().clone(), *digest);
    let (nation, logged) = blocking(move || {
        let signed = store.statement(&wanted)?;
        let nation = signed.and_then(|signed| signed.peek().ok()).map(|it| it.nation().clone());
        Ok::<_, StoreError>((nation, store.logged(&wanted, Timestamp::now())?))
    })
    .await?;
    let nation = nation
        .ok_or_else(|| Problem::new(Code::NotFound, format!("the statement {digest} is not known here")))?;
    let waiting = match logged {
        Some(_) => None,
        None if nation == node.store().own() => {
            let status = status(node).await?;
            status.waiting.or(Some("it is being logged".to_owned()))
        }
        None => Some(format!("no entry of it has come from the log of `{nation}` yet")),
    };
    let have = logged.as_ref().map(|logged| logged.witnesses.clone()).unwrap_or_default();
    let connected: BTreeSet<Nation> = node.book().connected().into_iter().map(|(_, nation)| nation).collect();
    let expected = book::witnesses(node.store())
        .into_iter()
        .filter(|ally| connected.contains(ally) && *ally != nation && !have.contains(ally))
        .collect();
    Ok(LogPlace { digest: *digest, nation, logged, waiting, expected })
}

/// Whether a statement's place may become better in a moment: somebody is there to ask.
pub(crate) fn is_hopeful(node: &Node, place: &LogPlace) -> bool {
    let connected = node.book().connected();
    if place.logged.is_some() || place.nation != node.store().own() {
        return !connected.is_empty();
    }
    let allies = book::allies(node.store());
    let asked = allies.is_empty() || connected.iter().any(|(_, nation)| allies.contains(nation));
    let behind = matches!(node.store().own_log(), OwnLog::Behind { .. });
    node.is_online() && node.logs().appends() && !behind && (asked || node.config().log.standalone)
}

/// The evidence that is kept here.
pub(crate) fn evidence(store: &Store) -> Result<Vec<EvidenceEntry>, StoreError> {
    let list = book::list_evidence(store)?;
    Ok(list
        .into_iter()
        .map(|kept| EvidenceEntry {
            name: kept.name,
            nation: kept.nation,
            summary: kept.summary,
            path: kept.path.display().to_string(),
        })
        .collect())
}
