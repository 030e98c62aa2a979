//! Who feeds, serves and removes what, on three members whose files change one after the other.

use sanso_cluster::{Change, Instance};
use sanso_core::cluster::Incarnation;

use super::*;

const VIEW: &str = "daily";

fn version(name: &str) -> Fingerprint {
    Fingerprint::of(name.as_bytes())
}

fn life(node: u16, incarnation: u64) -> Instance {
    Instance { node: NodeId(node), incarnation: Incarnation(incarnation) }
}

/// A map of nodes in their first lives.
fn map(nodes: &[u16]) -> ClusterMap {
    let mut map = ClusterMap::new(4, 2);
    nodes.iter().for_each(|node| map.apply(&Change::Join(life(*node, 1))).expect("it is new"));
    map
}

/// What a node says that declares, serves, and feeds and holds versions.
fn said(declares: &str, serves: &str, feeds: &[&str]) -> Said {
    let all: BTreeSet<Fingerprint> = feeds.iter().map(|name| version(name)).collect();
    Said {
        incarnation: 1,
        applications: Vec::new(),
        declares: BTreeMap::from([(VIEW.to_owned(), version(declares))]),
        serves: BTreeMap::from([(VIEW.to_owned(), version(serves))]),
        feeds: all.clone(),
        holds: all,
        refuses: None,
    }
}

/// What node 1 has heard after one round.
fn hear(heard: &mut Heard, map: &ClusterMap, own: Said, answers: &[(u16, Said)]) {
    let answers = answers.iter().map(|(node, said)| (NodeId(*node), said.clone()));
    heard.hear(map, (NodeId(1), own), answers);
}

fn heard(map: &ClusterMap, own: Said, answers: &[(u16, Said)]) -> Heard {
    let mut heard = Heard::default();
    hear(&mut heard, map, own, answers);
    heard
}

fn versions(names: &[&str]) -> BTreeSet<Fingerprint> {
    names.iter().map(|name| version(name)).collect()
}

#[test]
fn a_version_is_served_once_every_member_that_answers_feeds_it() {
    let map = map(&[1, 2, 3]);
    let both = ["old", "new"];
    let own = || said("new", "old", &both);
    let one = heard(&map, own(), &[(2, said("old", "old", &both)), (3, said("old", "old", &["old"]))]);
    assert_eq!(one.wanted(), versions(&both));
    assert_eq!(one.awaited(version("new")), [NodeId(3)], "node 3 does not feed it yet");
    let all = heard(&map, own(), &[(2, said("old", "old", &both)), (3, said("new", "old", &both))]);
    assert_eq!(all.awaited(version("new")), []);
    // Who is expected to answer is waited for, who is known to be silent is not.
    let mut suspected = map.clone();
    let silent = [(2, said("old", "old", &both))];
    assert_eq!(heard(&map, own(), &silent).awaited(version("new")), [NodeId(3)]);
    suspected.apply(&Change::Down(life(3, 1))).expect("it was up");
    assert_eq!(heard(&suspected, own(), &silent).awaited(version("new")), []);
}

#[test]
fn a_version_is_let_go_of_on_the_word_of_every_member() {
    let map = map(&[1, 2, 3]);
    let new = || said("new", "new", &["old", "new"]);
    let mut known = heard(&map, new(), &[(2, new()), (3, said("old", "old", &["old", "new"]))]);
    assert!(!known.is_unwanted(version("old")), "node 3 declares it");
    // It is silent: what it said counts, whatever the others say.
    hear(&mut known, &map, new(), &[(2, new())]);
    assert!(!known.is_unwanted(version("old")) && known.wanted().contains(&version("old")));
    // It declares the new one, and serves the old one while that catches up.
    hear(&mut known, &map, new(), &[(2, new()), (3, said("new", "old", &["old", "new"]))]);
    assert!(!known.is_unwanted(version("old")));
    hear(&mut known, &map, new(), &[(2, new()), (3, new())]);
    assert!(known.is_unwanted(version("old")) && !known.is_unwanted(version("new")));
    // Of who has never answered nothing is known.
    assert!(!heard(&map, new(), &[(2, new())]).is_unwanted(version("old")));
}

#[test]
fn what_a_life_before_said_counts_until_the_present_one_is_heard_and_what_a_lost_member_said_does_not() {
    let mut map = map(&[1, 2, 3]);
    let new = || said("new", "new", &["old", "new"]);
    let old = || said("old", "old", &["old", "new"]);
    let mut known = heard(&map, new(), &[(2, new()), (3, old())]);
    map.apply(&Change::Join(life(3, 2))).expect("a new life");
    // An answer of the life before comes late.
    hear(&mut known, &map, new(), &[(2, new()), (3, new())]);
    assert!(!known.is_unwanted(version("old")));
    hear(&mut known, &map, new(), &[(2, new()), (3, Said { incarnation: 2, ..new() })]);
    assert!(known.is_unwanted(version("old")));
    hear(&mut known, &map, new(), &[(2, new()), (3, Said { incarnation: 2, ..old() })]);
    map.apply(&Change::Down(life(3, 2))).expect("it was up");
    hear(&mut known, &map, new(), &[(2, new())]);
    assert!(!known.is_unwanted(version("old")), "it may come back");
    map.apply(&Change::Forget(life(3, 2))).expect("it was suspected");
    hear(&mut known, &map, new(), &[(2, new())]);
    assert!(known.is_unwanted(version("old")), "it is no member any longer");
}

#[test]
fn view_partitions_are_removed_once_no_member_feeds_them() {
    let map = map(&[1, 2]);
    let lingers = || said("new", "new", &["old", "new"]);
    let let_go = || Said { holds: versions(&["old", "new"]), ..said("new", "new", &["new"]) };
    assert_eq!(heard(&map, let_go(), &[(2, lingers())]).removable(), versions(&[]));
    assert_eq!(heard(&map, lingers(), &[(2, let_go())]).removable(), versions(&[]));
    assert_eq!(heard(&map, let_go(), &[(2, let_go())]).removable(), versions(&["old"]));
    assert_eq!(heard(&map, let_go(), &[]).removable(), versions(&[]), "node 2 has not been heard");
    let again = Said { declares: lingers().declares, ..said("old", "new", &["new"]) };
    let again = Said { declares: BTreeMap::from([(VIEW.to_owned(), version("old"))]), ..again };
    assert_eq!(heard(&map, let_go(), &[(2, again)]).removable(), versions(&[]), "node 2 went back to it");
    // A node that is no member decides nothing.
    let stranger = Said { incarnation: 2, ..let_go() };
    assert_eq!(heard(&map, stranger, &[(2, let_go())]).removable(), versions(&[]));
}

#[test]
fn a_version_lingers_for_so_many_rounds_in_which_all_say_that_they_do_not_want_it() {
    let map = map(&[1, 2]);
    let (new, fed) = (|| said("new", "new", &["old", "new"]), versions(&["old", "new"]));
    let all = heard(&map, new(), &[(2, new())]);
    let mut silent = all.clone();
    hear(&mut silent, &map, new(), &[]);
    let wanted = heard(&map, new(), &[(2, said("old", "old", &["old", "new"]))]);
    let mut lingering = Lingering::default();
    let mut let_go = |heard: &Heard| lingering.let_go(heard, fed.clone(), 2);
    assert_eq!((let_go(&all), let_go(&silent), let_go(&all)), (versions(&[]), versions(&[]), versions(&[])));
    assert_eq!(let_go(&silent), versions(&[]));
    assert_eq!(let_go(&all), versions(&["old"]));
    assert_eq!(let_go(&silent), versions(&[]), "a member may want it by now");
    assert_eq!((let_go(&wanted), let_go(&all)), (versions(&[]), versions(&[])), "it is counted anew");
}

#[test]
fn all_write_the_closed_windows_of_the_version_that_most_members_serve() {
    let map = map(&[1, 2, 3, 4]);
    let of = |serves: &[&str]| {
        let own = said("new", serves[0], &[]);
        let others = (2..).zip(&serves[1..]).map(|(node, serves)| (node, said("new", serves, &[])));
        heard(&map, own, &others.collect::<Vec<_>>()).emits()[VIEW]
    };
    assert_eq!(of(&["old", "old", "new", "old"]), version("old"));
    assert_eq!(of(&["old", "new", "new", "new"]), version("new"));
    assert_eq!(of(&["old", "new", "new", "old"]), version("old"));
    assert_eq!(of(&["new", "old", "new", "old"]), version("new"));
}

/// All orders of the steps of one who wants a version again, and one who removes it: the one serves it only
/// after the other has given up removing it, or has removed it and made it again.
#[test]
fn who_wants_a_version_again_and_who_removes_it_see_each_other() {
    // Node 2 declares it and then asks; node 1 lets go of it and then asks.
    for order in 0..16_u32 {
        let map = map(&[1, 2]);
        let (mut feeds, mut declares) = (true, false);
        let (mut steps1, mut steps2) = (0, 0);
        let (mut removes, mut serves) = (false, false);
        let says1 = |feeds: bool| {
            let held = said("new", "new", if feeds { &["old", "new"] } else { &["new"] });
            Said { holds: versions(&["old"]), ..held }
        };
        let says2 = |declares: bool| {
            said(
                if declares { "old" } else { "new" },
                "new",
                if declares { &["old", "new"] } else { &["new"] },
            )
        };
        for step in 0..4 {
            let first = (order >> step) & 1 == 0 && steps1 < 2 || steps2 == 2;
            match (first, if first { steps1 } else { steps2 }) {
                (true, 0) => feeds = false,
                (true, _) => {
                    removes =
                        heard(&map, says1(feeds), &[(2, says2(declares))]).removable() == versions(&["old"]);
                }
                (false, 0) => declares = true,
                (false, _) => {
                    let mut known = Heard::default();
                    known.hear(&map, (NodeId(2), says2(declares)), [(NodeId(1), says1(feeds))]);
                    serves = known.awaited(version("old")).is_empty();
                }
            }
            if first { steps1 += 1 } else { steps2 += 1 }
        }
        assert!(!(removes && serves), "order {order:04b}");
    }
}

#[test]
fn a_version_is_as_far_once_it_has_all_that_any_partition_of_the_one_before_has() {
    let target = furthest(&[vec![4, 9], vec![7, 2]]);
    assert_eq!(target, [7, 9]);
    assert!(caught_up(&[vec![7, 9], vec![8, 9]], &target));
    assert!(!caught_up(&[vec![7, 9], vec![8, 8]], &target));
    assert!(caught_up(&[vec![0, 0]], &[]), "there is none before it");
}
