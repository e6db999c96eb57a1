//! Facts as Cedar sees them: the names here are those of `steelyard.cedarschema`, and a test holds the two together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use cedar_policy::{
    Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression as Value,
};

use super::{Action, Facts, sight};
use crate::digest::Digest;
use crate::reference::Nation;
use crate::statement::Releasable;
use crate::timestamp::Timestamp;

/// Unsafe files told to the rules: one is enough to refuse.
const MAX_UNSAFE: usize = 64;

/// The entity types, parsed once.
struct Types {
    nation: EntityTypeName,
    release: EntityTypeName,
    action: EntityTypeName,
}

fn types() -> Result<&'static Types, String> {
    static TYPES: OnceLock<Result<Types, String>> = OnceLock::new();
    let name = |text: &str| text.parse::<EntityTypeName>().map_err(|error| error.to_string());
    let made = TYPES.get_or_init(|| {
        Ok(Types { nation: name("Nation")?, release: name("Release")?, action: name("Action")? })
    });
    made.as_ref().map_err(Clone::clone)
}

impl Types {
    fn nation(&self, nation: &Nation) -> EntityUid {
        EntityUid::from_type_name_and_id(self.nation.clone(), EntityId::new(nation.as_str()))
    }

    fn release(&self, digest: &Digest) -> EntityUid {
        EntityUid::from_type_name_and_id(self.release.clone(), EntityId::new(digest.to_string()))
    }

    fn nations<'a>(&self, nations: impl IntoIterator<Item = &'a Nation>) -> Value {
        Value::new_set(nations.into_iter().map(|nation| Value::new_entity_uid(self.nation(nation))))
    }

    fn releases<'a>(&self, releases: impl IntoIterator<Item = &'a Digest>) -> Value {
        Value::new_set(releases.into_iter().map(|digest| Value::new_entity_uid(self.release(digest))))
    }
}

fn text(text: &str) -> Value {
    Value::new_string(text.to_owned())
}

fn long(number: u64) -> Value {
    Value::new_long(i64::try_from(number).unwrap_or(i64::MAX))
}

fn count(number: usize) -> Value {
    long(number as u64)
}

fn time(at: Timestamp) -> Value {
    Value::new_long(at.unix())
}

fn age(at: Timestamp, now: Timestamp) -> Value {
    Value::new_long(now.unix().saturating_sub(at.unix()).max(0))
}

type Pairs = Vec<(String, Value)>;

fn pairs<const N: usize>(pairs: [(&str, Value); N]) -> Pairs {
    pairs.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The question as Cedar takes it.
pub(super) fn request(action: Action, facts: &Facts) -> Result<(Request, Entities), String> {
    let types = types()?;
    let context = Context::from_pairs(context(types, facts)).map_err(|error| error.to_string())?;
    let action = EntityUid::from_type_name_and_id(types.action.clone(), EntityId::new(action.as_str()));
    let principal = types.nation(&facts.nation);
    let request = Request::new(principal, action, types.release(&facts.release), context, None)
        .map_err(|error| error.to_string())?;
    let mut all = vec![release(types, facts)?];
    let mut known = BTreeMap::new();
    known.insert(&facts.nation, (facts.nation_standing, None));
    known.insert(facts.producer(), (facts.standing, Some(facts.root_expires)));
    for (nation, (standing, expires)) in known {
        let attributes = pairs([
            ("standing", text(&sight::standing(standing))),
            ("own", Value::new_bool(*nation == facts.own)),
            ("rootExpires", Value::new_long(expires.map_or(0, |at| at.unix()))),
        ]);
        let entity = Entity::new_with_tags(types.nation(nation), attributes, [], []);
        all.push(entity.map_err(|error| error.to_string())?);
    }
    let entities = Entities::from_entities(all, None).map_err(|error| error.to_string())?;
    Ok((request, entities))
}

fn release(types: &Types, facts: &Facts) -> Result<Entity, String> {
    let producers: BTreeSet<&Nation> = facts.bases.iter().filter_map(|base| base.producer.as_ref()).collect();
    let none = BTreeSet::new();
    let (all, to) = match &facts.releasable_to {
        Releasable::All => (true, &none),
        Releasable::Nations(nations) => (false, nations),
    };
    let attributes = pairs([
        ("model", text(&facts.model.to_string())),
        ("version", text(facts.version.as_str())),
        ("producer", Value::new_entity_uid(types.nation(facts.producer()))),
        ("format", text(&facts.format)),
        ("licence", text(&facts.licence)),
        ("size", long(facts.size)),
        ("files", count(facts.files)),
        ("issued", time(facts.issued)),
        ("releasableToAll", Value::new_bool(all)),
        ("releasableTo", types.nations(to)),
        ("bases", types.releases(facts.bases.iter().map(|base| &base.release))),
        ("baseProducers", types.nations(producers.iter().copied())),
        ("basesUnknown", Value::new_bool(facts.bases.iter().any(|base| base.producer.is_none()))),
    ]);
    let parents = facts.bases.iter().map(|base| types.release(&base.release));
    let parents = parents.chain(producers.into_iter().chain([facts.producer()]).map(|it| types.nation(it)));
    let tags = facts.attestations.iter().map(|it| {
        let found = pairs([
            ("verdict", text(&it.verdict.to_string())),
            ("issued", time(it.issued)),
            ("age", age(it.issued, facts.now)),
        ]);
        // The names are distinct, so that this is a record and no error; were it one, the tag would be missing.
        let record = Value::new_record(found).unwrap_or_else(|_| text(""));
        (format!("{} {}", it.nation, it.suite), record)
    });
    Entity::new_with_tags(types.release(&facts.release), attributes, parents, tags)
        .map_err(|error| error.to_string())
}

fn context(types: &Types, facts: &Facts) -> Pairs {
    let tally = facts.tally();
    let witnesses = facts.witnesses();
    let unsafe_files = facts.unsafe_files.iter().take(MAX_UNSAFE).map(|file| text(&file.path));
    let mut context = pairs([
        ("now", time(facts.now)),
        ("signers", count(facts.signed_by.len())),
        ("threshold", count(facts.threshold)),
        ("recalled", Value::new_bool(facts.binding_recall().is_some())),
        ("recalledBy", types.nations(facts.recalls.iter().map(|recall| &recall.nation))),
        ("restrictedBases", types.releases(facts.restricted_bases().map(|base| &base.release))),
        ("unsafeFiles", Value::new_set(unsafe_files)),
        ("logged", Value::new_bool(facts.logged.is_some())),
        ("witnesses", count(witnesses.len())),
        ("witnessedBy", types.nations(witnesses)),
        ("witnessesRequired", long(facts.witnesses_required.into())),
        ("passes", count(tally.passed_by.len())),
        ("passedBy", types.nations(&tally.passed_by)),
        ("fails", count(tally.failed_by.len())),
        ("failedBy", types.nations(&tally.failed_by)),
        ("inconclusiveBy", types.nations(&tally.inconclusive_by)),
        ("admitted", Value::new_bool(facts.admitted)),
    ]);
    if let Some(at) = facts.logged.as_ref().and_then(|logged| logged.witnessed) {
        context.push(("witnessedAge".to_owned(), age(at, facts.now)));
    }
    if let Some(age) = facts.lease_age {
        context.push(("leaseAge".to_owned(), Value::new_long(age)));
    }
    context
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use cedar_policy::Schema;

    use super::*;
    use crate::policy::{Base, Found, SCHEMA};
    use crate::statement::Verdict;

    #[test]
    fn what_rules_are_told_is_what_the_schema_says() {
        let schema: Schema = SCHEMA.parse().unwrap();
        let mut facts = Facts::default();
        facts.bases.push(Base {
            release: Digest::of(b"base"),
            producer: Some(Nation::new("borea").unwrap()),
            releasable_to: Some(Releasable::All),
        });
        facts.attestations.push(Found {
            nation: Nation::new("borea").unwrap(),
            suite: "red team/2".into(),
            verdict: Verdict::Pass,
            issued: facts.now,
        });
        facts.logged = Some(crate::log::Logged {
            index: 1,
            size: 2,
            witnesses: BTreeSet::from([Nation::new("borea").unwrap()]),
            witnessed: Some(facts.now),
        });
        facts.lease_age = Some(3);
        for action in Action::ALL {
            let (request, entities) = request(action, &facts).unwrap();
            Entities::from_entities(entities, Some(&schema)).unwrap();
            let pairs = context(types().unwrap(), &facts);
            let context = Context::from_pairs(pairs).unwrap();
            let (principal, action) = (request.principal().unwrap(), request.action().unwrap());
            let resource = request.resource().unwrap();
            Request::new(principal.clone(), action.clone(), resource.clone(), context, Some(&schema))
                .unwrap();
        }
    }
}
