//! Tokens: whose are taken, and what the origin is told of them. Envoy asks for keys by the cluster of their address, which is
//! therefore one of the mesh.

use outrigger_tests::{Client, Echo, Origin, until};

use super::{Envoy, Meant, Row, Three};
use crate::jwt::{Signer, keys, now};
use crate::peers::second_opinion::row;

/// Claims of whom all listeners know, with these in place of its own.
fn claims(more: &[(&str, &str)]) -> String {
    let exp = (now() + 300).to_string();
    let mut all =
        vec![("iss", "\"https://id.test\""), ("aud", "\"shop\""), ("exp", &exp), ("sub", "\"alice\"")];
    all.retain(|(name, _)| more.iter().all(|(other, _)| name != other));
    let shown = all.iter().chain(more).filter(|(_, value)| !value.is_empty());
    let shown: Vec<_> = shown.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", shown.join(","))
}

/// Who signs: of the first issuer, of the second, and one with the first one's key's name.
struct Signers {
    a: Signer,
    b: Signer,
    forged: Signer,
}

impl Signers {
    fn new() -> Self {
        Self { a: Signer::new("a"), b: Signer::new("b"), forged: Signer::new("a") }
    }

    /// Serves their keys.
    async fn serve(&self) -> Origin {
        let (a, b) = (keys(&[&self.a]), keys(&[&self.b]));
        Origin::start(move |mut conn| {
            let (a, b) = (a.clone(), b.clone());
            async move {
                while let Some(request) = conn.request().await {
                    let of = if request.target() == "/a" { &a } else { &b };
                    conn.send(outrigger_tests::origin::ok(of)).await;
                }
            }
        })
        .await
    }

    /// Tokens, each with a word for it.
    fn tokens(&self) -> Vec<(&'static str, String)> {
        let (ago, soon) = ((now() - 120).to_string(), (now() + 600).to_string());
        let (just, long) = ((now() - 30).to_string(), (now() + 100_000_000).to_string());
        let of = |more: &[(&str, &str)]| self.a.sign(&claims(more));
        let good = of(&[]);
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let payload = signed.split_once('.').unwrap().1;
        vec![
            ("good", good.clone()),
            ("expired", of(&[("exp", &ago)])),
            ("just expired", of(&[("exp", &just)])),
            ("for long", of(&[("exp", &long)])),
            ("without end", of(&[("exp", "")])),
            ("not yet", of(&[("nbf", &soon)])),
            ("for the other", of(&[("aud", "\"till\"")])),
            ("for both", of(&[("aud", "[\"till\",\"shop\"]")])),
            ("for others", of(&[("aud", "\"bank\"")])),
            ("for nobody", of(&[("aud", "")])),
            ("of another issuer", of(&[("iss", "\"https://other.test\""), ("aud", "\"bank\"")])),
            (
                "of the other issuer",
                self.b.sign(&claims(&[("iss", "\"https://other.test\""), ("aud", "\"bank\"")])),
            ),
            ("of no issuer", of(&[("iss", "")])),
            ("of a stranger", of(&[("iss", "\"https://evil.test\"")])),
            ("forged", self.forged.sign(&claims(&[]))),
            ("of another key", self.b.sign(&claims(&[]))),
            ("cut", format!("{signed}.{}", &signature[..signature.len() - 4])),
            ("without signature", format!("{signed}.")),
            ("unsigned", format!("eyJhbGciOiJub25lIn0.{payload}.")),
            ("no token", "abc".to_owned()),
            ("of two parts", signed.to_owned()),
            ("with a number", of(&[("n", "7")])),
            ("with a fraction", of(&[("n", "1.5")])),
            ("with a yes", of(&[("n", "true")])),
            ("with a text for a number", of(&[("n", "\"7\"")])),
            ("with groups", of(&[("groups", "[\"dev\",\"ops\"]")])),
            ("with a group", of(&[("groups", "\"ops\"")])),
            ("with words", of(&[("groups", "\"dev ops\"")])),
            ("with other groups", of(&[("groups", "[\"dev\"]")])),
            ("with a level", of(&[("level", "\"high\"")])),
            ("of mallory", of(&[("sub", "\"mallory\""), ("groups", "[\"ops\"]")])),
            ("without a name", of(&[("sub", "")])),
        ]
    }
}

/// The tokens at all listeners, and what else comes in the place of one.
fn rows(signers: &Signers) -> Vec<Row> {
    let mut all = Vec::new();
    let mut ask = |listener: &'static str, target: &str, word: &str, fields: &[&str]| {
        let row = row(listener, "GET", "tokens.test", target, fields);
        all.push(Row { name: format!("{word}: {listener} {target}"), ..row });
    };
    for (word, token) in signers.tokens() {
        let field = format!("Authorization: Bearer {token}");
        for (listener, target) in [
            ("must", "/"),
            ("may", "/"),
            ("either", "/"),
            ("claims", "/"),
            ("claims", "/level"),
            ("inline", "/"),
        ] {
            ask(listener, target, word, &[&field]);
        }
    }
    let token = |word: &str| {
        let found = signers.tokens().into_iter().find(|(name, _)| *name == word);
        format!("Authorization: Bearer {}", found.unwrap().1)
    };
    let (good, expired) = (token("good"), token("expired"));
    let bare = good.trim_start_matches("Authorization: Bearer ");
    for (listener, targets) in [("must", "/ /public /maybe"), ("may", "/ /must"), ("claims", "/ /open")] {
        for target in targets.split(' ') {
            ask(listener, target, "nothing", &[]);
            ask(listener, target, "good, forged field", &[&good, "x-who: root", "x-n: 1"]);
            ask(listener, target, "nothing, forged field", &["x-who: root", "x-n: 1"]);
            ask(listener, target, "expired", &[&expired]);
            ask(listener, target, "basic", &["Authorization: Basic YTpi"]);
            ask(listener, target, "small letters", &[&good.replace("Bearer", "bearer")]);
            ask(listener, target, "without its word", &[&format!("Authorization: {bare}")]);
            ask(listener, target, "twice", &[&good, &good]);
            ask(listener, target, "in a cookie", &[&format!("Cookie: access_token={bare}")]);
            ask(listener, &format!("{target}?access_token={bare}"), "in the query", &[]);
        }
    }
    all
}

pub(super) fn count() -> usize {
    rows(&Signers::new()).len()
}

/// What is meant to differ.
const MEANT: Meant = &[
    ("for the other: ", FOR_OTHERS),
    ("for others: ", FOR_OTHERS),
    ("for nobody: ", FOR_OTHERS),
    (
        "small letters: ",
        "a scheme's letters do not count (RFC 9110 section 11.1); Envoy knows `Bearer ` as it is written, and takes the others for no token",
    ),
    ("with a fraction: ", "a claim is passed on as it was signed; Envoy prints it anew, with six digits"),
    ("with groups: must ", LISTS),
    ("with other groups: must ", LISTS),
    ("of mallory: must ", LISTS),
];
const FOR_OTHERS: &str =
    "a token for others is an invalid one, 401 (RFC 6750 section 3.1); Envoy answers 403";
const LISTS: &str = "a list is passed on as JSON, as it was signed; Envoy encodes it in base64";

#[tokio::test]
async fn of_tokens_all_three_mean_the_same() {
    let Some(envoy) = Envoy::find().await else { return };
    let (signers, one) = (Signers::new(), Echo::start("one").await);
    let served = signers.serve().await;
    let document = include_str!("tokens.yaml").replace("KEYS", served.address());
    let document = document.replace("INLINE", &keys(&[&signers.a]));
    let three = Three::start(&envoy, &document.replace("ONE", &one.address().to_string())).await;
    let good = row("either", "GET", "tokens.test", "/", &[]);
    for (signer, issuer, audience) in
        [(&signers.a, "https://id.test", "shop"), (&signers.b, "https://other.test", "bank")]
    {
        let claims = claims(&[("iss", &format!("\"{issuer}\"")), ("aud", &format!("\"{audience}\""))]);
        let field = format!("Authorization: Bearer {}\r\n\r\n", signer.sign(&claims));
        let request = format!("{}{field}", good.request.trim_end_matches("\r\n\r\n").to_owned() + "\r\n");
        for address in three.addresses("either") {
            until("the keys", async || {
                let mut client = Client::connect(address).await;
                client.send(&request).await;
                (client.reply().await.status == 200).then_some(())
            })
            .await;
        }
    }
    three.compare(&rows(&signers), MEANT, 200).await;
}
