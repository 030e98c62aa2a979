//! View queries over HTTP, against nginx serving the same bytes from a file.
//!
//! One client for both: connections that are kept, requests that are written
//! down beforehand. First as many as it can (closed loop); then at fixed rates
//! whatever the answers do (open loop), where a late answer counts from when its
//! request was due.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::figure::{Figure, quantile};
use crate::load::{application, bodies, peak_mb, send, start};

const HALF_HOURS: u32 = 96;
const CONNECTIONS: usize = 16;
const SECONDS: u64 = 5;

/// Measures; see the head of the file.
pub(crate) fn run() -> anyhow::Result<Vec<Figure>> {
    Runtime::new()?.block_on(async {
        let folder = application()?;
        let node = start(folder.path())?;
        let session = send(&node, bodies(0..HALF_HOURS)).await?;
        node.client.query_at("SELECT COUNT(*) AS n FROM meter_daily", &session).await?;
        let mut figures = Vec::new();
        for (name, path) in [
            (
                "point",
                "/v1/views/meter_daily?key=NMI0000042&from=2026-01-01T00:00:00Z&to=2026-01-02T00:00:00Z",
            ),
            ("range of 96", "/v1/views/feeder_load?key=F3"),
        ] {
            let address = node.client.base().trim_start_matches("http://").to_owned();
            let body = request(&mut TcpStream::connect(&address).await?, &get(path, &address)).await?;
            let web = folder.path().join("web");
            std::fs::create_dir_all(&web)?;
            std::fs::write(web.join("answer.json"), &body)?;
            let nginx = Nginx::start(folder.path(), &web)?;
            let ours = closed(&address, path).await?;
            let theirs = closed(&nginx.address, "/answer.json").await?;
            figures.push(
                Figure::rate(format!("{name}, {} bytes, closed loop", body.len()), ours, "requests/s")
                    .against("nginx", theirs),
            );
            for share in [0.25, 0.5] {
                let rate = theirs * share;
                let ours = open(&address, path, rate).await?;
                let theirs = open(&nginx.address, "/answer.json", rate).await?;
                for (part, label) in [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9")] {
                    let what = format!("{name}, open loop at {rate:.0}/s, {label}");
                    figures.push(
                        Figure::cost(what, quantile(&ours, part), "ms")
                            .against("nginx", quantile(&theirs, part)),
                    );
                }
            }
        }
        figures.push(Figure::cost("peak memory", peak_mb(node.pid())?, "MB"));
        node.stop()?;
        Ok(figures)
    })
}

fn get(path: &str, host: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes()
}

/// Sends a request and returns the answer's body; only answers with a length are understood.
async fn request(stream: &mut TcpStream, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    stream.write_all(request).await?;
    let mut answer = Vec::with_capacity(4096);
    loop {
        ensure!(stream.read_buf(&mut answer).await? > 0, "the server closed the connection");
        let Some(head) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { continue };
        let headers = std::str::from_utf8(&answer[..head])?.to_ascii_lowercase();
        ensure!(headers.starts_with("http/1.1 200"), "{headers}");
        let length = headers.lines().find_map(|line| line.strip_prefix("content-length: "));
        let end = head + 4 + length.context("an answer without a length")?.parse::<usize>()?;
        while answer.len() < end {
            ensure!(stream.read_buf(&mut answer).await? > 0, "the server closed the connection");
        }
        return Ok(answer.split_off(head + 4));
    }
}

/// Returns how many requests a second are answered when each connection asks again at once.
async fn closed(address: &str, path: &str) -> anyhow::Result<f64> {
    let asked = Arc::new(get(path, address));
    let started = Instant::now();
    let until = started + Duration::from_secs(SECONDS);
    let mut tasks = Vec::new();
    for _ in 0..CONNECTIONS {
        let (mut stream, asked) = (TcpStream::connect(address).await?, Arc::clone(&asked));
        stream.set_nodelay(true)?;
        tasks.push(tokio::spawn(async move {
            let mut count = 0_u64;
            while Instant::now() < until {
                request(&mut stream, &asked).await?;
                count += 1;
            }
            anyhow::Ok(count)
        }));
    }
    let mut count = 0;
    for task in tasks {
        count += task.await??;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// Returns the sorted times of answers in milliseconds, from when each request was due.
async fn open(address: &str, path: &str, rate: f64) -> anyhow::Result<Vec<f64>> {
    let asked = Arc::new(get(path, address));
    let each = Duration::from_secs_f64(CONNECTIONS as f64 / rate);
    let requests = (rate * SECONDS as f64 / CONNECTIONS as f64) as u32;
    let began = Instant::now() + Duration::from_millis(20);
    let mut tasks = Vec::new();
    for connection in 0..CONNECTIONS as u32 {
        let (mut stream, asked) = (TcpStream::connect(address).await?, Arc::clone(&asked));
        stream.set_nodelay(true)?;
        tasks.push(tokio::spawn(async move {
            let mut times = Vec::with_capacity(requests as usize);
            for number in 0..requests {
                let due = began + each * number + each * connection / CONNECTIONS as u32;
                tokio::time::sleep_until(due.into()).await;
                request(&mut stream, &asked).await?;
                times.push(due.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(times)
        }));
    }
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await??);
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// A running nginx that serves one folder. Killed when dropped.
struct Nginx {
    child: Child,
    address: String,
}

impl Nginx {
    fn start(folder: &Path, web: &Path) -> anyhow::Result<Nginx> {
        let free = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let config = folder.join("nginx.conf");
        let text = format!(
            "worker_processes auto; daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n\
             events {{ worker_connections 1024; }}\n\
             http {{ access_log off; keepalive_requests 100000000; types {{ application/json json; }}\n\
             open_file_cache max=10; sendfile on; tcp_nopush off;\n\
             server {{ listen {free}; root {web}; }} }}\n",
            folder = folder.display(),
            web = web.display(),
        );
        std::fs::write(&config, text)?;
        let child = Command::new("nginx")
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start nginx (make bench installs it)")?;
        let started = Instant::now();
        while std::net::TcpStream::connect(free).is_err() {
            ensure!(started.elapsed() < Duration::from_secs(10), "nginx does not answer; see its log");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Nginx { child, address: free.to_string() })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // SIGTERM, so that the master ends its workers too; it may have ended already.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
