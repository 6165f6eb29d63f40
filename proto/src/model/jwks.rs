//! The keys of an issuer (RFC 7517), and what each may be used for. Here, as a configuration may hold them itself; nothing
//! is checked with them here.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::{JwtAlgorithm, json};

/// Keys of one issuer. More would make every token without a name for its key expensive.
const MAX_KEYS: usize = 100;

/// Bytes of an RSA modulus: 2048 to 8192 bits.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// The keys of an issuer.
#[derive(Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeySet(Vec<Key>);

/// One of them.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    id: Option<String>,
    /// What it is for, where it says so.
    algorithm: Option<JwtAlgorithm>,
    /// What signatures are checked with.
    pub material: KeyMaterial,
}

/// What signatures are checked with.
#[derive(Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyMaterial {
    /// Numbers, the highest byte first and not zero; the modulus has 2048 to 8192 bits.
    #[expect(missing_docs, reason = "they are called what the standard calls them")]
    Rsa { n: Vec<u8>, e: Vec<u8> },
    /// A point as it is sent, uncompressed.
    P256(Vec<u8>),
    /// A point as it is sent, uncompressed.
    P384(Vec<u8>),
    /// A point: 32 bytes.
    Ed25519(Vec<u8>),
}

/// Keys that a configuration holds itself: read once, and kept as they were written.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InlineKeys {
    text: Box<str>,
    keys: Arc<KeySet>,
}

impl InlineKeys {
    /// Each of them must be usable, as in a file ([`KeySet::parse`]).
    ///
    /// # Errors
    /// What is wrong.
    pub fn new(text: impl Into<Box<str>>) -> Result<Self, KeySetError> {
        Self::read(text.into(), KeySet::parse)
    }

    /// Those that are usable, as somebody else publishes them ([`KeySet::published`]).
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn published(text: impl Into<Box<str>>) -> Result<Self, KeySetError> {
        Self::read(text.into(), |text| KeySet::published(text).map(|(keys, _)| keys))
    }

    fn read(text: Box<str>, keys: fn(&[u8]) -> Result<KeySet, KeySetError>) -> Result<Self, KeySetError> {
        if text.len() > KeySet::LARGEST {
            return Err(KeySetError::TooLong);
        }
        let keys = Arc::new(keys(text.as_bytes())?);
        Ok(Self { text, keys })
    }

    /// What was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it means.
    pub fn keys(&self) -> &Arc<KeySet> {
        &self.keys
    }
}

/// Why a text holds no keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySetError {
    /// It is not a JSON object with a list `keys`.
    NotASet,
    /// It is too long to be read.
    TooLong,
    /// It holds too many.
    TooMany,
    /// One of them cannot be used; by its place, and why.
    Key(usize, &'static str),
    /// None of them is for checking signatures.
    None,
}

impl fmt::Display for KeySetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotASet => write!(f, "it is no set of keys (RFC 7517): expected a JSON object with `keys`"),
            Self::TooLong => write!(f, "it is longer than {} bytes", KeySet::LARGEST),
            Self::TooMany => write!(f, "it holds more than {MAX_KEYS} keys"),
            Self::Key(place, why) => write!(f, "keys[{place}] cannot be used: {why}"),
            Self::None => write!(f, "it holds no key that signatures could be checked with"),
        }
    }
}

impl std::error::Error for KeySetError {}

impl KeySet {
    /// Bytes of a text that holds keys, wherever it comes from.
    pub const LARGEST: usize = 256 << 10;

    /// Keys of which each must be usable, as in a file of one's own. Those of kinds that are not known here, or that are for
    /// something else, are left out.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let (set, unusable) = Self::published(text)?;
        unusable.into_iter().next().map_or(Ok(set), Err)
    }

    /// Keys as somebody else publishes them, and what is wrong with those that are left out: one of them may not keep us
    /// from the others, as issuers add keys that are not for us (RFC 7517 section 5).
    ///
    /// # Errors
    /// Why nothing is left.
    pub fn published(text: &[u8]) -> Result<(Self, Vec<KeySetError>), KeySetError> {
        let set = json::object(text).ok_or(KeySetError::NotASet)?;
        let Some(Value::Array(keys)) = set.get("keys") else { return Err(KeySetError::NotASet) };
        if keys.len() > MAX_KEYS {
            return Err(KeySetError::TooMany);
        }
        let (mut all, mut unusable) = (Vec::new(), Vec::new());
        for (place, key) in keys.iter().enumerate() {
            match key.as_object().ok_or("it is no object").and_then(read) {
                Ok(key) => all.extend(key),
                Err(why) => unusable.push(KeySetError::Key(place, why)),
            }
        }
        if all.is_empty() {
            return Err(unusable.into_iter().next().unwrap_or(KeySetError::None));
        }
        Ok((Self(all), unusable))
    }

    /// The key of this name; without a name the only one that fits.
    pub fn find(&self, id: Option<&str>, algorithm: JwtAlgorithm) -> Option<&Key> {
        let mut fitting = self
            .0
            .iter()
            .filter(|key| key.fits(algorithm) && id.is_none_or(|id| key.id.as_deref() == Some(id)));
        let first = fitting.next()?;
        if fitting.next().is_some() { None } else { Some(first) }
    }
}

fn read(key: &Map<String, Value>) -> Result<Option<Key>, &'static str> {
    // What could not be read might have forbidden something.
    if ["kid", "use", "alg"].into_iter().any(|name| key.get(name).is_some_and(|value| !value.is_string())) {
        return Err("`kid`, `use` and `alg` are texts");
    }
    if key.get("key_ops").is_some_and(|operations| !operations.is_array()) {
        return Err("`key_ops` is a list");
    }
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    if text("use").is_some_and(|is_for| is_for != "sig") {
        return Ok(None);
    }
    if let Some(Value::Array(operations)) = key.get("key_ops")
        && !operations.iter().any(|operation| operation == "verify")
    {
        return Ok(None);
    }
    let bytes = |name: &str| text(name).and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let point = |size: usize| {
        let (x, y) = bytes("x").zip(bytes("y"))?;
        (x.len() == size && y.len() == size).then(|| [&[4], &x[..], &y[..]].concat())
    };
    let material = match (text("kty"), text("crv")) {
        (Some("RSA"), _) => {
            let (n, e) = bytes("n").zip(bytes("e")).ok_or("`n` and `e` are not there, or not base64url")?;
            let [n, e] =
                [n, e].map(|number| number.into_iter().skip_while(|byte| *byte == 0).collect::<Vec<_>>());
            if !RSA_BYTES.contains(&n.len()) || (n.len() == *RSA_BYTES.start() && n[0] < 0x80) {
                return Err("RSA keys have 2048 to 8192 bits");
            }
            // With an exponent of one everything is its own signature.
            if e == [1] || e.last().is_none_or(|byte| byte % 2 == 0) {
                return Err("`e` is odd, and more than one");
            }
            KeyMaterial::Rsa { n, e }
        }
        (Some("EC"), Some("P-256")) => KeyMaterial::P256(point(32).ok_or("`x` and `y` are not a point")?),
        (Some("EC"), Some("P-384")) => KeyMaterial::P384(point(48).ok_or("`x` and `y` are not a point")?),
        (Some("OKP"), Some("Ed25519")) => {
            KeyMaterial::Ed25519(bytes("x").filter(|x| x.len() == 32).ok_or("`x` is not a point")?)
        }
        (Some(_), _) => return Ok(None),
        (None, _) => return Err("it says no `kty`"),
    };
    let algorithm = match text("alg").map(JwtAlgorithm::named) {
        None => None,
        Some(None) => return Ok(None),
        Some(known) => known,
    };
    let key = Key { id: text("kid").map(str::to_owned), algorithm, material };
    if algorithm.is_some_and(|algorithm| !key.fits(algorithm)) {
        return Err("`alg` is not for this kind of key");
    }
    Ok(Some(key))
}

impl Key {
    /// Whether it is for this algorithm: the token's word alone never decides that.
    fn fits(&self, algorithm: JwtAlgorithm) -> bool {
        use JwtAlgorithm as A;
        let kind = match self.material {
            KeyMaterial::Rsa { .. } => {
                matches!(algorithm, A::Rs256 | A::Rs384 | A::Rs512 | A::Ps256 | A::Ps384 | A::Ps512)
            }
            KeyMaterial::P256(_) => algorithm == A::Es256,
            KeyMaterial::P384(_) => algorithm == A::Es384,
            KeyMaterial::Ed25519(_) => algorithm == A::EdDsa,
        };
        kind && self.algorithm.is_none_or(|own| own == algorithm)
    }
}
