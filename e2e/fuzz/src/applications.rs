//! Applications: SQL is refused with a place in its text, or runs on whatever records come.

use std::path::Path;
use std::sync::Arc;

use sanso_view::{Application, PlanDescription, View};

use crate::records::{check_decoding, check_lifting};

/// An application and, behind a NUL, records of its sources.
pub(crate) fn application(bytes: &[u8]) {
    let at = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let (sql, records) = bytes.split_at(at);
    let Ok(sql) = std::str::from_utf8(sql) else { return };
    let application = match Application::parse(sql) {
        Ok(application) => application,
        Err(error) => {
            let lines = sql.split('\n').count() as u64;
            assert!((1..=lines).contains(&error.line) && error.column > 0, "{error} in {lines} lines");
            assert!(!error.message.is_empty());
            return;
        }
    };
    let lines: Vec<&[u8]> = records.get(1..).unwrap_or_default().split(|byte| *byte == b'\n').collect();
    application.sources.iter().for_each(|source| check_decoding(source, &lines));
    // Reference tables are files, and there are none here.
    let Ok(views) = application.bind(Path::new("/nonexistent")) else { return };
    views.iter().for_each(|view| check_lifting(view, &lines));
    assert_eq!(PlanDescription::of(&views).len(), views.len());
    let again = Application::parse(sql).expect("it was parsed before");
    let again = again.bind(Path::new("/nonexistent")).expect("and bound");
    let versions = |views: &[Arc<View>]| views.iter().map(|view| view.fingerprint).collect::<Vec<_>>();
    assert_eq!(versions(&again), versions(&views));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fuzzer_begins_with_applications_that_are_good_and_what_once_ended_the_process() {
        for (name, bytes) in crate::seeds("application") {
            let sql = bytes.split(|byte| *byte == 0).next().expect("always one part");
            let sql = std::str::from_utf8(sql).expect("text");
            let parsed = Application::parse(sql).map(|_| ());
            assert_eq!(parsed.is_ok(), !name.starts_with("too_"), "{name}: {parsed:?}");
        }
    }
}
