//! What is the same for many, kept once: of ten thousand clusters most are set up as one of a few.

use std::sync::Arc;

/// Values seen lately, to be shared by those that are equal.
#[derive(Debug)]
pub struct Alike<T> {
    /// The last that came is the last.
    seen: Vec<Arc<T>>,
}

impl<T> Default for Alike<T> {
    fn default() -> Self {
        Self { seen: Vec::new() }
    }
}

impl<T: PartialEq> Alike<T> {
    /// How many different values are looked at.
    const MOST: usize = 16;

    /// The value, or one that is equal to it and was there before.
    pub fn share(&mut self, value: Arc<T>) -> Arc<T> {
        // What many are, the next one likely is too.
        let known = self.seen.iter().rposition(|seen| *seen == value);
        let value = known.map_or(value, |place| self.seen.remove(place));
        if self.seen.len() == Self::MOST {
            self.seen.remove(0);
        }
        self.seen.push(Arc::clone(&value));
        value
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_equal_is_one() {
        let mut alike = Alike::default();
        let first = alike.share(Arc::new(1));
        assert!(!Arc::ptr_eq(&first, &alike.share(Arc::new(2))));
        assert!(Arc::ptr_eq(&first, &alike.share(Arc::new(1))));
    }

    proptest! {
        #[test]
        fn it_is_equal_to_what_came_and_little_is_kept(values in proptest::collection::vec(0..40_u8, 0..200)) {
            let mut alike = Alike::default();
            for value in values {
                prop_assert_eq!(*alike.share(Arc::new(value)), value);
                prop_assert!(alike.seen.len() <= Alike::<u8>::MOST);
            }
        }
    }
}
