//! What is handed in of a release that is still coming, and the worker's first process.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::{Duration, Instant};

use registry::admitted::AdmittedFile;
use registry::lease::Lease;
use registry::serving::hand;
use registry::store::{Store, StoreError};
use registry::{Digest, Timestamp};
use rustix::fs::OFlags;

use super::{Fed, Growing, LOOK_CLOSELY, News, decide, next};
use crate::events::{StopCause, WorkerState};
use crate::node::{Node, PullError, blocking};
use crate::serving::process::Process;
use crate::serving::run::{Run, told};
use crate::serving::{StopOrder, refusal};
use crate::transfer::serve::changed;

/// How long after its chunk map a file is made here that the transfer has not come to yet.
const MAKE_AFTER: Duration = Duration::from_millis(500);

impl Run {
    /// Waits until the release's files can be handed in, and starts a process for them; nothing when it is over before.
    pub(in crate::serving) async fn when_gathered(&mut self, node: &Node) -> Option<Process> {
        let release = self.told.borrow().release;
        let files = self.launch.admitted.files().to_vec();
        let gathered = gather(node, release, &files);
        tokio::pin!(gathered);
        self.tell(|info| info.state = WorkerState::Fetching);
        self.growing = loop {
            tokio::select! {
                order = self.stops.recv() => {
                    self.feed = None;
                    self.stopped_between(order);
                    return None;
                }
                news = next(&mut self.feed) => match news {
                    News::Shown(transfer) => self.tell(|info| info.transfer = transfer),
                    News::Fed(Fed::Failed(error)) => {
                        match self.why_not(error).await {
                            Ok(order) => self.stopped_between(Some(order)),
                            Err(why) => self.failed(why),
                        }
                        self.listener.close();
                        return None;
                    }
                    // Nobody said yet what it needs.
                    News::Fed(_) => {}
                },
                gathered = &mut gathered => match gathered {
                    Ok(growing) => break growing,
                    Err(error) => {
                        self.listener.close();
                        self.failed(format!("what is fetched of its release can't be opened: {error}"));
                        return None;
                    }
                },
            }
        };
        self.ready_to_spawn(release).await?;
        match self.spawn() {
            Ok(process) => {
                let pid = process.child.id();
                self.told.send_modify(|info| info.pid = pid);
                Some(process)
            }
            Err(error) => {
                self.listener.close();
                self.failed(error.to_string());
                None
            }
        }
    }

    /// What must hold before a process is started; nothing when it is over.
    async fn ready_to_spawn(&mut self, release: Digest) -> Option<()> {
        // A worker that is handed nothing that grows waits for no word.
        if self.growing.is_empty()
            && let Err(error) = decide(&self.store, release).await
        {
            let (cause, reason, known) = (StopCause::Withdrawn, error.to_string(), Instant::now());
            self.stopped_between(Some(StopOrder { cause, reason, known }));
            return None;
        }
        if let Some(feed) = self.feed.as_mut().filter(|_| self.growing.is_empty()) {
            feed.wants(Vec::new());
            feed.whole = true;
        }
        // Time has passed since it was asked for.
        if let held @ Lease::Held(_) = self.leases.lease(self.launch.admitted.producer()) {
            let (lease, ends) = told(held);
            self.launch.lease = lease;
            self.told.send_modify(|info| info.lease_ends = ends);
        }
        Some(())
    }

    /// Why its release did not come: an order to stop where it may not be served any more, else an error for people.
    pub(in crate::serving) async fn why_not(&self, error: PullError) -> Result<StopOrder, String> {
        let known = Instant::now();
        if matches!(error, PullError::Policy(_)) {
            let (store, release) = (self.store.clone(), self.told.borrow().release);
            let looked = tokio::task::spawn_blocking(move || refusal(&store, &release, Timestamp::now()));
            let (cause, reason) =
                looked.await.ok().flatten().unwrap_or((StopCause::Withdrawn, error.to_string()));
            return Ok(StopOrder { cause, reason, known });
        }
        Err(format!(
            "its release did not come: {error}. What came is kept, and serving it again goes on with it"
        ))
    }
}

/// Waits until every file that is handed in is there in its full length, whether its bytes are or not. What is whole is left out.
async fn gather(node: &Node, release: Digest, files: &[AdmittedFile]) -> Result<Growing, StoreError> {
    let mut left: Vec<(Digest, Digest)> =
        hand::chosen(files).into_iter().map(|(_, file)| (file.blob, file.chunk_map)).collect();
    let mut growing = Growing::new();
    let mut since: BTreeMap<Digest, Instant> = BTreeMap::new();
    loop {
        let store = node.store().clone();
        (left, growing, since) = blocking(move || {
            let mut rest = Vec::new();
            for (blob, map) in left {
                if store.has_blob(&blob) || growing.contains_key(&blob) {
                    continue;
                }
                match open(&store, blob, map, &mut since)? {
                    Some(file) => drop(growing.insert(blob, file)),
                    None => rest.push((blob, map)),
                }
            }
            Ok::<_, StoreError>((rest, growing, since))
        })
        .await?;
        if left.is_empty() {
            return Ok(growing);
        }
        let mut changes = node.sources().get(&release).map(|source| source.changes());
        tokio::select! {
            () = changed(&mut changes) => {}
            () = tokio::time::sleep(LOOK_CLOSELY) => {}
        }
    }
}

/// The file of a blob that a transfer has open, or, once it is known how long that is, one that it will take up.
fn open(
    store: &Store,
    blob: Digest,
    map: Digest,
    since: &mut BTreeMap<Digest, Instant>,
) -> Result<Option<File>, StoreError> {
    if let Some(file) = store.open_growing(&blob)? {
        return Ok(read_only(file));
    }
    if since.get(&blob).is_none_or(|since| since.elapsed() < MAKE_AFTER) {
        if !since.contains_key(&blob) && store.chunk_map(&map)?.is_some() {
            since.insert(blob, Instant::now());
        }
        return Ok(None);
    }
    let Some(map) = store.chunk_map(&map)? else { return Ok(None) };
    match store.partial(&map) {
        // It has room set aside, and stays the same file when the transfer comes to it.
        Ok(_partial) => Ok(store.open_growing(&blob)?.and_then(read_only)),
        Err(StoreError::InUse(_) | StoreError::Present(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// A descriptor that is given away may be read and nothing else. It may be the writer's own for the moment in which a file is put in
/// its place; then it is whole at the next look.
fn read_only(file: File) -> Option<File> {
    let flags = rustix::fs::fcntl_getfl(&file).ok()?;
    (flags & OFlags::ACCMODE == OFlags::RDONLY).then_some(file)
}
