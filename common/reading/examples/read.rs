//! Reads files and says what they hold: `cargo run --release --example read -- FILE…`.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use sanso_reading::{Decimal, Event, ReadOptions};

#[allow(clippy::print_stdout, reason = "an example's purpose is to print")]
fn main() {
    for file in std::env::args().skip(1) {
        let begun = Instant::now();
        let mut shown = 0;
        let mut json = Vec::new();
        let mut bytes = 0;
        // Readings and sum in millionths by channel and unit.
        let mut channels: BTreeMap<(String, String), (u64, i64)> = BTreeMap::new();
        let summary = sanso_reading::read_file(Path::new(&file), &ReadOptions::default(), |event| {
            match event {
                Event::Reading(reading) => {
                    json.clear();
                    reading.write_json(&mut json);
                    bytes += json.len();
                    let key = (reading.channel.clone(), reading.unit.clone());
                    let total = channels.entry(key).or_default();
                    total.0 += 1;
                    total.1 += reading.value.and_then(|value| value.micro().ok()).unwrap_or(0);
                }
                Event::Refused(refused) if shown < 5 => {
                    println!("{refused}\n    {}", refused.record);
                    shown += 1;
                }
                Event::Refused(_) => {}
            }
            ControlFlow::Continue(())
        });
        match summary {
            Ok(summary) => {
                let seconds = begun.elapsed().as_secs_f64();
                for ((channel, unit), (count, micro)) in channels {
                    println!("{channel}: {count} readings, {} {unit}", Decimal::from_micro(micro));
                }
                println!("{summary:?}\n{bytes} bytes of JSON in {seconds:.3} s");
            }
            Err(error) => println!("{error}"),
        }
    }
}
