//! Doing what the plan decides.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use registry::store::StoreError;
use tokio::time::Instant;

use super::sources::ALONE;
use super::{Own, Running};
use crate::events::PeerState;
use crate::node::blocking;
use crate::transfer::PullError;
use crate::transfer::fetch::Job;
use crate::transfer::plan::{Action, Event as Happened, FileKey, PeerKey};

/// Between two tries to open a blob that another transfer fetches.
const IN_USE: Duration = Duration::from_millis(500);

impl Running<'_> {
    /// Tells the plan and does what it decides.
    pub(super) fn happened(&mut self, event: Happened) -> Result<(), PullError> {
        let now = self.now();
        let mut todo: VecDeque<Action> = self.plan.handle(event, now).into();
        while let Some(action) = todo.pop_front() {
            match action {
                Action::Open { file } => self.open(file),
                Action::Fetch { peer, request, file, first, count } => {
                    let given = self.partials.get(&file).cloned().is_some_and(|partial| {
                        self.give(peer, Job::Chunks { request, file, first, count, partial })
                    });
                    if !given {
                        todo.extend(self.plan.handle(Happened::Lost { peer }, now));
                    }
                }
                Action::Cancel { peer, request } => {
                    if let Some(peer) = self.sources.peers.get(&peer) {
                        peer.cancels.add(request);
                    }
                }
                Action::Leave { peer } => {
                    if let Some(gone) = self.sources.remove(peer, PeerState::Gone) {
                        tracing::info!(peer = %gone.id, "a source brings too little and is left");
                        self.sources.last_why = Some(format!("peer {} brought next to nothing", gone.id));
                        // It may be better later, but it is not waited for.
                        self.sources.later.insert(gone.id, Instant::now() + ALONE);
                        self.wanted_maps.extend(gone.maps);
                    }
                }
                Action::Complete { file } => self.complete(file),
            }
        }
        Ok(())
    }

    fn give(&self, key: PeerKey, job: Job) -> bool {
        self.sources.peers.get(&key).is_some_and(|peer| peer.jobs.try_send(job).is_ok())
    }

    fn open(&self, file: FileKey) {
        let Some(map) = self.maps.get(&file).cloned() else { return };
        let (store, sender, cancel) =
            (self.node.store().clone(), self.sender.clone(), self.transfer.cancel.clone());
        let release = self.digest;
        self.node.spawn("open", async move {
            let result = loop {
                let (store, map) = (store.clone(), Arc::clone(&map));
                let opened = blocking(move || match store.partial(&map) {
                    Ok(partial) => {
                        let partial = partial.under(release);
                        // Before anything is asked of a peer: what lies in other blobs need not travel.
                        let reused = partial.take_local(&mut |_| {})?;
                        for blob in &reused.damaged {
                            tracing::warn!(
                                "blob {blob} is damaged on the disk; `steelyard verify` names the place"
                            );
                        }
                        Ok(Some((partial, reused.bytes)))
                    }
                    Err(StoreError::Present(_)) => Ok(None),
                    Err(error) => Err(error),
                });
                match opened.await {
                    // Another release that shares the blob is being fetched: wait for that.
                    Err(StoreError::InUse(_)) if !cancel.is_cancelled() => tokio::time::sleep(IN_USE).await,
                    result => break result,
                }
            };
            let _ = sender.send(Own::Opened { file, result }).await;
        });
    }

    fn complete(&mut self, file: FileKey) {
        let Some(partial) = self.partials.get(&file).cloned() else { return };
        self.verifying.insert(file);
        let sender = self.sender.clone();
        self.node.spawn("finish", async move {
            let result = blocking(move || partial.finish()).await;
            let _ = sender.send(Own::Finished { file, result }).await;
        });
    }
}
