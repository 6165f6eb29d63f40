//! A configuration on trial: what would become of live requests and connections by it, beside what becomes of them. Nothing
//! here acts on any of them; what is found is counted, by worker and without a lock.
//!
//! Only routing and authorization are held up. What comes before them is taken as it is in force: TLS, the form of the path,
//! who is believed about the client's address, whether a token is good.

mod bench;
mod fate;
mod fates;
mod marks;
mod tally;
#[cfg(test)]
mod tests;
mod trial;

pub use self::bench::{Bench, Common, Held};
pub use self::fate::{Fate, Follows, Unproven};
pub use self::fates::{Facts, Found, Token, asks};
pub use self::tally::{Counts, Kind, Seen, Tally};
pub use self::trial::{Beginning, Beside, Chain, Placed, Trial};
