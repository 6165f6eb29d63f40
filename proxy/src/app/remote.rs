//! A control plane, as the process hears it.

use std::collections::BTreeMap;
use std::time::Duration;

use outrigger_proto::error::ConfigError;
use outrigger_proto::model::{Config, ControlPlane, Name};
use outrigger_proto::xds::Kind;
use tokio::sync::{mpsc, oneshot};

use crate::control::xds::{self, Asker, Discovered, Ears, News, Taken, Told};
use crate::identity::offer::Taker;

/// How long the start waits for a control plane's first word.
const FIRST_WORD: Duration = Duration::from_secs(5);

/// A control plane, as it was configured at the start.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) news: mpsc::Receiver<Told>,
    /// Its first word, until that has come into force: whether it is what it said before we began, and who waits for that.
    pub(super) first: Option<(bool, oneshot::Sender<Taken>)>,
    /// What it said last.
    pub(super) found: Discovered,
    /// What the file says beside that.
    pub(super) own: Config,
}

impl Remote {
    /// Follows a control plane; waits for its first word, but not for long.
    pub(super) async fn follow(
        control: ControlPlane,
        own: Config,
        ears: Ears,
        Taker { identity, stats }: Taker,
    ) -> Self {
        let (tell, mut news) = mpsc::channel(1);
        let server = control.server.clone();
        let (is_secure, awaits) = (control.server.starts_with("https:"), own.mesh.identity.is_some());
        let asker = Asker { identity, is_secure, awaits: awaits.into() };
        tokio::task::spawn_local(xds::follow(control, asker, (tell, ears), stats));
        let (found, first) = match tokio::time::timeout(FIRST_WORD, news.recv()).await {
            Ok(Some(Told { news: News::All(found), cached, taken })) => (*found, Some((cached, taken))),
            Ok(Some(Told { news: News::Endpoints(_), .. }) | None) | Err(_) => {
                tracing::warn!(%server, after = ?FIRST_WORD, "the control plane says nothing yet; starting with the file alone");
                (Discovered::default(), None)
            }
        };
        Self { news, first, found, own }
    }

    /// What it says next; nothing, ever, without one.
    pub(super) async fn next(remote: &mut Option<Self>) -> Option<Told> {
        match remote {
            Some(remote) => remote.news.recv().await,
            None => std::future::pending().await,
        }
    }
}

/// The listeners of a control plane's that alone keep a configuration from coming into force, and what is wrong with each; none,
/// where there is more than that.
pub(super) fn unfit_listeners(
    errors: &[ConfigError],
    own: &Config,
    found: &Discovered,
) -> BTreeMap<Name, Vec<ConfigError>> {
    let mut bad: BTreeMap<Name, Vec<ConfigError>> = BTreeMap::new();
    for error in errors {
        let is_of = |name: &&Name| {
            let rest =
                error.path.strip_prefix("listeners.").and_then(|rest| rest.strip_prefix(name.as_str()));
            rest.is_some_and(|rest| rest.starts_with('.')) && !own.mesh.listeners.contains_key(*name)
        };
        // A name may begin as another does.
        let named = found.listeners.keys().filter(is_of).max_by_key(|name| name.as_str().len());
        let Some(name) = named else { return BTreeMap::new() };
        let path = format!("{}[{name}]", Kind::Listener);
        bad.entry(name.clone()).or_default().push(ConfigError { path, ..error.clone() });
    }
    bad
}
