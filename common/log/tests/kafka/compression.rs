//! What other producers compressed is read.

use super::{make, on_shared, read_on, shared};

fn produce(topic: &str, codec: &str, lines: &str) {
    let arguments = ["-P", "-t", topic, "-p", "0", "-z", codec];
    shared().kcat(&arguments, lines).expect("produce");
}

#[test]
fn every_compression_is_read() {
    on_shared("codecs", async |log, topic: &str| {
        make(&log, topic, 1).await;
        let codecs = ["none", "gzip", "snappy", "lz4", "zstd"];
        for codec in codecs {
            // A producer sends uncompressed what does not get smaller.
            produce(topic, codec, &format!("{}\n", codec.repeat(50)));
        }
        let (read, error) = read_on(&log, topic, 0, 0).await;
        assert!(error.is_none(), "{error:?}");
        let expected: Vec<_> = (0..).zip(codecs.map(|codec| codec.repeat(50))).collect();
        assert_eq!(read, expected);
    });
}
