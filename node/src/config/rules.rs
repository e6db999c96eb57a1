//! What mirror rules may look like.

use super::{ConfigError, shown};
use crate::mirror::rule::{MAX_LIST, MAX_RULE_NAME, MAX_RULES, Rule};

/// Refuses rules that are too many or too long, and two of one name.
pub(super) fn check(rules: &[Rule]) -> Result<(), ConfigError> {
    let refused = |rule| Err(ConfigError::Value { setting: "mirror", rule });
    if rules.len() > MAX_RULES {
        return refused(format!("{} rules are over the limit of {MAX_RULES}", rules.len()));
    }
    let mut titles = std::collections::BTreeSet::new();
    for (place, rule) in rules.iter().enumerate() {
        let title = rule.title(place);
        if title.chars().count() > MAX_RULE_NAME || title.chars().any(char::is_control) {
            let rule =
                format!("`{}` is no name: at most {MAX_RULE_NAME} characters in a line", shown(&title));
            return refused(rule);
        }
        let longest = rule.nations.len().max(rule.models.len()).max(rule.channels.len());
        if longest > MAX_LIST {
            return refused(format!("a list of {longest} in `{title}` is over the limit of {MAX_LIST}"));
        }
        if !titles.insert(title.clone()) {
            return refused(format!("two rules are called `{title}`"));
        }
    }
    Ok(())
}
