//! The limit's rules by table, and the limit before a made-up service: so many at once, the others in line.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::*;

const MS: f64 = 1e6;

fn gradient(max: u32) -> Gradient {
    Gradient::new(Config::default(), NonZeroU32::new(max).unwrap(), None)
}

#[test]
fn it_doubles_until_answers_take_longer_and_then_goes_step_by_step() {
    let mut limit = gradient(1000);
    // (mean in ms, most under way, the limit that follows)
    let rows = [
        (10.0, 20, 40),
        (12.0, 40, 80),
        // Not used: it stays.
        (10.0, 9, 80),
        (10.0, 80, 160),
        // Four times as long: halved, and the next window is left out.
        (40.0, 160, 80),
        (35.0, 160, 80),
        // It has helped.
        (15.0, 80, 88),
        (15.0, 88, 98),
    ];
    for (row, (mean, most, expected)) in rows.into_iter().enumerate() {
        assert_eq!(limit.next(mean * MS, most), expected, "row {row}");
    }
}

#[test]
fn a_service_that_has_become_slower_is_not_held_down() {
    let mut limit = gradient(100);
    limit.next(10.0 * MS, 20);
    let before = limit.limit as u32;
    let mut least = before;
    let mut windows = 0;
    // It takes 50 ms from now on, however few there are.
    while limit.limit as u32 <= before {
        least = least.min(limit.next(50.0 * MS, limit.limit as u32));
        windows += 1;
        assert!(windows < 10, "{limit:?}");
    }
    assert!(least >= before / 2, "it was looked at whether half of them is enough: {least}");
    let alone = limit.alone.unwrap();
    assert!((alone - 50.0 * MS).abs() < MS, "{alone}");
}

#[test]
fn at_its_least_it_learns_too() {
    let five = NonZeroU32::new(5).unwrap();
    let mut limit = Gradient::new(Config { min: five, ..Config::default() }, five, None);
    limit.next(10.0 * MS, 5);
    for _ in 0..100 {
        assert_eq!(limit.next(50.0 * MS, 5), 5);
    }
    assert!(limit.alone.unwrap() * limit.tolerance >= 50.0 * MS);
}

/// So many at once, each for so long; the others wait in line.
struct Service {
    places: usize,
    takes: Duration,
    busy: BinaryHeap<Reverse<(Duration, Duration)>>,
    line: VecDeque<Duration>,
}

impl Service {
    fn fill(&mut self, now: Duration) {
        while self.busy.len() < self.places
            && let Some(came) = self.line.pop_front()
        {
            self.busy.push(Reverse((now + self.takes, came)));
        }
    }
}

/// What a stretch of time came to.
#[derive(Debug)]
struct Stretch {
    served: u32,
    refused: u32,
    /// The longest of the last answers.
    slowest: Duration,
    limit: u32,
}

struct World {
    limit: Adaptive,
    now_limit: u32,
    service: Service,
    now: Duration,
}

impl World {
    fn new(places: usize, takes: Duration) -> Self {
        let max = NonZeroU32::new(1000).unwrap();
        let config = Config::default();
        let service = Service { places, takes, busy: BinaryHeap::new(), line: VecDeque::new() };
        let limit = Adaptive::new(config, max, None);
        Self { now_limit: limit.first(), limit, service, now: Duration::ZERO }
    }

    /// A request comes so often, for so long, whatever becomes of the others.
    fn run(&mut self, every: Duration, length: Duration) -> Stretch {
        let end = self.now + length;
        let mut arrival = self.now;
        let mut stretch = Stretch { served: 0, refused: 0, slowest: Duration::ZERO, limit: 0 };
        while arrival < end {
            let leaves = self.service.busy.peek().map(|Reverse((at, _))| *at);
            if let Some(at) = leaves.filter(|at| *at <= arrival) {
                let Reverse((_, came)) = self.service.busy.pop().unwrap();
                self.now = at;
                let under_way = (self.service.busy.len() + self.service.line.len() + 1) as u32;
                let took = Took::Exactly(at - came);
                self.limit.answered(took, under_way, at, |limit| self.now_limit = limit);
                stretch.served += 1;
                if at + Duration::from_secs(1) > end {
                    stretch.slowest = stretch.slowest.max(at - came);
                }
            } else {
                self.now = arrival;
                arrival += every;
                if self.service.busy.len() + self.service.line.len() < self.now_limit as usize {
                    self.service.line.push_back(self.now);
                } else {
                    stretch.refused += 1;
                }
            }
            self.service.fill(self.now);
        }
        stretch.limit = self.now_limit;
        stretch
    }
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn us(us: u64) -> Duration {
    Duration::from_micros(us)
}

#[test]
fn twice_what_a_service_can_do_makes_a_short_line_and_loses_nothing_of_what_it_can() {
    // 2000 a second at the most, asked for 4000.
    let mut world = World::new(20, ms(10));
    world.run(us(250), Duration::from_secs(20));
    let then = world.run(us(250), Duration::from_secs(10));
    assert!(then.served >= 19_500, "{then:?}");
    assert!(then.slowest <= ms(35), "without a limit it would be 500 ms: {then:?}");
}

#[test]
fn where_there_is_room_nobody_is_refused() {
    let mut world = World::new(100, ms(10));
    world.run(us(250), Duration::from_secs(5));
    let then = world.run(us(250), Duration::from_secs(10));
    assert_eq!((then.refused, then.slowest), (0, ms(10)), "{then:?}");
}

#[test]
fn a_service_that_becomes_slower_and_faster_again_is_followed_without_a_pause() {
    let mut world = World::new(20, ms(10));
    world.run(us(1000), Duration::from_secs(10));
    world.service.takes = ms(40);
    // 500 a second at the most from now on, asked for 1000.
    for second in 0..30 {
        let then = world.run(us(1000), Duration::from_secs(1));
        // Half of what it can do, for as long as it is found out whether half as many are enough.
        let least = if second < 3 { 150 } else { 450 };
        assert!(then.served >= least, "second {second}: {then:?}");
    }
    let then = world.run(us(1000), Duration::from_secs(10));
    assert!(then.served >= 4_800 && then.slowest <= ms(140), "{then:?}");
    world.service.takes = ms(10);
    world.run(us(250), Duration::from_secs(20));
    let then = world.run(us(250), Duration::from_secs(10));
    assert!(then.served >= 19_500 && then.slowest <= ms(35), "{then:?}");
}

#[test]
fn one_of_many_threads_ends_a_window() {
    let limit = Adaptive::new(Config::default(), NonZeroU32::new(100).unwrap(), None);
    let decided = AtomicU32::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    limit.answered(Took::Exactly(ms(1)), 1, Duration::from_secs(1), |_| {
                        decided.fetch_add(1, Relaxed);
                    });
                }
            });
        }
    });
    assert_eq!(decided.into_inner(), 1);
}

#[test]
fn a_little_less_helps_a_little() {
    let min = NonZeroU32::new(50).unwrap();
    let config = Config { min, ..Config::default() };
    let mut limit = Gradient::new(config, NonZeroU32::new(1000).unwrap(), None);
    limit.next(10.0 * MS, 10);
    limit.limit = 57.0;
    assert_eq!(limit.next(28.5 * MS, 57), 50, "lowered as far as it may be");
    limit.next(26.0 * MS, 57);
    // In proportion: the crowd was what made them slow.
    assert_eq!(limit.next(25.0 * MS, 50), 50);
    assert!(limit.alone.unwrap() < 15.0 * MS, "{limit:?}");
}

#[test]
fn what_is_not_waited_for_counts_once_it_is_slow() {
    let limit = Adaptive::new(Config::default(), NonZeroU32::new(100).unwrap(), None);
    let tell = |took: fn(Duration) -> Took, time, now| {
        let mut after = None;
        for _ in 0..ENOUGH {
            limit.answered(took(time), 20, Duration::from_secs(now), |limit| after = Some(limit));
        }
        after
    };
    assert_eq!(tell(Took::MoreThan, ms(500), 1), None, "nothing is known yet");
    assert_eq!(tell(Took::Exactly, ms(10), 1), Some(40));
    assert_eq!(tell(Took::MoreThan, ms(5), 2), None, "failures are fast");
    // All of them time out, and no answer comes at all.
    assert_eq!(tell(Took::MoreThan, ms(1000), 3), Some(40), "with twenty of forty it is not crowded");
    assert!(limit.lock().alone.unwrap() > 10.0 * MS);
}
