//! The lease on which this node serves: whom it heard, and when that ends ([`registry::lease`] says what counts).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use registry::lease::{Lease, MAX_NATIONS, MAX_SECONDS, Moment, Terms};
use registry::statement::Standing;
use registry::store::Store;
use registry::{Nation, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::ConfigError;
use crate::node::Node;

/// Allies are asked for news so many times within one lease, so that a lost answer does not end it.
const ASKED_PER_LEASE: u64 = 4;
/// The longest and the shortest time between two such rounds.
const SLOWEST: Duration = Duration::from_secs(60);
const FASTEST: Duration = Duration::from_millis(250);
/// Most producers with terms of their own.
const MAX_PRODUCERS: usize = registry::trust::MAX_MEMBERS;

/// The setting `[lease]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Seconds for which this node serves without hearing from enough allies; 0 for ever.
    pub seconds: u64,
    /// How many allied nations are enough.
    pub nations: u32,
    /// Seconds for the models of these producers, where they differ.
    pub producers: BTreeMap<String, u64>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { seconds: 0, nations: 1, producers: BTreeMap::new() }
    }
}

impl Settings {
    /// Checks every value against its range.
    pub fn check(&self) -> Result<(), ConfigError> {
        let refused = |setting, rule| Err(ConfigError::Value { setting, rule });
        for seconds in self.producers.values().chain([&self.seconds]) {
            if *seconds > MAX_SECONDS {
                return refused("lease.seconds", format!("{seconds} is not between 0 and {MAX_SECONDS}"));
            }
        }
        if !(1..=MAX_NATIONS).contains(&self.nations) {
            return refused("lease.nations", format!("{} is not between 1 and {MAX_NATIONS}", self.nations));
        }
        if self.producers.len() > MAX_PRODUCERS {
            return refused("lease.producers", format!("it has more than {MAX_PRODUCERS} entries"));
        }
        match self.producers.keys().find(|name| Nation::new(name).is_err()) {
            Some(_) => refused("lease.producers", "one of its names is no nation's".to_owned()),
            None => Ok(()),
        }
    }

    /// The terms for models of `producer`.
    pub fn terms(&self, producer: &Nation) -> Terms {
        let seconds = self.producers.get(producer.as_str()).copied().unwrap_or(self.seconds);
        Terms { seconds, nations: self.nations }
    }

    /// The shortest lease that any model needs.
    fn shortest(&self) -> Option<u64> {
        self.producers.values().chain([&self.seconds]).copied().filter(|seconds| *seconds > 0).min()
    }
}

/// When an ally was heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Heard {
    /// The ally.
    pub nation: Nation,
    /// Milliseconds ago.
    pub ago_ms: u64,
}

/// The lease as `GET /v1/status` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Seconds for which this node serves without hearing from enough allies; 0 for ever.
    pub seconds: u64,
    /// How many allied nations are enough.
    pub nations: u32,
    /// Seconds for the models of these producers, where they differ.
    pub producers: BTreeMap<String, u64>,
    /// Whether models that need a lease may be served now; true where none is needed.
    pub held: bool,
    /// When the general lease ends.
    pub ends: Option<Timestamp>,
    /// When allies were heard last.
    pub heard: Vec<Heard>,
}

/// Whom this node heard.
#[derive(Debug)]
pub struct Leases {
    settings: Settings,
    store: Store,
    origin: Instant,
    heard: Mutex<BTreeMap<Nation, Moment>>,
    renewed: watch::Sender<u64>,
}

impl Leases {
    /// Nobody was heard yet. That is not kept over a restart: the steady clock begins anew with the machine.
    pub fn new(settings: Settings, store: Store) -> Self {
        let renewed = watch::Sender::new(0);
        Self { settings, store, origin: Instant::now(), heard: Mutex::default(), renewed }
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<Nation, Moment>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present by both clocks.
    pub fn now(&self) -> Moment {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment { steady_ms: ms(self.origin.elapsed()), wall_ms: ms(wall) }
    }

    /// Everything that a node of `nation` knew at `asked` is known here: it was asked then, and answered.
    pub fn heard(&self, nation: Nation, asked: Moment) {
        {
            let mut table = self.table();
            let known = table.entry(nation).or_insert(asked);
            if asked.steady_ms > known.steady_ms {
                *known = asked;
            }
        }
        self.renewed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Tells whenever an ally was heard.
    pub fn renewals(&self) -> watch::Receiver<u64> {
        self.renewed.subscribe()
    }

    /// The lease for models of `producer`. Only nations that are active allies now count.
    pub fn lease(&self, producer: &Nation) -> Lease {
        self.judge(self.settings.terms(producer))
    }

    /// The lease of a worker that serves models of all these producers: the one that ends first, and whose it is.
    pub fn earliest<'a>(&self, producers: impl Iterator<Item = &'a Nation>) -> Option<(&'a Nation, Lease)> {
        producers.map(|producer| (producer, self.lease(producer))).min_by_key(|(_, lease)| match lease {
            Lease::Ended { .. } => 0,
            Lease::Held(end) => end.left_ms.saturating_add(1),
            Lease::NotNeeded => u64::MAX,
        })
    }

    fn judge(&self, terms: Terms) -> Lease {
        terms.judge(&self.store.own(), &self.heard_allies(), self.now())
    }

    /// When each nation that is an active ally now was heard.
    fn heard_allies(&self) -> BTreeMap<Nation, Moment> {
        let trust = self.store.trust();
        let mut heard = self.table().clone();
        heard.retain(|nation, _| {
            trust.member(nation).is_ok_and(|member| member.standing() == Standing::Active)
        });
        heard
    }

    /// Seconds since enough allies were heard for models of `producer`, as rules may ask; nothing where no lease is in use.
    pub fn age(&self, producer: &Nation) -> Option<i64> {
        let terms = self.settings.terms(producer);
        let age = terms.age(&self.store.own(), &self.heard_allies(), self.now())?;
        i64::try_from(age).ok()
    }

    /// Lets the store's decisions ask for it, for as long as this lives.
    pub fn tell(self: &Arc<Self>) {
        let leases = Arc::downgrade(self);
        self.store.set_lease_age(Arc::new(move |producer: &Nation| leases.upgrade()?.age(producer)));
    }

    /// Why nothing of `producer` is served, for people.
    pub fn why(&self, producer: &Nation, heard: u32) -> String {
        let Terms { seconds, nations } = self.settings.terms(producer);
        format!(
            "a model of `{producer}` is served only while {nations} allied nation(s) were heard within {seconds} s, and {heard} were; it is served again when they are reached (`steelyard peers` shows who is connected)"
        )
    }

    /// The lease as it is shown.
    pub fn status(&self) -> Status {
        let Settings { seconds, nations, producers } = self.settings.clone();
        let now = self.now();
        let ago = |moment: &Moment| now.steady_ms.saturating_sub(moment.steady_ms);
        let heard = self.table().clone();
        let mut heard: Vec<Heard> =
            heard.iter().map(|(nation, at)| Heard { nation: nation.clone(), ago_ms: ago(at) }).collect();
        heard.sort_by_key(|heard| heard.ago_ms);
        let (held, ends) = match self.judge(Terms { seconds, nations }) {
            Lease::NotNeeded => (true, None),
            Lease::Held(end) => (true, i64::try_from(end.ends_ms / 1000).ok().map(Timestamp::from_unix)),
            Lease::Ended { .. } => (false, None),
        };
        Status { seconds, nations, producers, held, ends, heard }
    }
}

/// Asks the allies for news often enough that the lease does not end while they can be reached.
pub(crate) async fn keep(node: Node) {
    let Some(shortest) = node.config().lease.shortest() else { return };
    let pause =
        Duration::from_millis(shortest.saturating_mul(1000) / ASKED_PER_LEASE).clamp(FASTEST, SLOWEST);
    loop {
        tokio::time::sleep(pause).await;
        for (peer, _) in node.book().connected() {
            crate::sync::kick(&node, peer);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn producers_may_have_terms_of_their_own() {
        let settings: Settings = toml::from_str("seconds = 60\nproducers = { alba = 5, cora = 0 }").unwrap();
        settings.check().unwrap();
        let seconds = |name: &str| settings.terms(&Nation::new(name).unwrap()).seconds;
        assert_eq!((seconds("alba"), seconds("borea"), seconds("cora")), (5, 60, 0));
        assert_eq!(settings.shortest(), Some(5));
        assert_eq!(Settings::default().shortest(), None);
        for wrong in ["seconds = 99999999", "nations = 0", "producers = { Alba = 1 }"] {
            assert!(toml::from_str::<Settings>(wrong).unwrap().check().is_err(), "{wrong}");
        }
    }
}
