//! The words that a rule's sentences may hold in braces, and what they become.

use super::Facts;
use crate::reference::Nation;
use crate::statement::Standing;

/// Names told in one sentence before the rest is only counted.
const MAX_TOLD: usize = 8;
/// Longest foreign text (a recall's reason, a path) in one sentence, in characters.
const MAX_QUOTED: usize = 400;

/// How a nation stands, in a word.
pub(super) fn standing(standing: Option<Standing>) -> String {
    standing.map_or_else(|| "unknown".to_owned(), |standing| standing.to_string())
}

/// Every word that a sentence may hold in braces.
pub(super) const WORDS: [&str; 28] = [
    "producer",
    "nation",
    "own",
    "model",
    "version",
    "release",
    "format",
    "licence",
    "standing",
    "nation-standing",
    "root-expires",
    "root-ends",
    "admitted-before",
    "signers",
    "threshold",
    "signed-by",
    "releasable-to",
    "restricted-bases",
    "recall",
    "recalled-by",
    "unsafe-files",
    "logged",
    "witnesses-required",
    "passes",
    "passed-by",
    "fails",
    "failed-by",
    "lease-age",
];

/// What `word` becomes; nothing when it is not one of [`WORDS`].
fn word(facts: &Facts, word: &str) -> Option<String> {
    Some(match word {
        "producer" => facts.producer().to_string(),
        "nation" => facts.nation.to_string(),
        "own" => facts.own.to_string(),
        "model" => facts.model.to_string(),
        "version" => facts.version.to_string(),
        "release" => facts.release.to_string(),
        "format" => facts.format.clone(),
        "licence" => quoted(&facts.licence),
        "standing" => standing(facts.standing),
        "nation-standing" => standing(facts.nation_standing),
        "root-expires" => facts.root_expires.to_string(),
        "root-ends" => {
            if facts.root_expires > facts.now { "is valid until" } else { "expired at" }.to_owned()
        }
        "admitted-before" => if facts.admitted { "; this was admitted before" } else { "" }.to_owned(),
        "signers" => facts.signed_by.len().to_string(),
        "threshold" => facts.threshold.to_string(),
        "signed-by" => listed(facts.signed_by.iter().map(String::as_str), "nobody"),
        "releasable-to" => listed_nations(&facts.releasable_to.to_string()),
        "restricted-bases" => listed(
            facts.restricted_bases().map(restricted).collect::<Vec<_>>().iter().map(String::as_str),
            "nothing",
        ),
        "recall" => recall(facts),
        "recalled-by" => names(facts.recalls.iter().map(|recall| &recall.nation), "nobody"),
        "unsafe-files" => unsafe_files(facts),
        "logged" => logged(facts),
        "witnesses-required" => match facts.witnesses_required {
            1 => "1 other nation".to_owned(),
            n => format!("{n} other nations"),
        },
        "passes" => facts.tally().passed_by.len().to_string(),
        "passed-by" => names(&facts.tally().passed_by, "nobody"),
        "fails" => facts.tally().failed_by.len().to_string(),
        "failed-by" => names(&facts.tally().failed_by, "nobody"),
        "lease-age" => {
            facts.lease_age.map_or_else(|| "no lease is in use".to_owned(), |age| format!("{age} s"))
        }
        _ => return None,
    })
}

/// The parts of a sentence: text, and words in braces.
pub(super) fn parts(text: &str) -> Result<Vec<Part<'_>>, String> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let (before, brace) = rest.split_at(at);
        let inner = brace.strip_prefix('{').and_then(|inner| inner.split_once('}'));
        let Some((name, after)) = inner else {
            return Err("a brace that does not belong to a word such as `{producer}`".to_owned());
        };
        if !WORDS.contains(&name) {
            return Err(format!("`{{{}}}` is no known word; {} are", crate::shorten(name), WORDS.join(", ")));
        }
        parts.extend((!before.is_empty()).then_some(Part::Text(before)));
        parts.push(Part::Word(name));
        rest = after;
    }
    parts.extend((!rest.is_empty()).then_some(Part::Text(rest)));
    Ok(parts)
}

/// A part of a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part<'a> {
    Text(&'a str),
    Word(&'a str),
}

/// A rule's sentence with its words filled in.
pub(super) fn say(text: &str, facts: &Facts) -> String {
    let Ok(parts) = parts(text) else { return text.to_owned() };
    let mut out = String::new();
    for part in parts {
        match part {
            Part::Text(text) => out.push_str(text),
            Part::Word(name) => out.push_str(&word(facts, name).unwrap_or_default()),
        }
    }
    out
}

fn quoted(text: &str) -> String {
    let mut out: String = text.chars().take(MAX_QUOTED).collect();
    if text.chars().nth(MAX_QUOTED).is_some() {
        out.push('…');
    }
    out
}

fn listed<'a>(items: impl Iterator<Item = &'a str>, none: &str) -> String {
    let all: Vec<&str> = items.collect();
    match all.get(..MAX_TOLD) {
        _ if all.is_empty() => none.to_owned(),
        Some(told) if all.len() > MAX_TOLD => {
            format!("{} and {} more", told.join(", "), all.len() - MAX_TOLD)
        }
        _ => all.join(", "),
    }
}

fn listed_nations(text: &str) -> String {
    listed(text.split(", "), "nobody else")
}

fn names<'a>(nations: impl IntoIterator<Item = &'a Nation>, none: &str) -> String {
    listed(nations.into_iter().map(Nation::as_str), none)
}

fn restricted(base: &super::Base) -> String {
    let producer = base.producer.as_ref().map_or("somebody", Nation::as_str);
    format!("{} of {producer}", base.release)
}

fn recall(facts: &Facts) -> String {
    let Some(recall) = facts.binding_recall().or(facts.recalls.first()) else {
        return "not recalled".to_owned();
    };
    format!(
        "recalled by {} at {} ({}): {}",
        recall.nation,
        recall.issued,
        recall.severity,
        quoted(&recall.reason)
    )
}

fn unsafe_files(facts: &Facts) -> String {
    match facts.unsafe_files.as_slice() {
        [] => "no file runs code when it is loaded".to_owned(),
        [first, rest @ ..] => {
            let more = if rest.is_empty() { String::new() } else { format!(" (and {} more)", rest.len()) };
            format!("{}: {}{more}", quoted(&first.path), first.why)
        }
    }
}

fn logged(facts: &Facts) -> String {
    let Some(logged) = &facts.logged else {
        return match facts.own == *facts.producer() {
            true => "it is our own".to_owned(),
            false => format!("its place in the log of {} is not proved here", facts.producer()),
        };
    };
    let witnesses = facts.witnesses();
    let by = names(witnesses.iter().copied(), "no other nation");
    format!("entry {} of the log of {}, witnessed by {by}", logged.index, facts.producer())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_word_becomes_something_and_no_other_is_known() {
        let facts = Facts::default();
        for name in WORDS {
            assert!(
                word(&facts, name).is_some_and(|text| !text.is_empty() || name == "admitted-before"),
                "{name}"
            );
        }
        assert_eq!(word(&facts, "king"), None);
        assert_eq!(say("made by {producer}, {fails} fail", &facts), "made by alba, 0 fail");
        for broken in ["{king}", "{producer", "producer}", "{{producer}}", "{}"] {
            assert!(parts(broken).is_err(), "{broken}");
        }
        assert_eq!(
            parts("a{nation}{own}").unwrap(),
            [Part::Text("a"), Part::Word("nation"), Part::Word("own")]
        );
    }
}
