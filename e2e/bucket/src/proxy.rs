//! A proxy for HTTP/1.1 that does to requests what networks and servers do.
//!
//! Every connection carries one request: its end is the end of the answer, so bytes are forwarded as
//! they are, and a connection can be broken at any of them.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use anyhow::{Context, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A request as far as its fate may depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path and the query.
    pub target: String,
    /// Whether it is to be done only if an object is there, or not there.
    pub conditional: bool,
}

/// What happens to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is forwarded, and so is the answer.
    Forwarded,
    /// It is forwarded without its condition, as a server that knows none would take it.
    Unconditional,
    /// The connection is closed; the server never sees it.
    Refused,
    /// The server does it, and the connection is closed without the answer.
    AnswerLost,
    /// The server does it, and half of the answer's body arrives.
    AnswerCut,
    /// Nothing happens until the client gives up.
    Ignored,
    /// The answer is this status with an S3 error of this code; the server never sees it.
    Answered(u16, &'static str),
    /// The server does it, and the answer is this status with an S3 error of this code.
    DoneAndAnswered(u16, &'static str),
}

type Decide = Box<dyn FnMut(&Request) -> Fate + Send>;

/// A running proxy. Ends when dropped.
pub(crate) struct Proxy {
    address: SocketAddr,
    decide: Arc<Mutex<Decide>>,
    task: JoinHandle<()>,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Starts a proxy on a free port.
    pub(crate) async fn start(server: SocketAddr) -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.context("find a free port")?;
        let address = listener.local_addr().context("read the proxy's port")?;
        let decide: Arc<Mutex<Decide>> = Arc::new(Mutex::new(Box::new(|_| Fate::Forwarded)));
        let deciding = Arc::clone(&decide);
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let decide = Arc::clone(&deciding);
                tokio::spawn(async move {
                    // A client that is gone is no failure of the proxy.
                    let _ = serve(client, server, &decide).await;
                });
            }
        });
        Ok(Self { address, decide, task })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn decide(&self, fate: Decide) {
        *self.decide.lock().expect("no panic while it is held") = fate;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, server: SocketAddr, decide: &Mutex<Decide>) -> anyhow::Result<()> {
    let (bytes, head) = read_request(&mut client).await?;
    let request = parse(&bytes[..head])?;
    let fate = decide.lock().expect("no panic while it is held")(&request);
    match fate {
        Fate::Refused => {}
        Fate::Ignored => {
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await?;
        }
        Fate::Answered(status, code) => client.write_all(&error_answer(status, code)).await?,
        Fate::Unconditional => {
            let head_only = String::from_utf8_lossy(&bytes[..head]).into_owned();
            let kept = head_only.split_inclusive("\r\n").filter(|line| !is_condition(line));
            let mut plain: Vec<u8> = kept.collect::<String>().into_bytes();
            let head_only = plain.len();
            plain.extend_from_slice(&bytes[head..]);
            client.write_all(&exchange(server, &closing(&plain, head_only)).await?).await?;
        }
        Fate::Forwarded | Fate::AnswerLost | Fate::AnswerCut | Fate::DoneAndAnswered(..) => {
            let answer = exchange(server, &closing(&bytes, head)).await?;
            let cut = end_of_head(&answer).map_or(0, |head| head + (answer.len() - head) / 2);
            match fate {
                Fate::AnswerLost => {}
                Fate::AnswerCut => client.write_all(&answer[..cut]).await?,
                Fate::DoneAndAnswered(status, code) => client.write_all(&error_answer(status, code)).await?,
                _ => client.write_all(&answer).await?,
            }
        }
    }
    client.shutdown().await.context("close the connection")
}

/// Sends a request that closes its connection and returns the whole answer.
pub(crate) async fn exchange(server: SocketAddr, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut connection = TcpStream::connect(server).await.context("connect to the server")?;
    connection.write_all(request).await.context("send a request")?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer).await.context("read an answer")?;
    Ok(answer)
}

/// Reads one request; returns its bytes and where its body begins.
async fn read_request(client: &mut TcpStream) -> anyhow::Result<(Vec<u8>, usize)> {
    let mut bytes = Vec::new();
    let head = loop {
        if let Some(head) = end_of_head(&bytes) {
            break head;
        }
        more(client, &mut bytes).await?;
    };
    let length = header(&bytes[..head], "content-length").map_or(Ok(0), |length| length.parse())?;
    while bytes.len() < head + length {
        more(client, &mut bytes).await?;
    }
    Ok((bytes, head))
}

async fn more(client: &mut TcpStream, bytes: &mut Vec<u8>) -> anyhow::Result<()> {
    if client.read_buf(bytes).await? == 0 {
        bail!("the client went away");
    }
    Ok(())
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

fn header(head: &[u8], name: &str) -> Option<String> {
    let text = String::from_utf8_lossy(head).into_owned();
    let fields = text.lines().skip(1).filter_map(|line| line.split_once(':'));
    let mut found = fields.filter(|(field, _)| field.eq_ignore_ascii_case(name));
    found.next().map(|(_, value)| value.trim().to_owned())
}

fn is_condition(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    line.starts_with("if-none-match:") || line.starts_with("if-match:")
}

fn parse(head: &[u8]) -> anyhow::Result<Request> {
    let text = String::from_utf8_lossy(head).into_owned();
    let mut words = text.lines().next().unwrap_or_default().split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().context("a request line")?);
    let conditional = text.lines().any(is_condition);
    Ok(Request { method: method.to_owned(), target: target.to_owned(), conditional })
}

/// Asks the server to close the connection after the answer, which tells the client so too.
fn closing(request: &[u8], head: usize) -> Vec<u8> {
    let mut closing = request[..head - 2].to_vec();
    closing.extend_from_slice(b"Connection: close\r\n\r\n");
    closing.extend_from_slice(&request[head..]);
    closing
}

fn error_answer(status: u16, code: &str) -> Vec<u8> {
    let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{code}</Message></Error>");
    let length = body.len();
    format!("HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}
