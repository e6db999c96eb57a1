//! Progress on standard error, when it is a terminal; silence otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::{DIM, paint};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(100);

/// A bar of bytes, or a spinner while the number of bytes is unknown. Gone when dropped.
pub(crate) struct Bar(ProgressBar);

impl Bar {
    /// A bar that starts as a spinner with `message`; invisible when `shown` is false or standard error is no terminal
    /// (indicatif looks at that itself).
    pub(crate) fn new(shown: bool, message: &str) -> Self {
        let bar = if shown {
            ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10))
        } else {
            ProgressBar::hidden()
        };
        let bar = Self(bar);
        bar.message(message);
        bar.0.enable_steady_tick(TICK);
        bar
    }

    /// Shows how many of how many bytes are done, with `message` before the bar.
    pub(crate) fn bytes(&self, done: u64, total: u64, message: &str) {
        if total > 0 && self.0.length() != Some(total) {
            let template = "{spinner:.cyan} {msg}  {bar:28.cyan/dim} {percent:>3}%  {binary_bytes:>10} / {binary_total_bytes}  {binary_bytes_per_sec:>12}  {eta}";
            self.style(template);
            self.0.set_length(total);
            self.0.reset_eta();
        }
        self.0.set_message(message.to_owned());
        self.0.set_position(done);
    }

    /// Shows how many of how many bytes a phase has done; `beside` the numbers, and `below` the bar, stand further words.
    pub(crate) fn overall(&self, phase: &str, done: u64, total: u64, beside: &str, below: &str) {
        let template = "{spinner:.cyan} {prefix}  {bar:28.cyan/dim} {percent:>3}%  {binary_bytes:>10} / {binary_total_bytes}  {msg}";
        self.style(template);
        self.0.set_length(total);
        self.0.set_prefix(phase.to_owned());
        let below = if below.is_empty() { String::new() } else { format!("\n  {}", paint(DIM, below)) };
        self.0.set_message(format!("{beside}{below}"));
        self.0.set_position(done.min(total));
    }

    /// Shows `message` with the spinner.
    pub(crate) fn message(&self, message: &str) {
        self.style("{spinner:.cyan} {msg}");
        self.0.set_message(message.to_owned());
    }

    fn style(&self, template: &str) {
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style.progress_chars("━━─"));
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
