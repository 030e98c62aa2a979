//! Kills a process that appends to the embedded log with SIGKILL, again and again, and checks that
//! every record it was told of is there, in place, and nothing else but what it sent.
//!
//! The program is both: started with a directory it is the appender, else the test. Nothing waits
//! for time: the appender is killed when the n-th acknowledgement has been read from it.
#![allow(clippy::print_stdout, reason = "the appender reports by its output, the test its result")]

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use sanso_log::{Append, EmbeddedConfig, EmbeddedLog, Log, LogError, Retry, TopicSpec};
use tempfile::TempDir;

const APPENDER: &str = "--append-to";
const LIMITED: &str = "--append-within-limit";
/// Records that the limited process appends: enough to fill several files.
const LIMITED_RECORDS: u64 = 300;
const TOPIC: &str = "readings";
const PARTITIONS: u32 = 2;
/// Kills; each at another number of acknowledgements.
const ROUNDS: usize = 25;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, dir, round] = &arguments[..]
        && flag == APPENDER
    {
        return append_until_killed(Path::new(dir), round);
    }
    if let [_, flag, dir, _] = &arguments[..]
        && flag == LIMITED
    {
        return append_within_limit(Path::new(dir));
    }
    let name = "acknowledged_records_survive_kill_9";
    acknowledged_records_survive_kill_9()?;
    println!("test {name} ... ok ({ROUNDS} kills)");
    let name = "a_full_disk_fails_the_append_and_heals";
    a_full_disk_fails_the_append_and_heals()?;
    println!("test {name} ... ok");
    Ok(())
}

fn config() -> EmbeddedConfig {
    // Small files, so that kills also meet the change from one to the next.
    EmbeddedConfig { file_bytes: 16 << 10, ..EmbeddedConfig::default() }
}

/// Appends from several tasks at once and prints `partition offset payload` for each record that
/// was acknowledged. Ends only by being killed, or by an error, which it prints.
fn append_until_killed(dir: &Path, round: &str) -> Result<(), Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let log = Arc::new(EmbeddedLog::open_with(dir, config())?);
    let appenders = (0..4_u32).map(|appender| {
        let (log, round) = (log.clone(), round.to_owned());
        let partition = appender % PARTITIONS;
        runtime.spawn(async move {
            for i in 0.. {
                // 1 to 5 records of 0 to 600 bytes.
                let payloads: Vec<String> = (0..=i % 5)
                    .map(|n| format!("{round}-{appender}-{i}-{n}-{}", "x".repeat((i * 37) % 600)))
                    .collect();
                let records = payloads.iter().cloned().map(Append::unkeyed).collect();
                let offsets = match log.append(TOPIC, partition, records).await {
                    Ok(offsets) => offsets,
                    Err(error) => {
                        println!("error {error}");
                        std::process::exit(1);
                    }
                };
                // One write for each line: a kill leaves at most one unfinished line at the end.
                let mut out = std::io::stdout().lock();
                for (offset, payload) in offsets.iter().zip(&payloads) {
                    let line = format!("{partition} {offset} {payload}\n");
                    if out.write_all(line.as_bytes()).and_then(|()| out.flush()).is_err() {
                        std::process::exit(2);
                    }
                }
            }
        })
    });
    let appenders: Vec<_> = appenders.collect();
    runtime.block_on(futures::future::join_all(appenders));
    Ok(())
}

fn start_appender(dir: &Path, round: usize) -> Result<Child, Box<dyn Error>> {
    let this = std::env::current_exe()?;
    let mut command = Command::new(this);
    command.arg(APPENDER).arg(dir).arg(round.to_string()).stdout(Stdio::piped());
    Ok(command.spawn()?)
}

/// What was acknowledged: partition, offset, payload.
type Acknowledged = Vec<(u32, u64, String)>;

fn parse(line: &str) -> Option<(u32, u64, String)> {
    let mut words = line.splitn(3, ' ');
    let partition = words.next()?.parse().ok()?;
    Some((partition, words.next()?.parse().ok()?, words.next()?.to_owned()))
}

/// Reads acknowledgements until there are `enough`, kills, and reads what was printed before.
fn kill_after(mut appender: Child, enough: usize) -> Result<Acknowledged, Box<dyn Error>> {
    let mut acknowledged = Acknowledged::new();
    let mut lines = BufReader::new(appender.stdout.take().ok_or("stdout is piped")?);
    let mut killed = false;
    let mut line = String::new();
    while lines.read_line(&mut line)? > 0 {
        if let Some(whole) = line.strip_suffix('\n') {
            acknowledged.push(parse(whole).ok_or_else(|| format!("the appender said: {whole}"))?);
        }
        if acknowledged.len() >= enough && !killed {
            appender.kill()?;
            killed = true;
        }
        line.clear();
    }
    appender.wait()?;
    if !killed {
        return Err(format!("the appender ended by itself after {}", acknowledged.len()).into());
    }
    Ok(acknowledged)
}

fn acknowledged_records_survive_kill_9() -> Result<(), Box<dyn Error>> {
    let dir = TempDir::new()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    {
        let log = EmbeddedLog::open_with(dir.path(), config())?;
        runtime.block_on(log.ensure_topic(&TopicSpec::new(TOPIC, PARTITIONS)))?;
    }
    let mut acknowledged = Acknowledged::new();
    for round in 0..ROUNDS {
        let enough = 1 + round * 23 % 190;
        acknowledged.extend(kill_after(start_appender(dir.path(), round)?, enough)?);
        let log = EmbeddedLog::open_with(dir.path(), config())?;
        for partition in 0..PARTITIONS {
            let records = read_whole(&runtime, &log, partition)?;
            let consecutive = records.iter().enumerate().all(|(i, (offset, _))| *offset == i as u64);
            assert!(consecutive, "round {round}: offsets have no holes");
            let mut payloads: Vec<_> = records.iter().map(|(_, payload)| payload).collect();
            payloads.sort();
            payloads.dedup();
            assert_eq!(payloads.len(), records.len(), "round {round}: nothing is doubled");
            for (_, offset, payload) in acknowledged.iter().filter(|a| a.0 == partition) {
                let found = records.get(*offset as usize).map(|(_, payload)| payload);
                assert_eq!(found, Some(payload), "round {round}: {partition}/{offset}");
            }
        }
    }
    Ok(())
}

fn read_whole(
    runtime: &tokio::runtime::Runtime,
    log: &EmbeddedLog,
    partition: u32,
) -> Result<Vec<(u64, String)>, Box<dyn Error>> {
    let mut records = Vec::new();
    let mut from = 0;
    loop {
        let batch = runtime.block_on(log.read(TOPIC, partition, from, 1000, 1 << 20))?;
        for record in batch.records {
            records.push((record.offset, String::from_utf8(record.payload.to_vec())?));
        }
        from = batch.next;
        if batch.next == batch.end {
            return Ok(records);
        }
    }
}

/// Lets a process meet a limit on the size of files, which the system reports as it does a full
/// disk, and opens the log it leaves without that limit.
fn a_full_disk_fails_the_append_and_heals() -> Result<(), Box<dyn Error>> {
    let dir = TempDir::new()?;
    // 16 blocks of 512 bytes; the signal for it is ignored, so that the write fails instead.
    let limited = "trap '' XFSZ; ulimit -S -f 16; exec \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", limited, "sh"]).arg(std::env::current_exe()?);
    let status = command.arg(LIMITED).arg(dir.path()).arg("0").status()?;
    assert!(status.success(), "the limited process failed: {status}");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let log = EmbeddedLog::open_with(dir.path(), config())?;
    let records = read_whole(&runtime, &log, 0)?;
    let expected = (0..LIMITED_RECORDS).map(|i| (i, format!("small {i}"))).collect::<Vec<_>>();
    assert_eq!(records, expected);
    let large = vec![Append::unkeyed("x".repeat(100_000))];
    let appended = runtime.block_on(log.append(TOPIC, 0, large))?;
    assert_eq!(appended, [LIMITED_RECORDS], "with space again the append succeeds");
    Ok(())
}

/// Runs where no file may exceed 8 KiB: appends that don't fit fail and leave nothing behind, those
/// that fit succeed before and after.
fn append_within_limit(dir: &Path) -> Result<(), Box<dyn Error>> {
    let config = EmbeddedConfig { file_bytes: 4 << 10, recent_bytes_max: 0, ..config() };
    let log = EmbeddedLog::open_with(dir, config)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    runtime.block_on(log.ensure_topic(&TopicSpec::new(TOPIC, 1)))?;
    for i in 0..LIMITED_RECORDS {
        let small = vec![Append::unkeyed(format!("small {i}"))];
        let offsets = runtime.block_on(log.append(TOPIC, 0, small))?;
        assert_eq!(offsets, [i]);
        // The first of the two would fit alone.
        let large = vec![Append::unkeyed("fits"), Append::unkeyed("x".repeat(20_000))];
        match runtime.block_on(log.append(TOPIC, 0, large)) {
            Err(error @ LogError::Full { .. }) => assert_eq!(error.retry(), Retry::Later),
            other => return Err(format!("20 kB into 8 KiB: {other:?}").into()),
        }
        assert_eq!(runtime.block_on(log.end_offset(TOPIC, 0))?, i + 1);
    }
    assert_eq!(read_whole(&runtime, &log, 0)?.len() as u64, LIMITED_RECORDS);
    Ok(())
}
