//! How near a root's end is: people are told long before, since a new root needs several of them in one place.

use serde::{Deserialize, Serialize};

use crate::timestamp::{DAY, Timestamp};

/// Days before the end at which a warning begins or grows: time to plan a ceremony, to hold it, and to drop everything else.
const STEPS: [(i64, Ending); 3] = [(7, Ending::Urgent), (30, Ending::Soon), (90, Ending::Planned)];

/// How near the end is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// More than 90 days away.
    #[default]
    Far,
    /// Within 90 days: the next ceremony should have a date.
    Planned,
    /// Within 30 days.
    Soon,
    /// Within 7 days.
    Urgent,
    /// It has come.
    Ended,
}

impl Ending {
    /// How near `expires` is at `now`.
    pub fn of(expires: Timestamp, now: Timestamp) -> Self {
        if expires <= now {
            return Self::Ended;
        }
        let within = |(days, _): &&(i64, Self)| expires <= now.plus(days * DAY);
        STEPS.iter().find(within).map_or(Self::Far, |(_, ending)| *ending)
    }
}
