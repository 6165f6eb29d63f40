//! Join tokens: each was made by whoever runs the mesh, for one identity, and is good until it expires or is taken back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use outrigger_proto::model::SpiffeId;
use tonic::Status;

use super::{By, Proven, seconds};
use crate::events::{Happened, rfc3339};
use crate::origin::{Origin, join_id};
use crate::plane::Plane;
use crate::store::{Join, StoreError};
use crate::{api, token};

/// Characters of a join token's id.
const ID: usize = 16;

/// Makes a token: whoever shows it in time is this. Its id, and itself.
///
/// # Errors
/// The store cannot be written.
pub fn create(
    plane: &Plane,
    (id, author): (&SpiffeId, String),
    lifetime: Duration,
    once: bool,
) -> Result<(String, String), StoreError> {
    let token = token::make();
    let hash = token::hash(&token);
    let now = seconds(SystemTime::now());
    let expires = now.saturating_add(lifetime.as_secs());
    let join = Join {
        spiffe_id: id.to_string(),
        expires,
        created: Some(now),
        once,
        lives_until: None,
        revoked: None,
    };
    plane.store().put_join(&hash, &join, now)?;
    let (id, spiffe_id) = (hash[..ID].to_owned(), id.to_string());
    plane.note(Happened::JoinCreated { id: id.clone(), spiffe_id, author });
    Ok((id, token))
}

/// Takes a token back, by its id: neither it nor a certificate that goes back to it leads to another one. Whether there was one
/// that was not taken back before.
///
/// # Errors
/// The store cannot be read or written.
pub fn take_back(plane: &Plane, join: &str, author: String) -> Result<bool, StoreError> {
    let Some((hash, found)) = standing(plane, join)? else { return Ok(false) };
    let now = seconds(SystemTime::now());
    let revoke = |join: &mut Join| join.revoked.replace(now).is_none();
    let done = plane.store().change_join(&hash, &revoke, now)?;
    if done {
        plane.note(Happened::JoinRevoked { id: join.to_owned(), spiffe_id: found.spiffe_id, author });
    }
    Ok(done)
}

/// For whom a token of this id is, if there is one that can be taken back.
///
/// # Errors
/// The store cannot be read.
pub fn holder(plane: &Plane, join: &str) -> Result<Option<String>, StoreError> {
    Ok(standing(plane, join)?.map(|(_, join)| join.spiffe_id))
}

/// The token of this id, with all of its hash, unless it was taken back.
fn standing(plane: &Plane, join: &str) -> Result<Option<(String, Join)>, StoreError> {
    let found = (join.len() == ID).then(|| plane.store().find_join(join)).transpose()?.flatten();
    Ok(found.filter(|(_, join)| join.revoked.is_none()))
}

/// What is shown of one.
pub fn describe(hash: &str, join: Join) -> api::JoinEntry {
    let Join { spiffe_id, expires, created, once, lives_until, revoked } = join;
    let time = |at: u64| rfc3339(UNIX_EPOCH + Duration::from_secs(at));
    api::JoinEntry {
        id: hash[..ID].to_owned(),
        spiffe_id,
        created: created.map(time),
        expires: time(expires),
        once,
        lives_until: lives_until.map(time),
        revoked: revoked.map(time),
    }
}

/// Who shows this token.
pub(super) fn attest(plane: &Plane, token: &str) -> Result<Proven, Status> {
    let hash = token::hash(token);
    let join = plane.store().join(&hash).map_err(unreadable)?;
    let join = join.ok_or_else(|| Status::unauthenticated("this join token is not known here"))?;
    if join.revoked.is_some() {
        return Err(taken_back());
    }
    if join.expires <= seconds(SystemTime::now()) {
        return Err(Status::unauthenticated("this join token has expired"));
    }
    if join.is_spent() {
        return Err(spent());
    }
    let id = SpiffeId::new(&join.spiffe_id).map_err(|error| Status::internal(error.to_string()))?;
    let origin = Origin::of_join(&hash).ok_or_else(|| Status::internal("a hash is no hash"))?;
    Ok(Proven { id, origin, by: By::JoinToken })
}

/// Whether what goes back to this token may still lead to something.
pub(super) fn still_good(plane: &Plane, join: [u8; 8]) -> Result<(), Status> {
    match plane.store().find_join(&join_id(join)).map_err(unreadable)? {
        Some((_, Join { revoked: None, .. })) => Ok(()),
        Some(_) => Err(taken_back()),
        None => Err(forgotten()),
    }
}

/// A certificate was signed that goes back to this token, and lives so long, in seconds since 1970.
pub(super) fn note_signed(plane: &Plane, join: [u8; 8], by: By, until: u64) -> Result<(), Status> {
    let (hash, _) = plane.store().find_join(&join_id(join)).map_err(unreadable)?.ok_or_else(forgotten)?;
    let note = |join: &mut Join| {
        let is_good = join.revoked.is_none() && !(by == By::JoinToken && join.is_spent());
        join.lives_until = join.lives_until.max(Some(until));
        is_good
    };
    if plane.store().change_join(&hash, &note, seconds(SystemTime::now())).map_err(unreadable)? {
        return Ok(());
    }
    still_good(plane, join).and_then(|()| Err(spent()))
}

fn unreadable(error: StoreError) -> Status {
    tracing::error!(%error, "join tokens cannot be read");
    Status::unavailable("join tokens cannot be read")
}

fn taken_back() -> Status {
    Status::unauthenticated("this join token was taken back")
}

fn spent() -> Status {
    Status::unauthenticated("this join token was good for one certificate, which somebody has")
}

fn forgotten() -> Status {
    Status::unauthenticated("the join token that this certificate goes back to is not known here")
}
