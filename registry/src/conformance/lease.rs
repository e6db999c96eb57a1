//! Document 10: how long a lease holds.

use std::collections::BTreeMap;

use crate::Nation;
use crate::lease::{Lease, Moment, Terms};
use serde_json::{Value, json};

use super::{Outcome, Runner, broken, items, number, parsed};

pub(super) const KINDS: &[(&str, Runner)] = &[("lease", lease)];

fn moment(value: &Value) -> Result<Moment, String> {
    Ok(Moment { steady_ms: number(&value[0])?, wall_ms: number(&value[1])? })
}

fn lease(input: &Value) -> Outcome {
    let own: Nation = parsed(input, "own")?;
    let known: Vec<&str> = items(input, "known")?.iter().filter_map(Value::as_str).collect();
    let heard = input["heard"].as_object().ok_or_else(|| broken("nobody is said to be heard or not"))?;
    // Who is pinned is the caller's to know.
    let heard = heard
        .iter()
        .filter(|(name, _)| known.contains(&name.as_str()))
        .map(|(name, at)| Ok((Nation::new(name).map_err(broken)?, moment(at)?)))
        .collect::<Result<BTreeMap<_, _>, String>>()?;
    let nations = u32::try_from(number(&input["nations"])?).map_err(broken)?;
    let terms = Terms { seconds: number(&input["seconds"])?, nations };
    Ok(match terms.judge(&own, &heard, moment(&input["now"])?) {
        Lease::NotNeeded => json!({ "state": "not-needed" }),
        Lease::Held(end) => json!({ "state": "held", "leftMs": end.left_ms }),
        Lease::Ended { heard } => json!({ "state": "ended", "heard": heard }),
    })
}
