//! What the demo prints: headings, sentences, a progress bar, a closing table.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use indicatif::{BinaryBytes, ProgressBar, ProgressStyle};
use otahost_lab::cloud::{Cloud, Progress};
use otahost_lab::files::Files;

/// How often the bar looks at the bytes.
const REDRAW: Duration = Duration::from_millis(100);

/// Begins an act.
pub(crate) fn heading(text: &str) {
    println!("\n{}", styled("1", text));
}

/// A line of what was shown.
pub(crate) fn line(text: &str) {
    println!("  {text}");
}

/// Ends an act.
pub(crate) fn held(text: &str) {
    println!("  {} {text}", styled("32", "✓"));
}

/// Ends the demo.
pub(crate) fn failed(failure: &dyn std::fmt::Display) {
    eprintln!("\n  {} {failure}", styled("31", "✗"));
}

/// Rows of name and value, ruled.
pub(crate) fn table(rows: &[(&str, String)]) {
    let left = rows
        .iter()
        .map(|(name, _)| name.chars().count())
        .max()
        .unwrap_or_default();
    let right = rows
        .iter()
        .map(|(_, value)| value.chars().count())
        .max()
        .unwrap_or_default();
    let rule = |a: char, b: char, c: char| {
        println!(
            "  {a}{}{b}{}{c}",
            "─".repeat(left + 2),
            "─".repeat(right + 2)
        )
    };
    rule('┌', '┬', '┐');
    for (name, value) in rows {
        println!("  │ {name:left$} │ {value:right$} │");
    }
    rule('└', '┴', '┘');
}

/// Bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    if count == 0 {
        "nothing".to_owned()
    } else {
        BinaryBytes(count).to_string()
    }
}

fn styled(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// A bar that shows what the cloud hears, and beside it the bytes that left the file server. Where there is no terminal, a line for
/// every step instead.
pub(crate) struct Bar {
    bar: ProgressBar,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Bar {
    pub(crate) fn follow(cloud: &Cloud, files: &Arc<Files>) -> Self {
        let bar = ProgressBar::new(100);
        let style = ProgressStyle::with_template("  [{bar:24}] {pos:>3} %  {msg}")
            .expect("the template is constant");
        bar.set_style(style.progress_chars("█▉▊▋▌▍▎▏ "));
        let word = Arc::new(Mutex::new(String::new()));
        let stop = Arc::new(AtomicBool::new(false));
        let (heard, shown, over) = (Arc::clone(&word), bar.clone(), Arc::clone(&stop));
        cloud.on_event(move |progress| {
            if over.load(Ordering::Relaxed) {
                return;
            }
            let now = words(progress);
            let mut last = heard.lock().unwrap_or_else(PoisonError::into_inner);
            if shown.is_hidden() && *last != now {
                line(&format!("{:>3} %  {now}", progress.percent));
            }
            shown.set_position(u64::from(progress.percent));
            *last = now;
        });
        let (sent, drawn, stopped) = (Arc::clone(files), bar.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) && !drawn.is_hidden() {
                let word = word.lock().unwrap_or_else(PoisonError::into_inner).clone();
                drawn.set_message(format!(
                    "{} fetched  {word}",
                    self::bytes(sent.bytes_sent())
                ));
                thread::sleep(REDRAW);
            }
        });
        Bar {
            bar,
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.bar.finish_and_clear();
    }
}

fn words(progress: &Progress) -> String {
    let parts = [progress.status.to_string(), progress.sub_status.clone()];
    parts
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" · ")
}
