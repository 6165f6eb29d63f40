//! As whom the process runs. What it was started with and does not need is given up before anything is opened, so that
//! whatever it opens at the start it can open again at a reload.

use std::ffi::CString;
use std::fmt;

use nix::errno::Errno;
use nix::unistd::{self, Gid, Uid};
use outrigger_proto::model::{Privileges, Root, User};
use rustix::thread::{CapabilitySet, CapabilitySets};

/// For ports below 1024, all that there is a use for.
const KEPT: CapabilitySet = CapabilitySet::NET_BIND_SERVICE;

/// Why the process does not start.
#[derive(Debug)]
pub enum PrivilegeError {
    /// There is no such user.
    Unknown(Box<str>),
    /// The name is another one of root's, or of somebody in root's group.
    IsRoot(Box<str>),
    /// The system refuses, in this step.
    System(&'static str, Errno),
    /// It is root, and may not be.
    Refused,
}

impl fmt::Display for PrivilegeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name) => {
                write!(f, "privileges.user: there is no user `{name}` here; add it, or write `uid:gid`")
            }
            Self::IsRoot(name) => {
                write!(
                    f,
                    "privileges.user: `{name}` is root by another name, or of its group; name somebody else"
                )
            }
            Self::System(what, error) => write!(f, "privileges.user: cannot {what}: {error}"),
            Self::Refused => f.write_str(
                "privileges.root: refused, and the process runs as root; start it as somebody else, or write \
                 `privileges: { user: NAME }`",
            ),
        }
    }
}

impl std::error::Error for PrivilegeError {}

/// Gives up what is not needed. To be called while there is one thread: what is kept is kept by whoever calls.
///
/// # Errors
/// Why the process must not go on.
pub fn settle(privileges: &Privileges) -> Result<(), PrivilegeError> {
    let Privileges { user, root } = privileges;
    if let Some(user) = user {
        become_user(user)?;
    }
    let own = unistd::getresuid().map_err(step("see who it is"))?;
    if [own.real, own.effective, own.saved].iter().any(|own| own.is_root()) {
        match root {
            Root::Refuse => return Err(PrivilegeError::Refused),
            Root::Allow => {}
            Root::Warn => tracing::warn!(
                "runs as root, and has no need to: write `privileges: {{ user: NAME }}` to become somebody else, or \
                 `privileges: {{ root: allow }}` to be told no more"
            ),
        }
    }
    // Nothing is ever executed, and so nothing that would bring privileges back.
    let _ = rustix::thread::set_no_new_privs(true);
    Ok(())
}

fn become_user(user: &User) -> Result<(), PrivilegeError> {
    let (uid, gid, name) = match user {
        User::Ids { uid, gid } => (Uid::from_raw(uid.get()), Gid::from_raw(gid.get()), None),
        User::Name(name) => {
            let found = unistd::User::from_name(name).map_err(step("look the user up"))?;
            let found = found.ok_or_else(|| PrivilegeError::Unknown(name.clone()))?;
            if found.uid.is_root() || found.gid.as_raw() == 0 {
                return Err(PrivilegeError::IsRoot(name.clone()));
            }
            (found.uid, found.gid, CString::new(&**name).ok())
        }
    };
    let now = unistd::getresuid().map_err(step("see who it is"))?;
    let is_other = [now.real, now.effective, now.saved].iter().any(|own| *own != uid);
    if is_other && !now.effective.is_root() {
        // What was to be given up is not there.
        tracing::warn!(
            uid = now.effective.as_raw(),
            "privileges.user: only root becomes somebody else; going on as before"
        );
        return Ok(());
    }
    let kept = rustix::thread::capabilities(None).map_err(errno("see the capabilities"))?.permitted & KEPT;
    if is_other {
        rustix::thread::set_keep_capabilities(true).map_err(errno("keep a capability"))?;
        match name {
            Some(name) => unistd::initgroups(&name, gid).map_err(step("take the user's groups"))?,
            None => unistd::setgroups(&[gid]).map_err(step("leave root's groups"))?,
        }
        unistd::setresgid(gid, gid, gid).map_err(step("take the user's group"))?;
        unistd::setresuid(uid, uid, uid).map_err(step("become the user"))?;
        tracing::info!(uid = uid.as_raw(), gid = gid.as_raw(), "no longer root");
    }
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).map_err(errno("give up capabilities"))?;
    Ok(())
}

fn step(what: &'static str) -> impl FnOnce(Errno) -> PrivilegeError {
    move |error| PrivilegeError::System(what, error)
}

fn errno(what: &'static str) -> impl FnOnce(rustix::io::Errno) -> PrivilegeError {
    move |error| PrivilegeError::System(what, Errno::from_raw(error.raw_os_error()))
}
