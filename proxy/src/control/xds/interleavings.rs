//! Whatever part of what a control plane says comes before whatever other, no request meets a cluster without endpoints, and
//! nothing that was in force in one version is in force in an older one again: neither later, nor beside it.
//!
//! The server here keeps to the protocol and to nothing else: what there is changes as a whole, and is told resource by
//! resource, in whatever order, and what the proxy asks for is heard whenever. Streams end in between.

mod parts;
mod proxy;
mod server;

use outrigger_proto::xds::Kind;
use proptest::collection::vec;
use proptest::prelude::*;

use self::proxy::Proxy;
use self::server::{Server, Wire};
use super::delta::Delta;
use super::sotw::Sotw;

/// How many there may be of each kind.
const MOST: u8 = 4;
/// Of which kinds there are some, in the order in which they refer to each other.
const KINDS: [Kind; 4] = [Kind::Listener, Kind::Routes, Kind::Cluster, Kind::Endpoints];

/// What happens next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A resource is another, and refers to these; a listener may be new. What nothing refers to any more is gone.
    Put(Kind, u8, [u8; 2]),
    /// A listener is gone, and all that only it needed.
    Drop(u8),
    /// Something that is new is said.
    Say(usize),
    /// What the proxy has said is heard.
    Hear,
    /// The stream ends, with all that was under way, and another begins.
    Lose,
}

impl Step {
    /// One of them all: a number is soon drawn.
    fn of(number: u32) -> Self {
        let (which, rest) = (number % 80, number / 80);
        let of = |place: u32| u8::try_from(rest >> (2 * place) & 3).expect("two bits");
        match which {
            0..16 => Self::Put(KINDS[usize::from(of(0))], of(1), [of(2), of(3)]),
            16..18 => Self::Drop(of(0)),
            18..58 => Self::Say(rest as usize),
            58..79 => Self::Hear,
            _ => Self::Lose,
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    vec(any::<u32>().prop_map(Step::of), 0..50)
}

/// What is told from the beginning.
const FIRST: [(Kind, u8, [u8; 2]); 3] =
    [(Kind::Listener, 0, [0, 0]), (Kind::Listener, 1, [1, 1]), (Kind::Routes, 1, [1, 2])];

fn run<P: Wire>(speaks: P, steps: &[Step]) {
    let (mut server, mut proxy) = (Server::<P>::new(), Proxy::new(speaks));
    FIRST.into_iter().for_each(|(kind, number, to)| server.put(kind, number, to));
    server.begin(proxy.begin());
    // Whoever begins is told all clusters there are; what leads to others leads nowhere.
    for kind in [Kind::Cluster, Kind::Listener] {
        server.hear();
        proxy.take(server.say_all(kind), &mut server);
    }
    settle(&mut server, &mut proxy);
    for step in steps {
        match *step {
            Step::Put(kind, number, to) => server.put(kind, number, to),
            Step::Drop(number) => server.drop_listener(number),
            Step::Say(which) => {
                if let Some(said) = server.say(which) {
                    proxy.take(said, &mut server);
                }
            }
            Step::Hear => server.hear(),
            Step::Lose => server.begin(proxy.begin()),
        }
    }
    settle(&mut server, &mut proxy);
}

/// All that is under way arrives, and is what there is.
fn settle<P: Wire>(server: &mut Server<P>, proxy: &mut Proxy<P>) {
    while server.is_busy() {
        server.hear();
        if let Some(said) = server.say(0) {
            proxy.take(said, server);
        }
    }
    assert_eq!(proxy.in_force(), server.world());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_cold_or_older_than_it_was_whatever_comes_first(steps in steps()) {
        run(Delta, &steps);
    }

    #[test]
    fn nothing_is_cold_or_older_than_it_was_by_the_state_of_the_world(steps in steps()) {
        run(Sotw::default(), &steps);
    }
}
