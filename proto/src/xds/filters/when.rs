//! Conjunctions of lists, joined by `and` and `or`.

use super::super::cx::Cx;
use crate::model::When;

/// One of these holds.
pub(super) type Alternatives = Vec<When>;

/// As many rules may come of one policy.
const MOST: usize = 100;

/// Any of them. Those that differ in one list alone are one, with all that is in their lists.
pub(super) fn or(all: Vec<Alternatives>) -> Alternatives {
    let mut out: Alternatives = Vec::new();
    for when in all.into_iter().flatten() {
        // Beside it the others say nothing.
        if when == When::default() {
            return vec![when];
        }
        match out.last_mut().filter(|last| list(last).is_some() && list(last) == list(&when)) {
            Some(last) => extend(last, when),
            None => out.push(when),
        }
    }
    out
}

/// Which of the lists is the only one that says something, if one is.
fn list(when: &When) -> Option<usize> {
    let When { peers, source, sni, ports, methods, hosts, paths, headers, claims } = when;
    if !headers.is_empty() || !claims.is_empty() {
        return None;
    }
    let said = [
        !peers.is_empty(),
        !source.is_empty(),
        !sni.is_empty(),
        !ports.is_empty(),
        !methods.is_empty(),
        !hosts.is_empty(),
        !paths.is_empty(),
    ];
    let mut places = said.iter().enumerate().filter(|(_, said)| **said).map(|(place, _)| place);
    places.next().filter(|_| places.next().is_none())
}

fn extend(last: &mut When, when: When) {
    fn more<T: Clone>(list: &mut Box<[T]>, more: Box<[T]>) {
        if !more.is_empty() {
            *list = list.iter().cloned().chain(more).collect();
        }
    }
    let When { peers, source, sni, ports, methods, hosts, paths, headers: _, claims: _ } = when;
    more(&mut last.peers, peers);
    more(&mut last.source, source);
    more(&mut last.sni, sni);
    more(&mut last.ports, ports);
    more(&mut last.methods, methods);
    // A host with any port is that host.
    let hosts = hosts.into_iter().filter(|host| !last.hosts.contains(host)).collect();
    more(&mut last.hosts, hosts);
    more(&mut last.paths, paths);
}

/// All of them.
pub(super) fn and(cx: &mut Cx, all: Vec<Alternatives>) -> Option<Alternatives> {
    let mut out = vec![When::default()];
    for alternatives in all {
        let pairs = out.iter().flat_map(|one| alternatives.iter().map(move |other| (one, other)));
        let joined: Result<Vec<_>, _> = pairs.take(MOST + 1).map(|(one, other)| both(one, other)).collect();
        out = match joined {
            Ok(joined) if joined.len() <= MOST => joined,
            Ok(_) => return cx.fail("", format!("this is more than {MOST} rules")),
            Err(field) => {
                return cx.fail("", format!("two lists of {field} that both must fit are not supported"));
            }
        };
    }
    Some(out)
}

/// Fails with what both say something of.
fn both(one: &When, other: &When) -> Result<When, &'static str> {
    fn either<T: Clone>(name: &'static str, one: &[T], other: &[T]) -> Result<Box<[T]>, &'static str> {
        match (one, other) {
            ([], list) | (list, []) => Ok(list.into()),
            (_, _) => Err(name),
        }
    }
    fn joined<T: Clone>(one: &[T], other: &[T]) -> Box<[T]> {
        one.iter().chain(other).cloned().collect()
    }
    let When { peers, source, sni, ports, methods, hosts, paths, headers, claims } = one;
    Ok(When {
        peers: either("identities", peers, &other.peers)?,
        source: either("networks", source, &other.source)?,
        sni: either("server names", sni, &other.sni)?,
        ports: either("ports", ports, &other.ports)?,
        methods: either("methods", methods, &other.methods)?,
        hosts: either("hosts", hosts, &other.hosts)?,
        paths: either("paths", paths, &other.paths)?,
        headers: joined(headers, &other.headers),
        claims: joined(claims, &other.claims),
    })
}
