//! A bucket that can't be used, and one that fails while it is used. Requests go through a proxy.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use sanso_bucket::{Bucket, Fate, Request, available};
use sanso_dataset::{Dataset, DatasetConfig, DatasetError};

use crate::support::{SOURCE, advance, check, config, open};

/// Starts a bucket, where that can be done.
async fn bucket(test: &str) -> Option<(Bucket, DatasetConfig)> {
    if !available(test) {
        return None;
    }
    let bucket = Bucket::start().await.expect("an S3 server");
    let config = config(bucket.endpoint());
    Some((bucket, config))
}

/// Meets the first request that matches with a fate. Returns how often one matched.
fn once(
    bucket: &Bucket,
    fate: Fate,
    matches: impl Fn(&Request) -> bool + Send + 'static,
) -> Arc<AtomicUsize> {
    let met = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&met);
    bucket.decide(move |request| {
        if matches(request) && count.fetch_add(1, Ordering::SeqCst) == 0 { fate } else { Fate::Forwarded }
    });
    met
}

/// Gives up a request that is ignored, and does not repeat it: none that is answered takes so long.
fn hasty(config: DatasetConfig) -> DatasetConfig {
    DatasetConfig { retries_max: 1, retry_ms_max: 2_000, request_ms_max: 5_000, ..config }
}

fn is_commit(request: &Request) -> bool {
    request.method == "PUT" && request.target.contains("/manifests/")
}

#[tokio::test]
async fn a_bucket_that_can_t_be_used_is_refused_with_its_name_and_what_to_do() {
    let Some((bucket, config)) = bucket("a_bucket_that_can_t_be_used_is_refused").await else { return };
    let config = hasty(config);
    let refusals: [(Fate, &str); 6] = [
        (Fate::Answered(404, "NoSuchBucket"), "no such bucket"),
        (Fate::Answered(403, "AccessDenied"), "access is denied"),
        (Fate::Answered(503, "SlowDown"), "gives no answer"),
        (Fate::Refused, "gives no answer"),
        (Fate::Ignored, "gives no answer"),
        (Fate::Unconditional, "ignores conditional writes"),
    ];
    for (fate, what) in refusals {
        bucket.decide(move |_| fate);
        let error = open(&config).await.err().unwrap_or_else(|| panic!("{fate:?} is refused")).with_causes();
        for part in [Bucket::NAME, &bucket.endpoint(), what] {
            assert!(error.contains(part), "{fate:?}: {error}");
        }
        assert!(!error.contains("never shown"), "{error}");
    }
    bucket.heal();
    let elsewhere = DatasetConfig { url: Some("s3://another-bucket".to_owned()), ..config.clone() };
    let error = open(&elsewhere).await.err().expect("there is no such bucket").with_causes();
    assert!(error.contains("another-bucket") && error.contains("no such bucket"), "{error}");
    open(&config).await.expect("it can be used now");
}

#[tokio::test]
async fn a_version_whose_answer_was_lost_is_recognised_as_ours() {
    let Some((bucket, config)) = bucket("a_version_whose_answer_was_lost_is_recognised").await else {
        return;
    };
    let dataset = open(&config).await.expect("open");
    // The server made the version and failed then: the client repeats the request and is refused.
    let mut newest = None;
    for fate in [Fate::DoneAndAnswered(503, "SlowDown"), Fate::AnswerLost] {
        let tries = once(&bucket, fate, is_commit);
        newest = Some(advance(&dataset, newest.as_ref()).await.expect("it is ours"));
        assert_eq!(tries.load(Ordering::SeqCst), 2, "it was tried again");
        check(&dataset, newest.as_ref().expect("committed")).await;
    }
    // The answer is lost, and then the store: nobody knows, until it is back.
    let mut out = false;
    bucket.decide(move |request| {
        let fate = if out { Fate::Refused } else { Fate::Forwarded };
        out |= is_commit(request);
        if out && fate == Fate::Forwarded { Fate::AnswerLost } else { fate }
    });
    let error = advance(&dataset, newest.as_ref()).await.expect_err("nobody knows");
    assert!(error.is_transient(), "{error}");
    bucket.heal();
    let third = dataset.manifest(SOURCE).await.expect("load").expect("committed");
    assert_eq!(third.version, 3);
    check(&dataset, &advance(&dataset, Some(&third)).await.expect("it goes on")).await;
}

#[tokio::test]
async fn throttling_broken_connections_and_cut_answers_are_repeated() {
    let Some((bucket, config)) = bucket("throttling_and_cut_answers_are_repeated").await else { return };
    let dataset = open(&config).await.expect("open");
    let mut newest = None;
    for fate in [Fate::Answered(503, "SlowDown"), Fate::Answered(500, "InternalError"), Fate::Refused] {
        let mut number = 0;
        bucket.decide(move |request| {
            number += 1;
            let may = number % 2 == 0 && (fate != Fate::Refused || !request.conditional);
            if may { fate } else { Fate::Forwarded }
        });
        newest = Some(advance(&dataset, newest.as_ref()).await.expect("advance"));
        check(&dataset, newest.as_ref().expect("committed")).await;
    }
    let mut number = 0;
    bucket.decide(move |request| {
        let is_file = request.method == "GET" && request.target.ends_with(".parquet");
        number += usize::from(is_file);
        if is_file && number % 2 == 1 { Fate::AnswerCut } else { Fate::Forwarded }
    });
    check(&dataset, newest.as_ref().expect("committed")).await;
}

#[tokio::test]
async fn an_answer_that_is_always_short_is_an_error_and_never_half_a_file() {
    let Some((bucket, config)) = bucket("an_answer_that_is_always_short_is_an_error").await else { return };
    let dataset = open(&config).await.expect("open");
    let newest = advance(&dataset, None).await.expect("commit");
    bucket.decide(|request| if request.method == "GET" { Fate::AnswerCut } else { Fate::Forwarded });
    let errors = [
        dataset.read_segment(SOURCE, &newest.segments[0]).await.expect_err("half a file"),
        dataset.manifest(SOURCE).await.expect_err("half a file"),
    ];
    assert!(errors.iter().all(DatasetError::is_transient), "{errors:?}");
    bucket.heal();
    check(&dataset, &newest).await;
}

#[tokio::test]
async fn an_outage_is_a_transient_error_that_names_the_file_and_changes_nothing() {
    let Some((bucket, config)) = bucket("an_outage_is_a_transient_error").await else { return };
    let config = hasty(config);
    let dataset = open(&config).await.expect("open");
    let newest = advance(&dataset, None).await.expect("commit");
    for fate in [Fate::Refused, Fate::Ignored, Fate::Answered(503, "SlowDown")] {
        bucket.decide(move |_| fate);
        let errors = [
            advance(&dataset, Some(&newest)).await.expect_err("nothing can be written"),
            dataset.manifest(SOURCE).await.map(drop).expect_err("nothing can be read"),
            dataset.remove_unreferenced(SOURCE, 1).await.map(drop).expect_err("nothing can be removed"),
        ];
        for error in errors {
            assert!(error.is_transient() && error.to_string().contains(SOURCE), "{error}");
        }
    }
    bucket.heal();
    check(&dataset, &newest).await;
    check(&dataset, &advance(&dataset, Some(&newest)).await.expect("it goes on")).await;
}

#[tokio::test]
async fn a_bucket_that_is_gone_is_not_taken_for_an_empty_dataset() {
    let Some((bucket, config)) = bucket("a_bucket_that_is_gone_is_not_an_empty_dataset").await else {
        return;
    };
    let dataset: Dataset = open(&config).await.expect("open");
    bucket.decide(|_| Fate::Answered(404, "NoSuchBucket"));
    let error = dataset.manifest(SOURCE).await.map(drop).expect_err("nobody knows what is in force");
    assert!(error.with_causes().contains("NoSuchBucket"), "{error}");
}
