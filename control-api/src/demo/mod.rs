//! `outrigger-control demo`: a mesh at work, for someone who has just met it. What runs are real processes, the control
//! plane and a proxy beside each replica, told what they are told by any user; only the services are ours.

mod documents;
mod mesh;
mod process;
mod script;
mod service;
mod stage;
mod traffic;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};

use self::stage::{End, Stage};
use crate::hex::hex;

/// What the proxy's program is called.
const PROXY: &str = "outrigger";

/// How long things take, so that somebody can follow, or so that a test can wait for it.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// How long a step of a rollout is watched.
    watch: Duration,
    /// How long a proxy may take to take what it is told.
    patience: Duration,
    /// For something to be looked at.
    linger: Duration,
}

/// For somebody who looks.
const SHOW: Pace =
    Pace { watch: Duration::from_secs(5), patience: Duration::from_secs(8), linger: Duration::from_secs(6) };
/// For somebody who waits.
const CHECK: Pace = Pace {
    watch: Duration::from_millis(500),
    patience: Duration::from_secs(2),
    linger: Duration::from_millis(800),
};

/// Plays it: with `check` fast, and to its end; otherwise it goes on until it is told to end. `proxy` is the proxy's program,
/// where it is neither beside this one nor on the `PATH`.
///
/// # Errors
/// It cannot start, or something did not happen that was to.
pub(crate) fn run(check: bool, proxy: Option<&Path>) -> Result<(), String> {
    let own = std::env::current_exe().map_err(|error| format!("this program cannot be found: {error}"))?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let proxy = find(proxy, &own, std::env::split_paths(&path))?;
    let runtime = Runtime::new().map_err(|error| format!("cannot start: {error}"))?;
    let told_to_end = listen(&runtime)?;
    let directory = Directory::make()?;
    let pace = if check { CHECK } else { SHOW };
    let mut stage = Stage::new((own, proxy), directory.0.clone(), runtime.handle().clone(), told_to_end);
    let played = script::play(&mut stage, pace, check);
    let logs = stage.logs();
    // Processes first: they write in the directory.
    drop(stage);
    match played {
        Ok(()) => Ok(()),
        Err(End::Told) if check => Err("interrupted".to_owned()),
        Err(End::Told) => Ok(()),
        Err(End::Failed(why)) => Err(format!("{logs}failed: {why}")),
    }
}

/// The program that is named; or that beside ours; or that on the path.
fn find(
    named: Option<&Path>,
    own: &Path,
    mut path: impl Iterator<Item = PathBuf>,
) -> Result<PathBuf, String> {
    let advice = "`cargo build --release -p outrigger` makes it, `--proxy PATH` or OUTRIGGER_BIN names it";
    if let Some(named) = named {
        let absolute = std::path::absolute(named).ok().filter(|path| path.is_file());
        return absolute.ok_or_else(|| format!("the proxy is not at {}: {advice}", named.display()));
    }
    let beside = own.parent().map(|directory| directory.join(PROXY)).filter(|path| path.is_file());
    let found = beside.or_else(|| path.find_map(|of| Some(of.join(PROXY)).filter(|path| path.is_file())));
    found.ok_or_else(|| {
        format!("the proxy, `{PROXY}`, is neither beside this program nor on the PATH: {advice}")
    })
}

/// Says so when the process is told to end. Children are in groups of their own, so that Ctrl-C comes to us alone.
fn listen(runtime: &Runtime) -> Result<mpsc::Receiver<()>, String> {
    let _inside = runtime.enter();
    let signal = |kind| signal(kind).map_err(|error| format!("cannot listen to signals: {error}"));
    let all = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()].map(signal);
    let (sender, told) = mpsc::channel();
    for one in all {
        runtime.spawn(pass_on(one?, sender.clone()));
    }
    Ok(told)
}

async fn pass_on(mut signal: Signal, sender: mpsc::Sender<()>) {
    while signal.recv().await.is_some() {
        let _ = sender.send(());
    }
}

/// A directory that is gone when this value is.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn make() -> Result<Self, String> {
        let mut name = [0; 6];
        aws_lc_rs::rand::fill(&mut name).expect("the system has randomness");
        let path = std::env::temp_dir().join(format!("outrigger-mesh-{}", hex(&name)));
        // Fails if it is there already: in a directory that all may write to, it could be someone else's.
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} cannot be removed: {error}", self.0.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_found_where_it_is_named_beside_us_or_on_the_path() {
        let directory = Directory::make().unwrap();
        let (near, far) = (directory.0.join("near"), directory.0.join("far"));
        for place in [&near, &far] {
            fs::create_dir(place).unwrap();
            fs::write(place.join(PROXY), "").unwrap();
        }
        let (beside, alone) = (near.join("outrigger-control"), directory.0.join("outrigger-control"));
        let path = || [directory.0.clone(), far.clone()].into_iter();
        assert_eq!(find(None, &beside, path()), Ok(near.join(PROXY)));
        assert_eq!(find(None, &alone, path()), Ok(far.join(PROXY)));
        assert_eq!(find(Some(&far.join(PROXY)), &beside, path()), Ok(far.join(PROXY)));
        for missing in [find(None, &alone, std::iter::empty()), find(Some(&alone), &beside, path())] {
            assert!(missing.unwrap_err().contains("`cargo build --release -p outrigger`"));
        }
        let path = directory.0.clone();
        drop(directory);
        assert!(!path.exists());
    }
}
