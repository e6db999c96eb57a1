//! The policy in force, why it decides as it does, and the model card.

use std::io::Read;

use axum::Json;
use axum::extract::State;
use registry::policy::{Action, Policy, Rule};
use registry::store::Store;
use registry::{Digest, Nation, Timestamp};
use serde::Deserialize;

use super::guard::{Body, Path, Query};
use super::stream::blocking;
use super::types::{Card, Explained, PolicyCheckRequest, PolicyChecked, PolicyRule, PolicyText, PolicyView};
use super::{Api, catalogue};
use crate::error::{Code, Problem};

type Answer<T> = Result<Json<T>, Problem>;

/// Most bytes of a model card that are shown: the longest in use are a fifth of that.
const MAX_CARD: u64 = 256 * 1024;

fn rule(rule: &Rule) -> PolicyRule {
    let (file, line) = rule.place.clone();
    PolicyRule {
        rule: rule.id.clone(),
        forbids: rule.forbids,
        actions: rule.actions.clone(),
        file,
        line,
        advice: rule.advice.clone(),
    }
}

pub(super) async fn show(State(api): State<Api>) -> Json<PolicyView> {
    let policy = api.store().policy();
    let text = |(name, text): &(String, String)| PolicyText { name: name.clone(), text: text.clone() };
    Json(PolicyView {
        digest: policy.digest(),
        witnesses: policy.witnesses(),
        texts: policy.texts().iter().map(text).collect(),
        rules: policy.rules().iter().map(rule).collect(),
        error: api.node().policy_error(),
    })
}

#[derive(Deserialize)]
pub(super) struct ExplainQuery {
    #[serde(rename = "ref")]
    reference: String,
    action: Option<Action>,
    #[serde(rename = "as")]
    nation: Option<Nation>,
}

pub(super) async fn explain(State(api): State<Api>, Query(query): Query<ExplainQuery>) -> Answer<Explained> {
    let store = api.store().clone();
    Ok(Json(blocking(move || explained(&store, &query)).await?))
}

fn explained(store: &Store, query: &ExplainQuery) -> Result<Explained, Problem> {
    let resolved = catalogue::resolve(store, &query.reference)?;
    let own = store.own();
    let nation = query.nation.clone().unwrap_or_else(|| own.clone());
    // Whoever asks about another nation asks whether it may have it.
    let action = query.action.unwrap_or(if nation == own { Action::Admit } else { Action::Release });
    let (_, facts) = registry::admit::facts(store, &nation, &resolved.release, Timestamp::now())?;
    let policy = store.policy();
    let decision = policy.decide(action, &facts);
    let answered = |rule: &&Rule| decision.checks.iter().any(|check| check.rule == rule.id);
    let rules = policy.rules().iter().filter(answered).map(rule).collect();
    Ok(Explained {
        release: resolved.release,
        model: resolved.model,
        version: resolved.version,
        action,
        nation,
        decision,
        rules,
        evidence: facts,
    })
}

pub(super) async fn check(
    State(api): State<Api>,
    Body(request): Body<PolicyCheckRequest>,
) -> Answer<PolicyChecked> {
    let settings = api.node().config().policy.clone();
    let checked = blocking(move || {
        let alone = !request.shipped.unwrap_or(settings.shipped);
        let name = if request.name.is_empty() { "the text".to_owned() } else { request.name };
        Ok(match Policy::own(&name, &request.text, alone, settings.witnesses) {
            Ok(policy) => {
                PolicyChecked { name, sound: true, rules: policy.rules().len(), problems: Vec::new() }
            }
            Err(error) => PolicyChecked { name, sound: false, rules: 0, problems: error.problems },
        })
    });
    Ok(Json(checked.await?))
}

pub(super) async fn card(State(api): State<Api>, Path(digest): Path<String>) -> Answer<Card> {
    let digest: Digest = digest.parse()?;
    let store = api.store().clone();
    Ok(Json(blocking(move || read_card(&store, &digest)).await?))
}

fn read_card(store: &Store, digest: &Digest) -> Result<Card, Problem> {
    let missing = |what: &str| Problem::new(Code::NotFound, what);
    let release = store.release(digest)?.ok_or_else(|| missing("the release is not known here"))?;
    let path = release.model_card.clone().ok_or_else(|| missing("the release has no model card"))?;
    let file = release.file(&path).ok_or_else(|| missing("the model card is not among the files"))?;
    if !store.has_blob(&file.blake3) {
        return Err(missing("the model card is not here yet").hint("`steelyard pull` fetches it"));
    }
    let mut bytes = Vec::new();
    let read = store.open_blob(&file.blake3)?.take(MAX_CARD).read_to_end(&mut bytes);
    read.map_err(|error| Problem::new(Code::Disk, format!("the model card can't be read: {error}")))?;
    Ok(Card { path, size: file.size, text: plain(&bytes), truncated: file.size > MAX_CARD })
}

/// Foreign text as a terminal or a page may show it: lines and tabs stay, everything else that controls or reorders goes.
fn plain(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let reorders = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !(c.is_control() || reorders(*c))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_can_t_speak_to_the_terminal() {
        let shown = plain(b"# A\tcard\r\n\x1b[2J\x1b]0;owned\x07\x00x\xc2\x9b31m \xe2\x80\xaeevil\xff\n");
        assert_eq!(shown, "# A\tcard\n[2J]0;ownedx31m evil\u{fffd}\n");
    }
}
