//! A multiset with integer counts: the group behind every aggregate that has
//! to survive the retraction of its result.

use std::collections::{BTreeMap, btree_map};
use std::slice;

use crate::aggregate::Mergeable;
use crate::codec::{DecodeError, Reader, write_i64, write_u64};
use crate::value::Value;

/// Up to this many members lie in one sorted array, more in a tree. Most
/// groups have few, and a tree's first node has room for eleven.
const FEW_MAX: usize = 16;

/// Members with counts, in order. A count may be negative until the multiset
/// is combined with the one that holds the member; a zero count is not kept.
#[derive(Clone, Debug)]
pub struct Multiset<K>(Members<K>);

/// Which of the two it is says nothing about the content.
#[derive(Clone, Debug)]
enum Members<K> {
    Few(Vec<(K, i64)>),
    Many(BTreeMap<K, i64>),
}

impl<K> Default for Multiset<K> {
    fn default() -> Self {
        Self(Members::Few(Vec::new()))
    }
}

impl<K: PartialEq> PartialEq for Multiset<K> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<K: Eq> Eq for Multiset<K> {}

/// Iterates members and counts in the order of the members.
#[derive(Clone, Debug)]
pub(crate) enum Iter<'a, K> {
    Few(slice::Iter<'a, (K, i64)>),
    Many(btree_map::Iter<'a, K, i64>),
}

impl<'a, K> Iterator for Iter<'a, K> {
    type Item = (&'a K, &'a i64);

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Iter::Few(iter) => iter.next().map(|(member, count)| (member, count)),
            Iter::Many(iter) => iter.next(),
        }
    }
}

impl<K> DoubleEndedIterator for Iter<'_, K> {
    fn next_back(&mut self) -> Option<Self::Item> {
        match self {
            Iter::Few(iter) => iter.next_back().map(|(member, count)| (member, count)),
            Iter::Many(iter) => iter.next_back(),
        }
    }
}

impl<K> Multiset<K> {
    pub(crate) fn iter(&self) -> Iter<'_, K> {
        match &self.0 {
            Members::Few(members) => Iter::Few(members.iter()),
            Members::Many(members) => Iter::Many(members.iter()),
        }
    }

    /// Returns the number of different members.
    pub fn len(&self) -> usize {
        match &self.0 {
            Members::Few(members) => members.len(),
            Members::Many(members) => members.len(),
        }
    }

    /// Says whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Ord + Clone> Multiset<K> {
    /// Adds `count` (which may be negative) to a member's count.
    pub(crate) fn add(&mut self, member: &K, count: i64) {
        if count == 0 {
            return;
        }
        match &mut self.0 {
            Members::Few(members) => match members.binary_search_by(|(held, _)| held.cmp(member)) {
                Ok(at) => {
                    members[at].1 = members[at].1.wrapping_add(count);
                    if members[at].1 == 0 {
                        members.remove(at);
                    }
                }
                Err(at) if members.len() < FEW_MAX => members.insert(at, (member.clone(), count)),
                Err(_) => {
                    let mut many: BTreeMap<K, i64> = std::mem::take(members).into_iter().collect();
                    many.insert(member.clone(), count);
                    self.0 = Members::Many(many);
                }
            },
            // Most updates meet a member that is there: look before cloning it.
            Members::Many(members) => match members.get_mut(member) {
                Some(held) => {
                    *held = held.wrapping_add(count);
                    if *held == 0 {
                        members.remove(member);
                    }
                }
                None => {
                    members.insert(member.clone(), count);
                }
            },
        }
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        other.iter().for_each(|(member, count)| self.add(member, *count));
    }

    pub(crate) fn negate_counts(&mut self) {
        match &mut self.0 {
            Members::Few(members) => members.iter_mut().for_each(|(_, count)| *count = count.wrapping_neg()),
            Members::Many(members) => members.values_mut().for_each(|count| *count = count.wrapping_neg()),
        }
    }

    /// Iterates, from both ends, the members that are really there.
    pub(crate) fn present(&self) -> impl DoubleEndedIterator<Item = &K> {
        self.iter().filter(|(_, count)| **count > 0).map(|(member, _)| member)
    }

    /// Appends the number of members, then each member and its count.
    pub(crate) fn write_with(&self, out: &mut Vec<u8>, write: impl Fn(&mut Vec<u8>, &K)) {
        write_u64(out, self.len() as u64);
        for (member, count) in self.iter() {
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
        let mut multiset = Self::default();
        for _ in 0..length {
            let member = read(reader)?;
            if multiset.iter().next_back().is_some_and(|(last, _)| *last >= member) {
                return Err(reader.broken("members of a multiset are not in order"));
            }
            match reader.i64()? {
                0 => return Err(reader.broken("a member of a multiset has count zero")),
                count => multiset.add(&member, count),
            }
        }
        Ok(multiset)
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn folded(changes: &[(u8, i64)]) -> BTreeMap<u8, i64> {
        let mut plain = BTreeMap::new();
        for (member, count) in changes {
            *plain.entry(*member).or_default() += count;
        }
        plain.retain(|_, count| *count != 0);
        plain
    }

    fn multiset(changes: &[(u8, i64)]) -> Multiset<u8> {
        let mut multiset = Multiset::default();
        changes.iter().for_each(|(member, count)| multiset.add(member, *count));
        multiset
    }

    /// About as many members as lie in an array, and changes that cancel out.
    fn changes() -> impl Strategy<Value = Vec<(u8, i64)>> {
        proptest::collection::vec((0..3 * FEW_MAX as u8, -2_i64..=2), 0..120)
    }

    proptest! {
        #![proptest_config(crate::aggregate::same_cases())]

        #[test]
        fn an_array_and_a_tree_hold_the_same(a in changes(), b in changes()) {
            let (left, right) = (multiset(&a), multiset(&b));
            let plain = folded(&a);
            prop_assert!(left.iter().eq(plain.iter()));
            prop_assert!(left.iter().rev().eq(plain.iter().rev()));
            let mut merged = left.clone();
            merged.merge(&right);
            let whole = folded(&[a, b].concat());
            prop_assert!(merged.iter().eq(whole.iter()));
            prop_assert_eq!(merged.len(), whole.len());
            prop_assert_eq!(&merged, &multiset(&whole.into_iter().collect::<Vec<_>>()));
        }
    }

    #[test]
    fn what_shrank_equals_what_never_grew() {
        let members = 0..2 * FEW_MAX as u8;
        let mut shrunk = Multiset::default();
        members.clone().for_each(|member| shrunk.add(&member, 1));
        members.skip(1).for_each(|member| shrunk.add(&member, -1));
        assert_eq!(shrunk, multiset(&[(0, 1)]));
    }
}
