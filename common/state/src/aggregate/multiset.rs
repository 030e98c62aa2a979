//! A multiset with integer counts: the group behind every aggregate that has
//! to survive the retraction of its result.

use std::collections::BTreeMap;
use std::collections::btree_map::{Entry, Iter};

use crate::aggregate::Mergeable;
use crate::codec::{DecodeError, Reader, write_i64, write_u64};
use crate::value::Value;

/// Members with counts, in order. A count may be negative until the multiset
/// is combined with the one that holds the member; a zero count is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Multiset<K>(BTreeMap<K, i64>);

impl<K> Default for Multiset<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Multiset<K> {
    /// Adds `count` (which may be negative) to a member's count.
    pub(crate) fn add(&mut self, member: &K, count: i64) {
        if count == 0 {
            return;
        }
        // Most updates meet a member that is there: look before cloning it.
        if let Some(held) = self.0.get_mut(member) {
            *held = held.wrapping_add(count);
            if *held == 0 {
                self.0.remove(member);
            }
        } else {
            self.0.insert(member.clone(), count);
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        for (member, count) in &other.0 {
            match self.0.entry(member.clone()) {
                Entry::Occupied(mut entry) => {
                    *entry.get_mut() = entry.get().wrapping_add(*count);
                    if *entry.get() == 0 {
                        entry.remove();
                    }
                }
                Entry::Vacant(entry) => {
                    entry.insert(*count);
                }
            }
        }
    }

    pub(crate) fn negate_counts(&mut self) {
        self.0.values_mut().for_each(|count| *count = count.wrapping_neg());
    }

    /// Iterates members and counts in the order of the members.
    pub fn iter(&self) -> Iter<'_, K, i64> {
        self.0.iter()
    }

    /// Iterates, from both ends, the members that are really there.
    pub(crate) fn present(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.0.iter().filter(|(_, count)| **count > 0).map(|(member, _)| member)
    }

    /// Returns the number of different members.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Appends the number of members, then each member and its count.
    pub(crate) fn write_with(&self, out: &mut Vec<u8>, write: impl Fn(&mut Vec<u8>, &K)) {
        write_u64(out, self.0.len() as u64);
        for (member, count) in &self.0 {
            write(out, member);
            write_i64(out, *count);
        }
    }

    /// Reads what [`Multiset::write_with`] wrote: members ascending, no count zero.
    pub(crate) fn read_with<'a>(
        reader: &mut Reader<'a>,
        read: impl Fn(&mut Reader<'a>) -> Result<K, DecodeError>,
    ) -> Result<Self, DecodeError> {
        let length = reader.u64()?;
        let mut members = BTreeMap::new();
        for _ in 0..length {
            let member = read(reader)?;
            if members.last_key_value().is_some_and(|(last, _)| *last >= member) {
                return Err(reader.broken("members of a multiset are not in order"));
            }
            match reader.i64()? {
                0 => return Err(reader.broken("a member of a multiset has count zero")),
                count => members.insert(member, count),
            };
        }
        Ok(Self(members))
    }
}

impl Mergeable for Multiset<Value> {
    fn update(&mut self, value: &Value, sign: i64) {
        match value {
            Value::Null => {}
            Value::At(_, value) if value.is_null() => {}
            _ => self.add(value, sign),
        }
    }

    fn combine(&mut self, other: &Self) {
        self.merge(other);
    }

    fn negate(&mut self) {
        self.negate_counts();
    }

    fn is_zero(&self) -> bool {
        self.is_empty()
    }

    fn write(&self, out: &mut Vec<u8>) {
        self.write_with(out, |out, value| value.encode_ordered(out));
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Self::read_with(reader, Reader::value)
    }
}
