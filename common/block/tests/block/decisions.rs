//! The ledger against a model that is a plain list.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sanso_block::{Admission, BlockId, Bounds, FilePlace, Found, Ledger};
use sanso_state::StorageLevel;

use crate::support::id;

/// What a driver may do.
#[derive(Clone, Debug)]
enum Step {
    Put { block: u64, level: StorageLevel, bytes: u64, disk_works: bool },
    Use { block: u64, level: StorageLevel },
    Remove { block: u64 },
    Damage { block: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let block = || 0..12u64;
    let level = || prop::sample::select(StorageLevel::ALL.to_vec());
    prop_oneof![
        6 => (block(), level(), 1..60u64, prop::bool::weighted(0.9))
            .prop_map(|(block, level, bytes, disk_works)| Step::Put { block, level, bytes, disk_works }),
        4 => (block(), level()).prop_map(|(block, level)| Step::Use { block, level }),
        1 => block().prop_map(|block| Step::Remove { block }),
        1 => block().prop_map(|block| Step::Damage { block }),
    ]
}

/// A block as the model knows it. The list of them is in order of use.
#[derive(Clone, Debug)]
struct Known {
    block: BlockId,
    level: StorageLevel,
    bytes: u64,
    in_memory: bool,
    on_disk: bool,
}

#[derive(Debug)]
struct Model {
    bounds: Bounds,
    blocks: Vec<Known>,
}

impl Model {
    fn take(&mut self, block: BlockId) -> Option<Known> {
        let at = self.blocks.iter().position(|known| known.block == block)?;
        Some(self.blocks.remove(at))
    }

    fn memory(&self) -> u64 {
        self.blocks.iter().filter(|known| known.in_memory).map(|known| known.bytes).sum()
    }

    fn disk(&self) -> u64 {
        self.blocks.iter().filter(|known| known.on_disk).map(|known| known.bytes).sum()
    }

    /// Writes a block's file, if there is room and the disk works.
    fn write(&mut self, block: BlockId, disk_works: bool) {
        let bytes = self.known(block).bytes;
        if bytes > self.bounds.disk_bytes_max || self.bounds.folders == 0 {
            return;
        }
        while self.disk() + bytes > self.bounds.disk_bytes_max {
            let doubled = self.blocks.iter().position(|other| other.on_disk && other.in_memory);
            let victim = doubled.or_else(|| self.blocks.iter().position(|other| other.on_disk));
            self.blocks[victim.expect("something is on disk")].on_disk = false;
        }
        self.known(block).on_disk = disk_works;
    }

    fn known(&mut self, block: BlockId) -> &mut Known {
        self.blocks.iter_mut().find(|known| known.block == block).expect("a known block")
    }

    fn put(&mut self, block: BlockId, level: StorageLevel, bytes: u64, disk_works: bool) {
        let before =
            self.take(block).unwrap_or(Known { block, level, bytes, in_memory: false, on_disk: false });
        self.blocks.push(Known { level, ..before });
        let wants = level != StorageLevel::None && !before.in_memory;
        if wants && level.in_memory() && bytes <= self.bounds.memory_bytes_max {
            while self.memory() + bytes > self.bounds.memory_bytes_max {
                let victim =
                    self.blocks.iter().find(|known| known.in_memory).expect("something in memory").clone();
                if victim.level.on_disk() && !victim.on_disk {
                    self.write(victim.block, disk_works);
                }
                self.known(victim.block).in_memory = false;
            }
            self.known(block).in_memory = true;
        } else if wants && level.on_disk() && !before.on_disk {
            self.write(block, disk_works);
        }
        self.blocks.retain(|known| known.in_memory || known.on_disk);
    }
}

/// Drives the ledger as the store does; a disk that does not work fails in every folder.
fn put(
    ledger: &mut Ledger,
    block: BlockId,
    level: StorageLevel,
    bytes: u64,
    disk_works: bool,
    sizes: &Sizes,
) {
    loop {
        match ledger.admit(block, level, bytes).0 {
            Admission::Kept | Admission::Known | Admission::Refused => return,
            Admission::Write => return write(ledger, block, level, bytes, disk_works),
            Admission::Spill(victim) => {
                write(ledger, victim, StorageLevel::MemoryDisk, sizes(victim), disk_works);
                ledger.left(victim);
            }
        }
    }
}

fn write(ledger: &mut Ledger, block: BlockId, level: StorageLevel, bytes: u64, disk_works: bool) {
    let mut avoided = BTreeSet::new();
    while let Some(placed) = ledger.place(block, level, bytes, &avoided) {
        if disk_works {
            assert!(ledger.written(block, placed.file));
            return;
        }
        ledger.lost(block, placed.file);
        avoided.insert(placed.file.folder);
    }
}

type Sizes<'a> = dyn Fn(BlockId) -> u64 + 'a;

fn same(ledger: &Ledger, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!(ledger.memory_bytes(), model.memory());
    prop_assert_eq!(ledger.disk_bytes(), model.disk());
    prop_assert_eq!(ledger.len(), model.blocks.len());
    for known in &model.blocks {
        let found = ledger.find(known.block);
        prop_assert_eq!(found == Found::Memory, known.in_memory);
        prop_assert_eq!(matches!(found, Found::File(_)), !known.in_memory && known.on_disk);
    }
    Ok(())
}

proptest! {
    #[test]
    fn the_ledger_does_what_a_plain_list_does(
        steps in prop::collection::vec(step(), 1..120),
        memory_bytes_max in 0..150u64,
        disk_bytes_max in 0..200u64,
        folders in 0..4usize,
    ) {
        let bounds = Bounds { memory_bytes_max, disk_bytes_max, folders };
        let (mut ledger, mut model) = (Ledger::new(bounds), Model { bounds, blocks: Vec::new() });
        let mut sizes = std::collections::BTreeMap::new();
        for step in steps {
            match step {
                Step::Put { block, level, bytes, disk_works } => {
                    let bytes = *sizes.entry(id(block)).or_insert(bytes);
                    put(&mut ledger, id(block), level, bytes, disk_works, &|block| sizes[&block]);
                    model.put(id(block), level, bytes, disk_works);
                }
                Step::Use { block, level } => {
                    ledger.used(id(block), level);
                    if let Some(known) = model.take(id(block)) {
                        model.blocks.push(Known { level, ..known });
                    }
                }
                Step::Remove { block } => {
                    let file = ledger.remove(id(block));
                    let known = model.take(id(block));
                    prop_assert_eq!(file.is_some(), known.is_some_and(|known| known.on_disk));
                }
                Step::Damage { block } => {
                    if let Found::File(file) = ledger.find(id(block)) {
                        ledger.lost(id(block), file);
                        model.take(id(block));
                    }
                }
            }
            prop_assert!(ledger.memory_bytes() <= memory_bytes_max);
            prop_assert!(ledger.disk_bytes() <= disk_bytes_max);
            same(&ledger, &model)?;
        }
    }
}

fn ledger(memory_bytes_max: u64, disk_bytes_max: u64, folders: usize) -> Ledger {
    Ledger::new(Bounds { memory_bytes_max, disk_bytes_max, folders })
}

#[test]
fn files_are_spread_over_all_folders() {
    let mut ledger = ledger(0, 1000, 3);
    let place = |ledger: &mut Ledger, block, bytes| {
        ledger.place(id(block), StorageLevel::Disk, bytes, &BTreeSet::new()).expect("room").file.folder
    };
    let folders: Vec<usize> = (0..6).map(|block| place(&mut ledger, block, 10)).collect();
    assert_eq!(folders, [0, 1, 2, 0, 1, 2]);
    let avoided = BTreeSet::from([0, 2]);
    let placed = ledger.place(id(9), StorageLevel::Disk, 10, &avoided).expect("room");
    assert_eq!(placed.file.folder, 1, "the others do not work");
    assert_eq!(ledger.place(id(10), StorageLevel::Disk, 10, &BTreeSet::from([0, 1, 2])), None);
}

#[test]
fn a_file_that_is_being_written_makes_no_room_and_is_not_there() {
    let mut ledger = ledger(0, 100, 1);
    let first = ledger.place(id(1), StorageLevel::Disk, 60, &BTreeSet::new()).expect("room").file;
    assert_eq!(ledger.find(id(1)), Found::Nowhere);
    assert_eq!(ledger.place(id(2), StorageLevel::Disk, 60, &BTreeSet::new()), None);
    assert!(ledger.written(id(1), first));
    assert_eq!(ledger.find(id(1)), Found::File(first));
    let second = ledger.place(id(2), StorageLevel::Disk, 60, &BTreeSet::new()).expect("room");
    assert_eq!(second.deleted, [(id(1), first)]);
}

#[test]
fn a_file_written_for_a_block_that_was_removed_meanwhile_is_not_wanted() {
    let mut ledger = ledger(0, 100, 1);
    let first = ledger.place(id(1), StorageLevel::Disk, 60, &BTreeSet::new()).expect("room").file;
    assert_eq!(ledger.remove(id(1)), None, "there is nothing to delete yet");
    let second = ledger.place(id(1), StorageLevel::Disk, 60, &BTreeSet::new()).expect("room").file;
    assert!(!ledger.written(id(1), first));
    assert!(ledger.written(id(1), second));
    ledger.lost(id(1), first);
    assert_eq!(ledger.find(id(1)), Found::File(second));
}

#[test]
fn files_of_an_earlier_life_fit_the_bound_of_this_one() {
    let mut ledger = ledger(0, 100, 1);
    let file = |serial, bytes| FilePlace { folder: 0, serial, bytes };
    assert_eq!(ledger.found(id(1), file(7, 60)), []);
    assert_eq!(ledger.found(id(2), file(9, 101)), [(id(2), file(9, 101))], "larger than the bound");
    assert_eq!(ledger.found(id(3), file(8, 60)), [(id(1), file(7, 60))]);
    assert_eq!(ledger.found(id(3), file(5, 30)), [(id(3), file(8, 60))], "one file of each block");
    let new = ledger.place(id(4), StorageLevel::Disk, 10, &BTreeSet::new()).expect("room").file;
    assert!(new.serial > 9, "serial numbers are never used again");
}
