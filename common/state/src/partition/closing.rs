//! The windows of a view partition that close, for whoever writes them down.
//!
//! Of all replicas of a view partition one emits, so this is no part of what is replicated, and no
//! snapshot has it: whoever begins to emit offers what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ViewPartition;
use crate::entry::{Emission, Windows};
use crate::group::{GroupId, GroupState};
use crate::groups::Groups;

/// What waits for the end of its window, and what has reached it.
#[derive(Clone, Debug)]
pub(super) struct Closing {
    windows: Arc<dyn Windows>,
    pending: BTreeMap<i64, BTreeSet<GroupId>>,
    emissions: Vec<Emission>,
}

impl ViewPartition {
    /// Begins to emit: a window that closes from now on, and every change of one that has closed.
    /// What was there before is emitted once it is offered. Returns false, and emits nothing, while not all of it is in
    /// memory.
    pub fn emit(&mut self, windows: Arc<dyn Windows>) -> bool {
        let all_here = self.runs.is_empty();
        if all_here {
            self.closing = Some(Closing { windows, pending: BTreeMap::new(), emissions: Vec::new() });
        }
        all_here
    }

    /// Returns a copy that emits nothing.
    pub fn copy(&self) -> Self {
        let mut copy = self.clone();
        copy.stop_emitting();
        copy
    }

    /// Forgets what waits, and emits nothing any longer.
    pub fn stop_emitting(&mut self) {
        self.closing = None;
    }

    /// Says whether it emits.
    pub fn is_emitting(&self) -> bool {
        self.closing.is_some()
    }

    /// Returns the names of all groups in memory; those of base and speed come twice.
    pub fn group_ids(&self) -> Vec<GroupId> {
        self.base.groups.ids().chain(self.total.ids()).collect()
    }

    /// Emits the windows of some groups, by their panes, as if these had just been added: now
    /// where they have closed, else when they close. Without effect where nothing is emitted.
    pub fn offer(&mut self, panes: &[GroupId]) {
        let Some(closing) = &self.closing else { return };
        let windows = panes.iter().flat_map(|pane| {
            let all = closing.windows.windows_of(pane.window_start).into_iter();
            all.map(|(start, end)| (GroupId { key: pane.key.clone(), window_start: start }, end))
        });
        let windows: BTreeSet<_> = windows.collect();
        self.offer_windows(windows);
    }

    /// Emits some windows, given with their ends, like [`ViewPartition::offer`]; one that has closed also
    /// when it has no rows, since it may have been emitted when it had some.
    pub fn offer_windows(&mut self, windows: impl IntoIterator<Item = (GroupId, i64)>) {
        let closed_until_us = self.closed_until_us;
        let (closed, open): (Vec<_>, Vec<_>) =
            windows.into_iter().partition(|(_, end)| *end <= closed_until_us);
        let closed = closed.into_iter().map(|(group, window_end)| {
            let state = self.window_state(&group, window_end);
            Emission { group, window_end, state, late: false }
        });
        let closed: Vec<Emission> = closed.collect();
        let Some(closing) = &mut self.closing else { return };
        closing.emissions.extend(closed);
        for (group, end) in open {
            closing.pending.entry(end).or_default().insert(group);
        }
    }

    /// Makes the windows of changed groups pending.
    pub(super) fn note_changes(&mut self, changes: &Groups) {
        let Some(closing) = &mut self.closing else { return };
        for id in changes.ids() {
            for (start, end) in closing.windows.windows_of(id.window_start) {
                self.late_groups += u64::from(end <= self.closed_until_us);
                let window = GroupId { key: id.key.clone(), window_start: start };
                closing.pending.entry(end).or_default().insert(window);
            }
        }
    }

    /// Advances to the watermark and emits what is pending before it.
    pub(super) fn close_windows(&mut self) {
        let before = self.closed_until_us;
        self.closed_until_us = self.watermark_us().unwrap_or(i64::MIN);
        let Some(mut closing) = self.closing.take() else { return };
        while let Some(entry) = closing.pending.first_entry() {
            if *entry.key() > self.closed_until_us {
                break;
            }
            let (window_end, groups) = entry.remove_entry();
            let late = window_end <= before;
            for group in groups {
                let state = self.window_state(&group, window_end);
                // A window that came and went before it closed is nobody's news.
                if state.is_some() || late {
                    closing.emissions.push(Emission { group, window_end, state, late });
                }
            }
        }
        self.closing = Some(closing);
    }

    fn window_state(&self, window: &GroupId, end: i64) -> Option<GroupState> {
        let panes = self.range(&window.key, window.window_start, end);
        panes.into_iter().map(|(_, state)| state).reduce(|mut a, b| {
            a.combine(&b);
            a
        })
    }

    /// Says whether emissions wait for [`Self::take_emissions`].
    pub fn has_emissions(&self) -> bool {
        self.closing.as_ref().is_some_and(|closing| !closing.emissions.is_empty())
    }

    /// Takes the emissions caused since the last call, oldest first.
    pub fn take_emissions(&mut self) -> Vec<Emission> {
        self.closing.as_mut().map(|closing| std::mem::take(&mut closing.emissions)).unwrap_or_default()
    }

    /// Says whether a window waits for its end, although it has closed.
    pub(super) fn a_closed_window_is_pending(&self) -> bool {
        let pending = self.closing.as_ref().and_then(|closing| closing.pending.keys().next());
        pending.is_some_and(|end| *end <= self.closed_until_us)
    }
}
