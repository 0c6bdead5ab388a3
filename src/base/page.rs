//! Pages of long lists: an opaque cursor that names where the last page ended.

use std::{fmt, str::FromStr};

use uuid::Uuid;

/// Where the next page starts: just after the thing with this id, in the list's order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(pub Uuid);

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "c1_{}", self.0.simple())
    }
}

impl FromStr for Cursor {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        s.strip_prefix("c1_")
            .filter(|hex| hex.len() == 32)
            .and_then(|hex| Uuid::try_parse(hex).ok())
            .map(Self)
            .ok_or_else(|| "is not a cursor: pass `meta.next_cursor` of the page before, unchanged".to_owned())
    }
}

/// Which page of a list is wanted.
#[derive(Clone, Copy, Debug)]
pub struct PageRequest {
    /// At most this many entries.
    pub limit: usize,
    /// Start after this one; the list's beginning if none.
    pub after: Option<Cursor>,
}

/// One page of a list.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The entries, in the list's order.
    pub data: Vec<T>,
    /// Where the next page starts; none at the end of the list.
    pub next: Option<Cursor>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_refuse_anything_else() {
        let c = Cursor(Uuid::from_u128(7));
        assert_eq!(c.to_string().parse::<Cursor>().unwrap(), c);
        for bad in ["", "c1_", "c1_zz", "c2_00000000000000000000000000000007", "00000000000000000000000000000007"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
