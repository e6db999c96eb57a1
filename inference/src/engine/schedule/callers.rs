//! Who has had how much: the accounts by which the next request is chosen.
//!
//! Each caller has a counter of what was computed for it. The one with the lowest is served next, so that whoever asks
//! for much waits for whoever asks for little, and nobody for ever. A caller that comes (back) begins at the lowest
//! counter of those that are here: having been away earns nothing.

use std::collections::{BTreeMap, VecDeque};

use super::{Caller, Id};

/// What one generated token counts, in prompt tokens: each needs a pass over all weights of its own.
const GENERATED: u64 = 4;

#[derive(Debug, Default)]
struct Account {
    served: u64,
    waiting: VecDeque<Id>,
    running: usize,
}

/// All accounts.
#[derive(Debug, Default)]
pub(super) struct Callers {
    accounts: BTreeMap<Caller, Account>,
}

impl Callers {
    /// Puts a request at the end of its caller's queue, or at the front of it if it was at work before.
    pub(super) fn wait(&mut self, caller: Caller, id: Id, again: bool) {
        let floor = self.accounts.values().map(|account| account.served).min().unwrap_or(0);
        let account =
            self.accounts.entry(caller).or_insert_with(|| Account { served: floor, ..Account::default() });
        if again {
            account.waiting.push_front(id);
        } else {
            account.waiting.push_back(id);
        }
    }

    /// Takes a request out of its caller's queue, to run it or to forget it.
    pub(super) fn leave(&mut self, caller: Caller, id: Id) {
        if let Some(account) = self.accounts.get_mut(&caller) {
            account.waiting.retain(|waiting| *waiting != id);
        }
        self.tidy(caller);
    }

    /// One more runs.
    pub(super) fn run(&mut self, caller: Caller) {
        self.accounts.entry(caller).or_default().running += 1;
    }

    /// One less runs.
    pub(super) fn rest(&mut self, caller: Caller) {
        if let Some(account) = self.accounts.get_mut(&caller) {
            account.running = account.running.saturating_sub(1);
        }
        self.tidy(caller);
    }

    fn tidy(&mut self, caller: Caller) {
        if self
            .accounts
            .get(&caller)
            .is_some_and(|account| account.waiting.is_empty() && account.running == 0)
        {
            self.accounts.remove(&caller);
        }
    }

    /// Tokens were computed for `caller`.
    pub(super) fn charge(&mut self, caller: Caller, prompt: usize, generated: usize) {
        if let Some(account) = self.accounts.get_mut(&caller) {
            account.served += prompt as u64 + GENERATED * generated as u64;
        }
    }

    /// What was computed for `caller`, in prompt tokens.
    pub(super) fn served(&self, caller: Caller) -> u64 {
        self.accounts.get(&caller).map_or(0, |account| account.served)
    }

    /// The requests that could run next, the one that should first: the head of each caller's queue.
    pub(super) fn next(&self) -> Vec<(Caller, Id)> {
        let mut heads: Vec<_> = self
            .accounts
            .iter()
            .filter_map(|(caller, account)| Some((account.served, *caller, *account.waiting.front()?)))
            .collect();
        heads.sort_unstable();
        heads.into_iter().map(|(_, caller, id)| (caller, id)).collect()
    }

    /// How many requests wait.
    pub(super) fn waiting(&self) -> usize {
        self.accounts.values().map(|account| account.waiting.len()).sum()
    }
}
