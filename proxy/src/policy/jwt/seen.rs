//! Tokens that a worker has seen: their signatures were good, and need not be checked for each request anew. What time
//! decides is asked each time.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwapOption;
use hashbrown::HashMap;
use outrigger_proto::model::{JwtIssuer, KeySet};

use super::{JwtError, check_claims, verify};
use crate::facts::Claims;

/// Tokens that are remembered; with their claims, at most some megabytes.
const MOST: usize = 256;

/// The keys of an issuer, which may come later than the configuration, and change.
#[derive(Debug, Default)]
pub struct Keys(ArcSwapOption<KeySet>);

impl Keys {
    /// These, from the beginning.
    pub fn new(keys: impl Into<Arc<KeySet>>) -> Self {
        Self(ArcSwapOption::from(Some(keys.into())))
    }

    /// From now on.
    pub fn set(&self, keys: KeySet) {
        self.0.store(Some(Arc::new(keys)));
    }

    /// Whether there are any.
    pub fn are_there(&self) -> bool {
        self.0.load().is_some()
    }
}

/// Whose tokens a listener takes.
#[derive(Debug)]
pub struct Tokens {
    /// The issuers.
    pub issuers: Box<[JwtIssuer]>,
    /// The keys of each.
    pub keys: Box<[Arc<Keys>]>,
}

/// Tokens whose signatures were good.
#[derive(Debug, Default)]
pub struct Seen(RefCell<HashMap<Box<str>, Entry>>);

#[derive(Debug)]
struct Entry {
    tokens: Arc<Tokens>,
    place: usize,
    keys: Arc<KeySet>,
    claims: Rc<Claims>,
}

impl Seen {
    /// See [`verify`].
    ///
    /// # Errors
    /// Why the token is not good.
    pub fn verify(
        &self,
        token: &str,
        tokens: &Arc<Tokens>,
        now: SystemTime,
    ) -> Result<(usize, Rc<Claims>), JwtError> {
        let mut seen = self.0.borrow_mut();
        if let Some(entry) = seen.get(token)
            && Arc::ptr_eq(&entry.tokens, tokens)
            && tokens.keys[entry.place].0.load().as_ref().is_some_and(|keys| Arc::ptr_eq(keys, &entry.keys))
        {
            check_claims(&entry.claims.0, &tokens.issuers[entry.place], now)?;
            return Ok((entry.place, entry.claims.clone()));
        }
        let mut used = None;
        let keys = |place: usize| {
            used = tokens.keys[place].0.load_full();
            used.clone()
        };
        let (place, claims) = verify(token, &tokens.issuers, keys, now)?;
        let claims = Rc::new(claims);
        if let Some(keys) = used {
            if seen.len() >= MOST {
                // Whoever is still there is asked once more: simpler than to know who was there last.
                seen.clear();
            }
            let entry = Entry { tokens: tokens.clone(), place, keys, claims: claims.clone() };
            seen.insert(token.into(), entry);
        }
        Ok((place, claims))
    }
}
