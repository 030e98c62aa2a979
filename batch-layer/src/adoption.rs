//! When a view partition adopts a version. Pure.

use sanso_state::{Cut, Offset};

/// What to do about one view partition and a version that it has not adopted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Look again in the next run: the speed layer has not reached the cut, and the audit could not
    /// compare everything.
    Wait,
    /// Audit what can be compared, then adopt.
    Adopt,
}

/// Decides. `applied`: the view partition's; `auditable`: whether there is anything to compare;
/// `waited`: runs it has waited already.
pub fn decide(applied: &[Offset], cut: &Cut, auditable: bool, waited: u32, wait_max: u32) -> Decision {
    let reached = applied.iter().zip(cut.offsets()).all(|(applied, cut)| applied >= cut);
    if auditable && !reached && waited < wait_max { Decision::Wait } else { Decision::Adopt }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adoption_waits_for_the_speed_layer_but_not_for_ever() {
        let cut = Cut::new(vec![4, 8]);
        for (applied, auditable, waited, expected) in [
            (&[4, 8], true, 0, Decision::Adopt),
            (&[9, 9], true, 0, Decision::Adopt),
            (&[9, 7], true, 0, Decision::Wait),
            (&[9, 7], true, 2, Decision::Wait),
            (&[9, 7], true, 3, Decision::Adopt),
            (&[0, 0], false, 0, Decision::Adopt),
        ] {
            assert_eq!(decide(applied, &cut, auditable, waited, 3), expected, "{applied:?} {waited}");
        }
    }
}
