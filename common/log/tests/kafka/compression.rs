//! What other producers compressed is read, or refused; never passed over.

use sanso_log::{Log, LogError, Retry};

use super::{make, on_shared, read_on, shared};

fn produce(topic: &str, codec: &str, lines: &str) {
    let arguments = ["-P", "-t", topic, "-p", "0", "-z", codec];
    shared().kcat(&arguments, lines).expect("produce");
}

#[test]
fn common_compressions_are_read() {
    on_shared("codecs", async |log, topic: &str| {
        make(&log, topic, 1).await;
        let codecs = ["none", "gzip", "snappy", "lz4"];
        for codec in codecs {
            produce(topic, codec, &format!("{}\n", codec.repeat(50)));
        }
        let (read, error) = read_on(&log, topic, 0, 0).await;
        assert!(error.is_none(), "{error:?}");
        let expected: Vec<_> = (0..).zip(codecs.map(|codec| codec.repeat(50))).collect();
        assert_eq!(read, expected);
    });
}

#[test]
fn a_compression_that_can_not_be_undone_stops_the_reader_where_it_is() {
    on_shared("zstd", async |log, topic: &str| {
        make(&log, topic, 1).await;
        produce(topic, "none", "before\n");
        // Each record alone is worth compressing: a producer sends uncompressed what does not get smaller.
        let compressed = "compressed".repeat(50);
        produce(topic, "zstd", &format!("{compressed}\n").repeat(3));
        produce(topic, "none", "behind\n");
        let (read, error) = read_on(&log, topic, 0, 0).await;
        assert_eq!(read, [(0, "before".to_owned())], "what lies behind is not shown: {error:?}");
        // It stays so: nothing behind the records that can't be read is ever given.
        for _ in 0..3 {
            let error = log.read(topic, 0, 1, 100, 1 << 20).await.expect_err("nothing can be read here");
            assert_eq!(error.retry(), Retry::Never, "{error}");
            assert!(matches!(error, LogError::Refused { .. }), "{error:?}");
            assert!(error.to_string().contains("compress"), "{error}");
        }
        let (behind, error) = read_on(&log, topic, 0, 4).await;
        assert_eq!((behind, error.is_none()), (vec![(4, "behind".to_owned())], true));
    });
}
