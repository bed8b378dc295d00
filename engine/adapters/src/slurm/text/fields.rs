//! The `key=value` scanner shared by all records.

/// A field that was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Slot<'a> {
    /// The key is not there.
    #[default]
    Missing,
    /// The key is there once.
    Once(&'a str),
    /// The key is there more than once, or its value goes on where none should: which one is true cannot be told.
    Unclear,
}

impl<'a> Slot<'a> {
    pub(crate) fn put(&mut self, value: &'a str) {
        *self = match self {
            Self::Missing => Self::Once(value),
            Self::Once(_) | Self::Unclear => Self::Unclear,
        };
    }

    /// Returns the value if it is certain.
    pub(crate) fn get(self) -> Option<&'a str> {
        match self {
            Self::Once(v) => Some(v),
            Self::Missing | Self::Unclear => None,
        }
    }
}

/// What to do with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    /// A field to keep, by its slot.
    Slot(usize),
    /// A field of no interest, or whose value may hold blanks.
    Skip,
    /// From here on the text is free.
    Stop,
}

/// Scans words of the form `key=value` and keeps those that `lookup` asks for.
///
/// Blanks and control characters separate words. Returns the slots and the position of the key that stopped the scan, or
/// the length of the text.
#[inline]
pub(crate) fn scan<const N: usize>(text: &str, lookup: impl Fn(&[u8]) -> Key) -> ([Slot<'_>; N], usize) {
    let mut words = Words { text, slots: [Slot::Missing; N], last: None, start: 0, equals: 0 };
    let (chunks, rest) = text.as_bytes().as_chunks::<8>();
    for (i, chunk) in chunks.iter().enumerate() {
        let (blank, equals) = marks(u64::from_le_bytes(*chunk));
        let mut both = blank | equals;
        while both != 0 {
            let at = i * 8 + (both.trailing_zeros() / 8) as usize;
            if blank & both & both.wrapping_neg() == 0 {
                words.equals(at);
            } else if let Some(stop) = words.end(at, &lookup) {
                return (words.slots, stop);
            }
            both &= both - 1;
        }
    }
    for (i, byte) in rest.iter().enumerate() {
        let at = text.len() - rest.len() + i;
        if *byte == b'=' {
            words.equals(at);
        } else if *byte <= b' '
            && let Some(stop) = words.end(at, &lookup)
        {
            return (words.slots, stop);
        }
    }
    let stop = words.end(text.len(), &lookup).unwrap_or(text.len());
    (words.slots, stop)
}

/// Marks the bytes of a word of eight that are blank (at most 0x20) and that are `=`, each by its highest bit.
///
/// Eight bytes at a time, since a fleet's text is some megabytes and read often.
#[inline]
fn marks(word: u64) -> (u64, u64) {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    const fn all(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    // No carry leaves a byte: both summands are at most 0x7f.
    let above_blank = (word & LOW) + all(0x7f - b' ');
    let other = word ^ all(b'=');
    let not_equals = (other & LOW) + LOW;
    (!(above_blank | word) & !LOW, !(not_equals | other) & !LOW)
}

struct Words<'a, const N: usize> {
    text: &'a str,
    slots: [Slot<'a>; N],
    /// Slot of the word before.
    last: Option<usize>,
    /// Begin of the current word.
    start: usize,
    /// Its first `=`, if it lies behind the begin or at it.
    equals: usize,
}

impl<const N: usize> Words<'_, N> {
    #[inline]
    fn equals(&mut self, at: usize) {
        if self.equals < self.start || self.equals == 0 {
            self.equals = at;
        }
    }

    /// Ends the current word before `at`; returns its begin if it stops the scan.
    #[inline]
    fn end(&mut self, at: usize, lookup: &impl Fn(&[u8]) -> Key) -> Option<usize> {
        let start = std::mem::replace(&mut self.start, at + 1);
        if start >= at {
            return None;
        }
        let eq = self.equals;
        if eq < start || self.text.as_bytes()[eq] != b'=' {
            // The value before goes on after a blank. For a field we keep, that is not as it should be.
            if let Some(slot) = self.last {
                self.slots[slot] = Slot::Unclear;
            }
            return None;
        }
        self.last = None;
        match lookup(&self.text.as_bytes()[start..eq]) {
            Key::Slot(n) if n < N => {
                self.slots[n].put(&self.text[eq + 1..at]);
                self.last = Some(n);
                None
            }
            Key::Slot(_) | Key::Skip => None,
            Key::Stop => Some(start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lookup(key: &[u8]) -> Key {
        match key {
            b"State" => Key::Slot(0),
            b"Port" => Key::Slot(1),
            b"Reason" => Key::Stop,
            _ => Key::Skip,
        }
    }

    #[test]
    fn marks_are_exact() {
        for byte in 0..=255u8 {
            for at in 0..8 {
                for fill in [b'a', 0xff, 0x80, b'>', b'<', b'!', 0x1f, b'='] {
                    let mut bytes = [fill; 8];
                    bytes[at] = byte;
                    let (blank, equals) = marks(u64::from_le_bytes(bytes));
                    for (i, b) in bytes.iter().enumerate() {
                        assert_eq!(blank >> (i * 8) & 0xff, if *b <= b' ' { 0x80 } else { 0 }, "{bytes:x?}");
                        assert_eq!(equals >> (i * 8) & 0xff, if *b == b'=' { 0x80 } else { 0 }, "{bytes:x?}");
                    }
                }
            }
        }
    }

    /// The plain way to do the same.
    fn scan_by_words(text: &str) -> ([Slot<'_>; 2], usize) {
        let mut slots = [Slot::Missing; 2];
        let mut last = None;
        for word in text.split(|c: char| c <= ' ').filter(|w| !w.is_empty()) {
            let Some((key, value)) = word.split_once('=') else {
                if let Some(n) = last {
                    slots[n] = Slot::Unclear;
                }
                continue;
            };
            last = None;
            match lookup(key.as_bytes()) {
                Key::Slot(n) => {
                    slots[n].put(value);
                    last = Some(n);
                }
                Key::Skip => {}
                Key::Stop => return (slots, word.as_ptr() as usize - text.as_ptr() as usize),
            }
        }
        (slots, text.len())
    }

    proptest! {
        #[test]
        fn the_fast_way_is_the_plain_way(words in proptest::collection::vec("(State|Port|OS|Reason|x)?=?[=a-c\u{e9}\u{2003}]{0,9}[ \n\t]{0,3}", 0..12)) {
            let text = words.concat();
            prop_assert_eq!(scan::<2>(&text, lookup), scan_by_words(&text), "{:?}", text);
        }
    }

    #[test]
    fn whole_keys_only_and_no_choice_between_two() {
        let (s, at) =
            scan::<2>("NextState=RESUME OS=Linux 6.1 #1 State=IDLE  Port=7 Reason=State=DOWN", lookup);
        assert_eq!(s, [Slot::Once("IDLE"), Slot::Once("7")]);
        assert_eq!(at, 52);
        let (s, _) = scan::<2>("State=IDLE State=DOWN Port=", lookup);
        assert_eq!(s, [Slot::Unclear, Slot::Once("")]);
        let (s, _) = scan::<2>("State=IDLE DRAIN\n   Port=1", lookup);
        assert_eq!(s, [Slot::Unclear, Slot::Once("1")]);
        let (s, at) =
            scan::<2>("x=\u{e9}\u{2003}State=A Port=\u{20ac}\u{20ac}\u{20ac} State=B\tPort=1", lookup);
        assert_eq!((s, at), ([Slot::Once("B"), Slot::Unclear], 44));
        let (s, at) = scan::<2>("", lookup);
        assert_eq!((s, at), ([Slot::Missing; 2], 0));
    }
}
