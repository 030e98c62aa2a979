//! Properties over random histories and random bytes.

use proptest::prelude::*;

use super::super::frame::{HEADER_BYTES, decode};
use super::super::scan::scan;
use super::*;

/// What may happen to a log.
#[derive(Debug, Clone)]
enum Step {
    /// A batch of payloads of these lengths.
    Append(Vec<usize>),
    /// The log is closed and opened.
    Reopen,
    /// The process ends without closing, and this many bytes of the newest file are lost.
    Crash(usize),
    /// This share of the records may go.
    Trim(f64),
    /// A read from this share of the range, with these limits.
    Read(f64, usize, usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => prop::collection::vec(0..120_usize, 1..6).prop_map(Step::Append),
        1 => Just(Step::Reopen),
        1 => (0..200_usize).prop_map(Step::Crash),
        1 => (0.0..1.0).prop_map(Step::Trim),
        4 => (0.0..1.0, 1..20_usize, 1..500_usize).prop_map(|(at, n, bytes)| Step::Read(at, n, bytes)),
    ]
}

/// A log and what should be in it: the payload of each offset from 0 on.
struct Pair {
    bench: Bench,
    log: Option<EmbeddedLog>,
    model: Vec<String>,
    crashes: usize,
    path: PathBuf,
}

impl Pair {
    fn log(&self) -> &EmbeddedLog {
        self.log.as_ref().expect("open between steps")
    }

    fn bounds(&self) -> (u64, u64) {
        self.bench.runtime.block_on(async {
            let start = self.log().start_offset("t", 0).await.expect("start");
            (start, self.log().end_offset("t", 0).await.expect("end"))
        })
    }

    fn apply(&mut self, step: Step) {
        let model_len = self.model.len() as u64;
        match step {
            Step::Append(lengths) => {
                let payload = |(i, n): (usize, usize)| format!("{}{}", self.model.len() + i, "x".repeat(n));
                let payloads: Vec<_> = lengths.into_iter().enumerate().map(payload).collect();
                let texts: Vec<_> = payloads.iter().map(String::as_str).collect();
                let offsets = self.bench.append(self.log(), &texts).expect("append");
                assert_eq!(offsets, (model_len..model_len + payloads.len() as u64).collect::<Vec<_>>());
                self.model.extend(payloads);
            }
            Step::Reopen => {
                self.log = None;
                self.log = Some(self.bench.open_copy(&self.path).expect("open"));
            }
            Step::Crash(lost) => self.crash(lost),
            Step::Trim(share) => {
                let (start, end) = self.bounds();
                let before = start + ((end - start) as f64 * share) as u64;
                self.bench.runtime.block_on(self.log().trim("t", 0, before)).expect("trim");
                assert!(self.bounds().0 <= before.max(start));
            }
            Step::Read(share, records, bytes) => {
                let (start, end) = self.bounds();
                let from = start + ((end - start) as f64 * share) as u64;
                let read = self.log().read("t", 0, from, records, bytes);
                let batch = self.bench.runtime.block_on(read).expect("read");
                assert!(batch.records.len() <= records && batch.end == end);
                assert!(from == end || !batch.records.is_empty());
                assert_eq!(batch.next, from + batch.records.len() as u64);
                for record in &batch.records {
                    assert_eq!(payload(record), self.model[record.offset as usize]);
                }
            }
        }
        let (start, end) = self.bounds();
        assert_eq!(end, self.model.len() as u64);
        assert_eq!(self.bench.read(self.log()), self.model[start as usize..]);
    }

    /// Goes on with a copy of the files as they are, less the end of the newest: never a record
    /// that isn't in the last group, for earlier ones were durable.
    fn crash(&mut self, lost: usize) {
        self.crashes += 1;
        let copied = self.bench.dir.path().join(format!("crashed-{}", self.crashes));
        copy(&self.path, &copied);
        self.log = None;
        self.path = copied;
        let newest = log_files(&self.path).pop().expect("a file");
        let bytes = fs::read(&newest).expect("read");
        let left = bytes.len().saturating_sub(lost).max(HEADER_BYTES);
        fs::write(&newest, &bytes[..left]).expect("write");
        self.log = Some(self.bench.open_copy(&self.path).expect("open"));
        let (_, end) = self.bounds();
        assert!(end <= self.model.len() as u64);
        self.model.truncate(end as usize);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_log_holds_what_a_list_would(
        steps in prop::collection::vec(step(), 1..40),
        file_bytes in 100..2000_u64,
        recent_bytes_max in prop_oneof![Just(0_usize), 1..2000_usize],
    ) {
        let mut bench = Bench::new(file_bytes);
        bench.config.recent_bytes_max = recent_bytes_max;
        let (log, path) = (Some(bench.open().expect("open")), bench.path());
        let mut pair = Pair { bench, log, model: Vec::new(), crashes: 0, path };
        for step in steps {
            pair.apply(step);
        }
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
        let mut file = vec![0; HEADER_BYTES];
        file.extend_from_slice(&bytes);
        if let Ok(found) = scan(&file, 7) {
            prop_assert!(found.len <= file.len() && found.end >= 7);
        }
    }
}
