//! Reads files and says what they hold: `cargo run --release --example read -- FILE…`.

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use sanso_reading::{Event, ReadOptions};

#[allow(clippy::print_stdout, reason = "an example's purpose is to print")]
fn main() {
    for file in std::env::args().skip(1) {
        let begun = Instant::now();
        let mut shown = 0;
        let mut json = Vec::new();
        let mut bytes = 0;
        let summary = sanso_reading::read_file(Path::new(&file), &ReadOptions::default(), |event| {
            match event {
                Event::Reading(reading) => {
                    json.clear();
                    reading.write_json(&mut json);
                    bytes += json.len();
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
                println!("{summary:?}\n{bytes} bytes of JSON in {seconds:.3} s");
            }
            Err(error) => println!("{error}"),
        }
    }
}
