//! The thread that writes the access log. It alone may wait for a disk or for the reader of a pipe.
//!
//! ```text
//! Lines --start--> running --finish, drop--> draining --> ended
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use outrigger_proto::model::LogTarget;

use super::access_log::{Batch, Lines, Message, Shared};

/// How long a writer that is dropped waits for what is queued.
const PATIENCE: Duration = Duration::from_secs(5);

/// The writer of one log.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    wake: SyncSender<Message>,
    ended: Receiver<()>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Writer {
    /// Opens the target and starts the thread.
    ///
    /// # Errors
    /// The file cannot be opened for appending, or no thread can be made.
    pub fn start(target: &LogTarget, lines: Lines) -> io::Result<Self> {
        let mut sink = Sink::open(target)?;
        let Lines { batches, wake, shared } = lines;
        let (ending, ended) = sync_channel(1);
        let signals = Arc::clone(&shared);
        let thread = thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            run(&mut sink, &batches, &signals);
            drop(ending);
        })?;
        Ok(Self { shared, wake, ended, thread: Some(thread) })
    }

    /// Opens a file anew, after it was renamed to rotate it. Returns at once; batches that wait may go to either file.
    pub fn reopen(&self) {
        self.shared.reopen.store(true, Ordering::Release);
        self.wake();
    }

    /// Writes what is queued and ends the thread. False when that took longer than `within`: the thread is left to
    /// itself, since a pipe that nobody reads must not keep the process. Loggers should be flushed before.
    pub fn finish(mut self, within: Duration) -> bool {
        self.end(within)
    }

    fn end(&mut self, within: Duration) -> bool {
        let Some(thread) = self.thread.take() else { return true };
        self.shared.finish.store(true, Ordering::Release);
        self.wake();
        // Nothing is ever sent: the channel closes when the thread is done.
        let ended = !matches!(self.ended.recv_timeout(within), Err(RecvTimeoutError::Timeout));
        ended && thread.join().is_ok()
    }

    /// A queue without room needs no wake: the writer looks at the signals after each batch.
    fn wake(&self) {
        let _ = self.wake.try_send(Message::Wake);
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.end(PATIENCE);
    }
}

fn run(sink: &mut Sink, batches: &Receiver<Message>, shared: &Shared) {
    while let Ok(message) = batches.recv() {
        handle(message, sink, shared);
        if shared.finish.load(Ordering::Acquire) {
            batches.try_iter().for_each(|message| handle(message, sink, shared));
            return;
        }
    }
}

fn handle(message: Message, sink: &mut Sink, shared: &Shared) {
    if shared.reopen.swap(false, Ordering::AcqRel) {
        sink.reopen();
    }
    match message {
        Message::Batch(Batch { text, lines }) => {
            if !sink.write(&text) {
                shared.drop_lines(lines);
            }
            shared.release(text.capacity());
        }
        Message::Wake => {}
    }
}

/// Where the lines go, and whether the last write went well.
struct Sink {
    target: LogTarget,
    out: Box<dyn Write + Send>,
    failing: bool,
}

impl Sink {
    fn open(target: &LogTarget) -> io::Result<Self> {
        Ok(Self { target: target.clone(), out: open(target)?, failing: false })
    }

    /// Keeps the old file where the new one cannot be had: lines in the wrong place are better than none.
    fn reopen(&mut self) {
        match open(&self.target) {
            Ok(out) => self.out = out,
            Err(error) => tracing::warn!(%error, target = ?self.target, "the access log cannot be reopened"),
        }
    }

    /// Whether it was written whole. Said once when that begins to fail: the counter of dropped lines tells the rest.
    fn write(&mut self, text: &[u8]) -> bool {
        let result = self.try_write(text);
        if let (Err(error), false) = (&result, self.failing) {
            tracing::warn!(%error, target = ?self.target, "the access log cannot be written");
        }
        self.failing = result.is_err();
        !self.failing
    }

    fn try_write(&mut self, text: &[u8]) -> io::Result<()> {
        // What failed may have left half a line behind.
        if self.failing {
            self.out.write_all(b"\n")?;
        }
        self.out.write_all(text)?;
        self.out.flush()
    }
}

fn open(target: &LogTarget) -> io::Result<Box<dyn Write + Send>> {
    Ok(match target {
        LogTarget::Stdout => Box::new(io::stdout()),
        LogTarget::Stderr => Box::new(io::stderr()),
        LogTarget::File(path) => Box::new(append(path)?),
    })
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use outrigger_proto::model::LogFormat;

    use super::super::access_log::{Logger, QUEUE_BYTES, queue};
    use super::super::cell::Counter;
    use super::*;
    use crate::observe::format::tests::request;

    /// A folder of its own for each test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("outrigger-log-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn count(&self, file: &str) -> usize {
            fs::read_to_string(self.0.join(file)).map_or(0, |text| text.lines().count())
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Yields until it is so.
    #[track_caller]
    fn until(so: impl Fn() -> bool) {
        assert!(
            (0..10_000_000).any(|_| so() || {
                thread::yield_now();
                false
            }),
            "it never came to pass"
        );
    }

    #[test]
    fn every_line_of_every_worker_is_written() {
        let folder = Folder::new("workers");
        let dropped = Arc::new(Counter::default());
        let (queue, lines) = queue(usize::MAX, Arc::clone(&dropped));
        let writer = Writer::start(&LogTarget::File(folder.0.join("log")), lines).unwrap();
        thread::scope(|scope| {
            for worker in 0..4 {
                let queue = queue.clone();
                scope.spawn(move || {
                    let logger = Logger::new(LogFormat::Json, queue);
                    for index in 0..500 {
                        let host = format!("{worker}-{index}");
                        logger.log(&super::super::Record { host: host.as_bytes(), ..request() });
                    }
                });
            }
        });
        assert!(writer.finish(Duration::from_secs(60)));
        let text = fs::read_to_string(folder.0.join("log")).unwrap();
        let mut hosts: Vec<String> = text
            .lines()
            .map(|line| {
                serde_json::from_str::<serde_json::Value>(line).unwrap()["host"].as_str().unwrap().to_owned()
            })
            .collect();
        hosts.sort();
        hosts.dedup();
        assert_eq!((hosts.len(), dropped.get()), (2000, 0));
    }

    #[test]
    fn a_renamed_file_is_left() {
        let folder = Folder::new("rotate");
        let (queue, lines) = queue(QUEUE_BYTES, Arc::default());
        let writer = Writer::start(&LogTarget::File(folder.0.join("log")), lines).unwrap();
        let logger = Logger::new(LogFormat::Text, queue);
        logger.log(&request());
        logger.flush();
        until(|| folder.count("log") == 1);
        fs::rename(folder.0.join("log"), folder.0.join("log.1")).unwrap();
        logger.log(&request());
        logger.flush();
        until(|| folder.count("log.1") == 2);
        writer.reopen();
        until(|| folder.0.join("log").exists());
        logger.log(&request());
        logger.flush();
        drop(writer);
        assert_eq!((folder.count("log.1"), folder.count("log")), (2, 1));
    }

    #[test]
    fn a_file_that_cannot_be_reopened_is_kept() {
        let folder = Folder::new("kept");
        fs::create_dir(folder.0.join("sub")).unwrap();
        let path = folder.0.join("sub/log");
        let mut sink = Sink::open(&LogTarget::File(path)).unwrap();
        fs::rename(folder.0.join("sub"), folder.0.join("gone")).unwrap();
        sink.reopen();
        assert!(sink.write(b"line\n"));
        assert_eq!(folder.count("gone/log"), 1);
    }

    #[test]
    fn what_cannot_be_opened_is_an_error() {
        let (_queue, lines) = queue(QUEUE_BYTES, Arc::default());
        let target = LogTarget::File("/nonexistent/folder/log".into());
        assert_eq!(Writer::start(&target, lines).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let dropped = Arc::new(Counter::default());
        let (queue, lines) = queue(QUEUE_BYTES, Arc::clone(&dropped));
        // Linux's device that is always out of space.
        let writer = Writer::start(&LogTarget::File("/dev/full".into()), lines).unwrap();
        let logger = Logger::new(LogFormat::Text, queue);
        logger.log(&request());
        logger.log(&request());
        logger.flush();
        assert!(writer.finish(Duration::from_secs(60)));
        assert_eq!(dropped.get(), 2);
    }

    #[test]
    fn half_a_line_does_not_spoil_the_next() {
        struct Half(Arc<std::sync::Mutex<Vec<u8>>>, u32);
        impl Write for Half {
            fn write(&mut self, text: &[u8]) -> io::Result<usize> {
                self.1 += 1;
                if self.1 == 2 {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let part = if self.1 == 1 { text.len() / 2 } else { text.len() };
                self.0.lock().unwrap().extend_from_slice(&text[..part]);
                Ok(part)
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let written = Arc::new(std::sync::Mutex::new(Vec::new()));
        let out = Box::new(Half(Arc::clone(&written), 0));
        let mut sink = Sink { target: LogTarget::Stdout, out, failing: false };
        assert!(!sink.write(b"abcdef\n"));
        assert!(sink.write(b"next\n"));
        assert_eq!(*written.lock().unwrap(), b"abc\nnext\n");
    }
}
