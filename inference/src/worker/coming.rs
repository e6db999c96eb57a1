//! From what the node handed in to files that may be loaded, whether they are whole or still coming.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use registry::admitted::{Admitted, AdmittedFile};
use registry::serving::Report;

use super::launch::Taken;
use super::{Adapter, Loader, WorkerError};
use crate::engine::{self, AdapterFiles, EngineError, Files, Plan};
use crate::gate::growing::Stream;
use crate::gate::{self, GateError, Opened, VerifiedFile, writers};
use crate::halt::Halt;

/// How long a file that is whole may still be open for writing by whoever fetched it.
const WRITER_LEAVES: Duration = Duration::from_secs(1);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(20);

impl Loader {
    /// Checks every file that is `wanted`, in that order, and those of the adapters. Those that are whole are hashed; of those that are still coming, each
    /// chunk as it lands. Whether the model can be served at all is said as soon as its headers are here.
    pub(super) fn verify(
        &mut self,
        admitted: &Admitted,
        plan: &Plan<'_>,
        wanted: &[&AdmittedFile],
        total: u64,
    ) -> Result<Files, WorkerError> {
        let adapters = self.take_adapters(plan)?;
        let (mut opened, mut growing) = (Vec::new(), BTreeMap::new());
        for file in wanted {
            let place = admitted.files().iter().position(|known| known.path == file.path);
            match (self.shelf.take(file)?, place) {
                (Taken::Whole(whole), _) => opened.push(whole),
                (Taken::Growing(comes), Some(place)) => drop(growing.insert(place, *comes)),
                (Taken::Growing(_), None) => return Err(WorkerError::protocol("a file of no release")),
            }
        }
        // Nobody has them open for writing from here on.
        let mut held = hold(&opened, &self.halt)?;
        for (_, opened) in &adapters {
            held.extend(hold(opened, &self.halt)?);
        }
        if let Some(ear) = self.ear.take() {
            self.runtime.spawn(ear.listen(held, self.halt.clone()));
        }
        let adapters = adapters.into_iter().map(|(name, opened)| {
            Ok(AdapterFiles { name, files: gate::verify_all(opened, &|_| {}, &self.halt)? })
        });
        let adapters = adapters.collect::<Result<Vec<_>, GateError>>()?;
        let reporter = self.reporter.clone();
        if growing.is_empty() {
            if self.grows {
                // What is still coming of the release is not computed on.
                reporter.send(&Report::Wants { files: Vec::new() });
            }
            let progress = |done| reporter.verifying(done, total);
            return Ok(Files { model: gate::verify_all(opened, &progress, &self.halt)?, adapters });
        }
        let stream = Stream::new(growing, self.arrivals.clone(), self.halt.clone());
        reporter.send(&Report::Wants { files: stream.wanted() });
        let (whole, came) = (AtomicU64::new(0), AtomicU64::new(0));
        let tell = || reporter.verifying(whole.load(Ordering::Relaxed) + came.load(Ordering::Relaxed), total);
        let count = |of: &AtomicU64, done: u64| {
            of.fetch_max(done, Ordering::Relaxed);
            tell();
        };
        let (checked, copies) = stream.run(&|done| count(&came, done), || {
            let checked = gate::verify_all(opened, &|done| count(&whole, done), &self.halt)?;
            self.look_early(plan, &checked, &stream)?;
            Ok::<_, WorkerError>(checked)
        })?;
        let mut files: BTreeMap<String, VerifiedFile> = copies;
        files.extend(checked.into_iter().map(|file| (file.path().to_owned(), file)));
        // Each was wanted once, and checked.
        Ok(Files { model: wanted.iter().filter_map(|file| files.remove(&file.path)).collect(), adapters })
    }

    /// Takes what the engine needs of each adapter, by its name.
    fn take_adapters(&mut self, plan: &Plan<'_>) -> Result<Vec<(String, Vec<Opened>)>, WorkerError> {
        let mut taken = Vec::new();
        for (number, Adapter { admitted, .. }) in (1..).zip(&self.adapters) {
            let name = format!("{}@{}", admitted.model(), admitted.version());
            let wanted = plan.adapter_files(&name, admitted.files())?;
            let opened = wanted.iter().map(|file| self.shelf.take_whole(number, file));
            taken.push((name, opened.collect::<Result<_, _>>()?));
        }
        Ok(taken)
    }

    /// Whether the model fits and its headers are understood, before the rest of it came.
    fn look_early(
        &self,
        plan: &Plan<'_>,
        checked: &[VerifiedFile],
        stream: &Stream,
    ) -> Result<(), EngineError> {
        let open = |wanted: &AdmittedFile| -> io::Result<Box<dyn engine::Source + '_>> {
            if let Some(reader) = stream.reader(&wanted.path) {
                return Ok(Box::new(io::BufReader::new(reader)));
            }
            let file = checked.iter().find(|file| file.path() == wanted.path);
            let mut reader = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?.reader();
            io::Seek::rewind(&mut reader)?;
            Ok(Box::new(reader))
        };
        let memory = engine::estimate(plan, &self.options, &open)?;
        self.reporter.send(&Report::Needs { bytes: memory.total() });
        engine::check(memory, &self.options, self.memory(plan, stream))
    }

    /// Memory that there is for loading: an engine that does not map the copies needs room beside them.
    fn memory(&self, plan: &Plan<'_>, stream: &Stream) -> Option<u64> {
        let copies = if plan.maps() { 0 } else { stream.size() };
        engine::memory_at_start().map(|available| available.saturating_sub(copies))
    }
}

/// Takes a lease on each file. Whoever fetched one just now may have it open for a moment still.
fn hold(opened: &[Opened], halt: &Halt) -> Result<Vec<Opened>, GateError> {
    let until = Instant::now() + WRITER_LEAVES;
    loop {
        match writers::hold(opened) {
            Err(GateError::OpenForWriting { .. }) if Instant::now() < until && !halt.is_set() => {
                std::thread::sleep(LOOK);
            }
            result => return result,
        }
    }
}
