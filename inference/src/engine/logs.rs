//! llama.cpp talks a lot while it loads. Its lines become tracing's debug level, and its complaints the
//! reason in an error.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, Once, PoisonError};

use llama_cpp_2::LogOptions;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Level, Metadata, Subscriber};

/// The target under which the wrapper crate emits llama.cpp's lines.
const SOURCE: &str = "llama-cpp-2";
/// Most lines kept of one call: a load prints some hundreds, hostile weights might print without end.
const MAX_LINES: usize = 2000;
/// Most complaints that make up a reason: the first ones name the cause.
const MAX_COMPLAINTS: usize = 3;

/// Runs `work` with llama.cpp's lines of this thread caught; gives its result and the complaints among the
/// lines.
pub(super) fn caught<T>(work: impl FnOnce() -> T) -> (T, String) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| llama_cpp_2::send_logs_to_tracing(LogOptions::default()));
    let lines = Arc::new(Mutex::new(Vec::new()));
    let outer = tracing::dispatcher::get_default(Dispatch::clone);
    let verbose = tracing::enabled!(target: "llama.cpp", Level::DEBUG);
    let catcher = Catcher { outer, verbose, lines: Arc::clone(&lines) };
    let result = tracing::subscriber::with_default(catcher, work);
    let lines = std::mem::take(&mut *lines.lock().unwrap_or_else(PoisonError::into_inner));
    let mut complaints: Vec<&str> = Vec::new();
    for (level, line) in &lines {
        tracing::debug!(target: "llama.cpp", "{line}");
        if *level <= Level::WARN && complaints.len() < MAX_COMPLAINTS {
            complaints.push(line);
        }
    }
    let complaints =
        if complaints.is_empty() { "it gave no reason".to_owned() } else { complaints.join("; ") };
    (result, complaints)
}

/// Keeps llama.cpp's lines and passes everything else on.
struct Catcher {
    outer: Dispatch,
    verbose: bool,
    lines: Arc<Mutex<Vec<(Level, String)>>>,
}

impl Subscriber for Catcher {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        if metadata.target() == SOURCE {
            self.verbose || *metadata.level() <= Level::WARN
        } else {
            self.outer.enabled(metadata)
        }
    }

    fn event(&self, event: &tracing::Event<'_>) {
        if event.metadata().target() != SOURCE {
            return self.outer.event(event);
        }
        let mut line = Line(String::new());
        event.record(&mut line);
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() < MAX_LINES && !line.0.trim().is_empty() {
            lines.push((*event.metadata().level(), line.0.trim().to_owned()));
        }
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.outer.new_span(span)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        self.outer.record(span, values);
    }

    fn record_follows_from(&self, span: &Id, follows: &Id) {
        self.outer.record_follows_from(span, follows);
    }

    fn enter(&self, span: &Id) {
        self.outer.enter(span);
    }

    fn exit(&self, span: &Id) {
        self.outer.exit(span);
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.outer.clone_span(id)
    }

    fn try_close(&self, id: Id) -> bool {
        self.outer.try_close(id)
    }
}

/// The message of an event.
struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            value.clone_into(&mut self.0);
        }
    }
}
