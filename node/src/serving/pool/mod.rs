//! Several models behind one address: each a worker of its own, loaded when somebody asks for it and unloaded when its memory is
//! needed.
//!
//! ```text
//! client ──► front.rs: whose key, which model ──► plan.rs: let in, or wait, or no ──► pass.rs ──► the model's own worker
//!                                                   │ start, stop
//!                                                load.rs ──► the supervisor's table of workers
//! ```
//!
//! What is loaded and unloaded, and for whom, is decided in [`plan`], without I/O. A member's worker is an ordinary one, at a
//! loopback port of its own: it is sealed, recalled, started again and swapped as any other, and none sees another's weights.

mod error;
mod front;
mod info;
mod listen;
mod load;
mod members;
mod metrics;
mod pass;
mod plan;

use std::collections::{BTreeMap, HashMap};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use registry::serving::{Options, ServeKey, Wall};
use registry::{Digest, Model, Reference, Timestamp, Version};
use tokio::sync::{Notify, Semaphore, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::info::{MemberState, PoolInfo, PoolMember};
use self::members::Member;
use self::plan::{Action, Event, Key, Limits, Manner, Now, Plan, Refusal, State as Stage, Ticket};
use super::{ServingError, Workers};

/// Most pools of a node: each has a port, and all share the machine.
const MAX_POOLS: usize = 16;
/// Most models of a pool: the list of them is shown whole, in errors too.
const MAX_MEMBERS: usize = 64;
/// Most requests of a pool that wait for their model to be loaded; one more is told to come back.
const MAX_WAITING: usize = 256;
/// How long a busy model takes new requests while somebody waits for its memory: loading another one takes seconds, and should be
/// worth it.
const TURN: Duration = Duration::from_secs(10);
/// How long a request waits for room at most: more than most answers take, less than most clients wait.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often it is looked whether there are places for workers, while somebody waits.
const LOOK: Duration = Duration::from_secs(1);
/// How long loading may take whoever asked: the supervisor has a limit of its own.
const LOADING: Duration = Duration::from_secs(3600);
/// The share of what the machine has to give that is left to others, where no budget is named: one part in ten.
const LEFT_TO_OTHERS: u64 = 10;

/// A model that is to be in a pool.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// What was asked for; it is resolved anew at each load.
    pub reference: Reference,
    /// The release that it means now.
    pub release: Digest,
    /// Its model.
    pub model: Model,
    /// Its version.
    pub version: Version,
}

/// How a pool is to be started.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Bytes that its models may need together; by default what the machine has to give, less a tenth.
    pub memory: Option<u64>,
    /// A model that nobody asked for so long is unloaded.
    pub idle: Option<Duration>,
    /// How its workers run.
    pub options: Options,
    /// Walls that they may do without.
    pub allow_missing: Vec<Wall>,
    /// Whether each follows its channel.
    pub follow: bool,
}

/// The pools of a supervisor.
#[derive(Default)]
pub(super) struct Pools {
    last: u64,
    pools: BTreeMap<u64, Pool>,
}

/// A pool. Cheap to clone.
#[derive(Clone)]
pub struct Pool(Arc<Inner>);

struct Inner {
    id: u64,
    workers: Workers,
    address: SocketAddr,
    settings: Settings,
    begun: Instant,
    started: Timestamp,
    state: Mutex<State>,
    keys: watch::Receiver<Vec<ServeKey>>,
    /// Counts changes.
    changed: watch::Sender<u64>,
    wake: Notify,
    /// Room for the bodies of requests, in KiB.
    bodies: Arc<Semaphore>,
    closing: CancellationToken,
}

struct State {
    plan: Plan,
    members: BTreeMap<Key, Member>,
    last_member: Key,
    last_ticket: Ticket,
    waiters: HashMap<Ticket, oneshot::Sender<Result<(), Refusal>>>,
}

/// What a pool may have where nobody says: what this machine has to give at the moment, less a tenth.
pub fn default_budget() -> Option<u64> {
    let available = registry::machine::available_memory()?;
    Some(available - available / LEFT_TO_OTHERS)
}

impl Workers {
    fn pool_table(&self) -> MutexGuard<'_, Pools> {
        // Every change is one assignment.
        self.shared.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a pool of `wanted`; none is loaded yet.
    pub fn open_pool(&self, settings: Settings, wanted: Vec<Wanted>) -> Result<Pool, ServingError> {
        let running = self.pool_table().pools.len();
        if running >= MAX_POOLS {
            return Err(ServingError::TooManyPools(running));
        }
        let address = settings.listen;
        let failed = |source| ServingError::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let budget = settings.memory.or_else(default_budget);
        let limits = Limits {
            budget: budget.unwrap_or(u64::MAX),
            idle: settings.idle,
            waiting: MAX_WAITING,
            turn: TURN,
            patience: PATIENCE,
        };
        let state = State {
            plan: Plan::new(limits),
            members: BTreeMap::new(),
            last_member: 0,
            last_ticket: 0,
            waiters: HashMap::new(),
        };
        let id = {
            let mut table = self.pool_table();
            table.last += 1;
            table.last
        };
        let pool = Pool(Arc::new(Inner {
            id,
            workers: self.clone(),
            address,
            settings,
            begun: Instant::now(),
            started: Timestamp::now(),
            state: Mutex::new(state),
            keys: self.shared.keys.get().cloned().unwrap_or_else(|| watch::channel(Vec::new()).1),
            changed: watch::channel(0).0,
            wake: Notify::new(),
            bodies: Arc::new(Semaphore::new(front::MAX_BODIES)),
            closing: self.shared.stopping.child_token(),
        }));
        for one in wanted {
            pool.add(one)?;
        }
        listen::begin(pool.clone(), listener).map_err(failed)?;
        tokio::spawn(pool.clone().keep_time());
        self.pool_table().pools.insert(id, pool.clone());
        tracing::info!(pool = id, %address, budget = pool.state().plan.budget(), "a pool answers");
        Ok(pool)
    }

    /// Every pool.
    pub fn pools(&self) -> Vec<Pool> {
        self.pool_table().pools.values().cloned().collect()
    }

    /// One pool.
    pub fn pool(&self, id: u64) -> Result<Pool, ServingError> {
        self.pool_table().pools.get(&id).cloned().ok_or(ServingError::NoPool(id))
    }

    /// From here on no pool loads anything, and nobody waits for one.
    pub(super) fn close_pools(&self) {
        let pools = std::mem::take(&mut self.pool_table().pools);
        pools.values().for_each(Pool::close);
    }
}

impl Pool {
    /// Names it within this run of the node.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in it panics between two changes that belong together.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Now {
        self.0.begun.elapsed()
    }

    /// Tells the plan what happened, and does what it says.
    fn tell(&self, event: Event) {
        {
            let mut state = self.state();
            let state = &mut *state;
            let actions = state.plan.handle(event, self.0.begun.elapsed());
            for action in actions {
                self.obey(state, action);
            }
            let plan = &state.plan;
            state.members.retain(|key, _| plan.show(*key).is_some());
        }
        self.0.changed.send_modify(|count| *count += 1);
        self.0.wake.notify_one();
    }

    fn obey(&self, state: &mut State, action: Action) {
        match action {
            Action::LetIn { ticket } => {
                if let Some(waiter) = state.waiters.remove(&ticket) {
                    // Whoever left meanwhile says so.
                    let _ = waiter.send(Ok(()));
                }
            }
            Action::Refuse { ticket, why } => {
                if let Some(waiter) = state.waiters.remove(&ticket) {
                    let _ = waiter.send(Err(why));
                }
            }
            Action::Start { member: key, limit } => {
                if let Some(member) = state.members.get_mut(&key) {
                    let stop = self.0.closing.child_token();
                    member.stop = stop.clone();
                    member.error = None;
                    tokio::spawn(self.clone().load(key, member.reference.clone(), limit, stop));
                }
            }
            Action::Stop { member } => {
                if let Some(member) = state.members.get_mut(&member) {
                    member.unloads += 1;
                    member.stop.cancel();
                }
            }
        }
    }

    /// Tells the plan of the time, when there is something for it to do.
    async fn keep_time(self) {
        loop {
            let (due, waits) = {
                let state = self.state();
                (state.plan.due(self.now()), state.plan.waiting() > 0)
            };
            let look = self.now() + LOOK;
            let due = if waits { Some(due.map_or(look, |due| due.min(look))) } else { due };
            let until = self.0.begun + due.unwrap_or(LOADING.saturating_add(self.now()));
            tokio::select! {
                () = tokio::time::sleep_until(until) => {
                    self.look_for_places();
                    self.tell(Event::Tick);
                }
                () = self.0.wake.notified() => {}
                () = self.0.closing.cancelled() => return,
            }
        }
    }

    /// Tells the plan how many workers it may have: those that there may be, but for those of others.
    fn look_for_places(&self) {
        let own: Vec<u64> = self.state().members.values().filter_map(|member| member.worker).collect();
        let others = self.0.workers.live().into_iter().filter(|(id, ..)| !own.contains(id)).count();
        let most = self.0.workers.shared.settings.max_workers as usize;
        self.tell(Event::Places { places: most.saturating_sub(others) });
    }

    /// Waits until `member` is loaded and may be asked.
    async fn enter(&self, member: Key, manner: Manner, until: Instant) -> Result<Pass, Refusal> {
        let (send, wait) = oneshot::channel();
        let ticket = {
            let mut state = self.state();
            state.last_ticket += 1;
            let ticket = state.last_ticket;
            state.waiters.insert(ticket, send);
            ticket
        };
        let pass = Pass { pool: self.clone(), ticket };
        let is_ready = self.state().plan.show(member).is_some_and(|shown| shown.state == Stage::Ready);
        if !is_ready {
            self.look_for_places();
        }
        let until = until.saturating_duration_since(self.0.begun);
        self.tell(Event::Came { ticket, member, manner, until });
        if self.0.closing.is_cancelled() {
            return Err(Refusal::Removed);
        }
        wait.await.unwrap_or(Err(Refusal::Removed)).map(|()| pass)
    }

    fn close(&self) {
        self.0.closing.cancel();
        self.state().waiters.clear();
    }

    /// Stops it and its workers, and waits until they are gone; how it was last.
    pub async fn stop(&self) -> PoolInfo {
        let last = self.info();
        self.close();
        self.0.workers.pool_table().pools.remove(&self.0.id);
        let mut changed = self.0.changed.subscribe();
        while self.state().members.values().any(|member| member.worker.is_some()) {
            if changed.changed().await.is_err() {
                break;
            }
        }
        tracing::info!(pool = self.0.id, "a pool is stopped");
        last
    }

    /// It as it changes.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Stops it when the guard is dropped, unless it is told to keep it.
    pub fn stop_unless_kept(&self) -> StopGuard {
        StopGuard { pool: Some(self.clone()) }
    }

    /// It and its members.
    pub fn info(&self) -> PoolInfo {
        let state = self.state();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        let shown = |key: &Key, member: &Member| {
            let shown = state.plan.show(*key)?;
            Some(PoolMember {
                reference: member.reference.to_string(),
                model: member.model.clone(),
                release: member.release,
                version: member.version.clone(),
                state: shown.state.into(),
                needs: shown.needs,
                weights: shown.weights,
                memory: shown.has,
                worker: member.worker,
                requests: count(shown.active),
                waiting: count(shown.waiting),
                loads: member.loads,
                unloads: member.unloads,
                error: member.error.clone().or(shown.paused.map(|why| why.words)),
            })
        };
        PoolInfo {
            id: self.0.id,
            address: self.0.address,
            budget: state.plan.budget(),
            used: state.plan.used(),
            idle_secs: self.0.settings.idle.map(|idle| idle.as_secs()),
            follow: self.0.settings.follow,
            waiting: count(state.plan.waiting()),
            started: self.0.started,
            members: state.members.iter().filter_map(|(key, member)| shown(key, member)).collect(),
        }
    }
}

/// A request that was let in, for as long as it is answered.
struct Pass {
    pool: Pool,
    ticket: Ticket,
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.pool.state().waiters.remove(&self.ticket);
        self.pool.tell(Event::Left { ticket: self.ticket });
    }
}

/// See [`Pool::stop_unless_kept`].
pub struct StopGuard {
    pool: Option<Pool>,
}

impl StopGuard {
    /// Lets the pool run.
    pub fn keep(mut self) {
        self.pool = None;
    }
}

impl Drop for StopGuard {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            pool.close();
            pool.0.workers.pool_table().pools.remove(&pool.0.id);
        }
    }
}
